//! XDP on the node's network interface.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use nodeport_common::core::verdict::{Action, Verdict};
use nodeport_common::core::walk::walk;

use crate::env::{Kernel, XDP};
use crate::packet::xdp::Frame;
use crate::route::RouteContext;

/// Forwards what goes to and comes from other nodes; hands up the rest.
#[xdp(frags)]
pub(crate) fn nodeport_xdp(context: XdpContext) -> u32 {
    let mut frame = Frame(context.ctx);
    let kernel = Kernel::<Frame, XDP> { context: frame };
    let verdict = walk(&mut frame, &kernel);
    act(&frame, verdict)
}

#[inline(always)]
fn act(frame: &Frame, verdict: Verdict) -> u32 {
    match verdict.action() {
        Action::Pass | Action::Stack | Action::Neighbour(_) => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Send(ifindex) if ifindex == frame.ifindex() => XDP_TX,
        // SAFETY: the helper takes numbers and returns XDP_REDIRECT or XDP_ABORTED.
        Action::Send(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
    }
}
