//! Where things are in the checkout.

use std::env;
use std::path::{Path, PathBuf};

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run` and `cargo test`; the built-in one serves a binary
    // that is called by its path.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or(manifest.clone(), Path::to_path_buf)
}

/// Cargo's target directory.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The eBPF object that `build` makes.
#[must_use]
pub fn object() -> PathBuf {
    target().join("bpf/nodeport.o")
}

/// The eBPF object of the programs that `bench packet` measures.
#[must_use]
pub fn bench_object() -> PathBuf {
    target().join("bpf/bench.o")
}

/// The eBPF object of the program that the lab's veths need.
#[must_use]
pub fn lab_object() -> PathBuf {
    target().join("bpf/lab.o")
}

/// The agent that `build` makes.
#[must_use]
pub fn agent() -> PathBuf {
    target().join("release/nodeport-agent")
}

/// Programs that `setup` builds for this checkout alone.
#[must_use]
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// Output of the programs that `setup` calls.
#[must_use]
pub fn logs() -> PathBuf {
    target().join("logs")
}
