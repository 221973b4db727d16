//! For the lab: what the far end of a veth needs to take frames that XDP sends at the near end.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Takes every frame.
#[xdp]
pub(crate) fn pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// The licence of the other programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here can panic: see `main.rs`.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
