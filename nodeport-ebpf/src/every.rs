//! What every object must have.

/// The kernel offers some helpers only to programs under a licence that goes with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub(crate) static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here can panic: should the linker keep this function, the verifier rejects the
/// program for its endless loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
