//! What a verdict is to the kernel.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use nodeport_common::abi::Reason;
use nodeport_common::core::env::Env;
use nodeport_common::core::verdict::{Action, Verdict};

use crate::packet::skb::Skb;
use crate::packet::xdp::Frame;
use crate::route::RouteContext;

/// The verdict of an XDP program.
#[inline(always)]
pub(crate) fn xdp(frame: Frame, verdict: Verdict) -> u32 {
    match verdict.action() {
        Action::Pass | Action::Stack | Action::Neighbour(_) | Action::Pod(_) => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Back(_) => XDP_TX,
        Action::Send(ifindex) if ifindex == frame.ifindex() => XDP_TX,
        // SAFETY: the helper takes numbers and returns XDP_REDIRECT or XDP_ABORTED.
        Action::Send(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
    }
}

/// The verdict of a TC program. `TC_ACT_UNSPEC` lets programs behind ours have their say.
#[inline(always)]
pub(crate) fn tc(skb: Skb, kernel: &impl Env, verdict: Verdict) -> i32 {
    match verdict.action() {
        Action::Pass | Action::Stack => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT as i32,
        Action::Send(_) | Action::Neighbour(_) | Action::Pod(_) if !skb.take_tag_off() => {
            kernel.count(Reason::Failed);
            TC_ACT_SHOT as i32
        }
        Action::Send(ifindex) | Action::Back(ifindex) => {
            skb.set_ours(true);
            // SAFETY: the helper takes numbers.
            unsafe { bpf_redirect(ifindex, 0) as i32 }
        }
        // SAFETY: the helper takes numbers.
        Action::Pod(ifindex) => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
        Action::Neighbour(ifindex) => {
            skb.set_ours(true);
            // SAFETY: no parameters are given, which the helper takes as "look the neighbour up".
            unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
        }
    }
}
