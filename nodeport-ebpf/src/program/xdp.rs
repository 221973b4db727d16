//! XDP on the node's network interface.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use nodeport_common::core::walk::{quick, thorough};

use crate::env::{Kernel, XDP};
use crate::maps::JUMP_XDP;
use crate::packet::xdp::Frame;
use crate::verdict;

/// Forwards what goes to and comes from other nodes; hands up the rest.
#[xdp(frags)]
pub(crate) fn nodeport_xdp(context: XdpContext) -> u32 {
    let mut frame = Frame(context.ctx);
    let kernel = Kernel::<Frame, XDP> { context: frame };
    if let Some(verdict) = quick(&mut frame, &kernel) {
        return verdict::xdp(frame, verdict);
    }
    // SAFETY: nothing waits to be dropped.
    unsafe { JUMP_XDP.tail_call(&context, 0) };
    XDP_PASS
}

/// The same for what is not routine.
#[xdp(frags)]
pub(crate) fn slow_xdp(context: XdpContext) -> u32 {
    let mut frame = Frame(context.ctx);
    let kernel = Kernel::<Frame, XDP> { context: frame };
    verdict::xdp(frame, thorough(&mut frame, &kernel))
}
