//! TC on the node's network interface.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use nodeport_common::core::env::Packet;
use nodeport_common::core::verdict::{Action, Verdict};
use nodeport_common::core::walk::walk;

use crate::env::{EGRESS, INGRESS, Kernel};
use crate::packet::skb::Skb;

/// Bytes that common packets are parsed in: Ethernet, IPv6, TCP.
const HEADERS: u32 = 14 + 40 + 20;

/// The whole walk where XDP cannot run, and what XDP hands up where it can.
#[classifier]
pub(crate) fn nodeport_ingress(context: TcContext) -> i32 {
    let mut skb = Skb(context.skb.skb);
    if skb.is_done() {
        return TC_ACT_UNSPEC;
    }
    skb.make_linear(HEADERS);
    let kernel = Kernel::<Skb, INGRESS> { context: skb };
    act(walk(&mut skb, &kernel))
}

/// The answers of backends on this node.
#[classifier]
pub(crate) fn nodeport_egress(context: TcContext) -> i32 {
    let mut skb = Skb(context.skb.skb);
    skb.make_linear(HEADERS);
    let kernel = Kernel::<Skb, EGRESS> { context: skb };
    act(walk(&mut skb, &kernel))
}

/// `TC_ACT_UNSPEC` lets programs behind ours have their say.
#[inline(always)]
fn act(verdict: Verdict) -> i32 {
    match verdict.action() {
        Action::Pass | Action::Stack => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT as i32,
        // SAFETY: the helper takes numbers.
        Action::Send(ifindex) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        // SAFETY: no parameters are given, which the helper takes as "look the neighbour up".
        Action::Neighbour(ifindex) => unsafe {
            bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32
        },
    }
}
