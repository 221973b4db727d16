//! The eBPF object, embedded at build time.

use anyhow::ensure;

/// What the build script put there: the object, or nothing where it was not built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nodeport.o"));

/// Whether this agent carries the object.
#[must_use]
pub fn is_built_in() -> bool {
    !OBJECT.is_empty()
}

/// The object.
pub(super) fn bytes() -> anyhow::Result<&'static [u8]> {
    ensure!(
        is_built_in(),
        "this agent was built without the eBPF programs and can load none: build it with \
         `cargo xtask build`"
    );
    Ok(OBJECT)
}
