//! Ways for XDP to send a frame out of the interface that it came in by; what differs is the
//! sending alone.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};
use aya_ebpf::btf_maps::DevMap;
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The interface, for who asks a map.
#[btf_map(name = "send_devices")]
static DEVICES: DevMap<1> = DevMap::new();

/// Does not: what it costs to get a frame here.
#[xdp]
pub(crate) fn send_nothing(_: XdpContext) -> u32 {
    XDP_DROP
}

/// By the interface's number, as the real programs do.
#[xdp]
pub(crate) fn send_by_number(context: XdpContext) -> u32 {
    // SAFETY: the helper takes numbers and returns XDP_REDIRECT or XDP_ABORTED.
    unsafe { bpf_redirect(context.ingress_ifindex() as u32, 0) as u32 }
}

/// By a map of interfaces.
#[xdp]
pub(crate) fn send_by_map(_: XdpContext) -> u32 {
    DEVICES.redirect(0, u64::from(XDP_ABORTED)).unwrap_or(XDP_ABORTED)
}
