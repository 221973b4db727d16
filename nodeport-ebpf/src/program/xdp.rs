//! XDP on the node's network interface.

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use nodeport_common::core::walk::walk;

use crate::env::{Kernel, XDP};
use crate::packet::xdp::Frame;
use crate::verdict;

/// Forwards what goes to and comes from other nodes; hands up the rest.
#[xdp(frags)]
pub(crate) fn nodeport_xdp(context: XdpContext) -> u32 {
    let mut frame = Frame(context.ctx);
    let kernel = Kernel::<Frame, XDP> { context: frame };
    verdict::xdp(frame, walk(&mut frame, &kernel))
}
