//! `cargo xtask build`: the eBPF object, then the agent that carries it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::setup::{self, Ready};
use crate::toolchain::{host_cargo, path_with};
use crate::{command, workspace};

/// The variable by which the agent's build script finds the object.
pub const OBJECT_VARIABLE: &str = "NODEPORT_BPF_OBJECT";

const TARGET: &str = "bpfel-unknown-none";

/// The oldest kernel that is supported (6.1) has instruction set v3, but not v4.
const RUSTFLAGS: &str = "-Ctarget-cpu=v3 -Clink-arg=--btf";

/// What to build.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Only the eBPF object.
    #[arg(long)]
    pub only_object: bool,
}

/// Builds with what `setup` has installed.
///
/// # Errors
/// If `setup` has not run, or the code does not compile.
pub fn run(options: &Options) -> Result<()> {
    let Options { only_object } = options;
    let ready = setup::find()?;
    object(&ready)?;
    if *only_object { Ok(()) } else { agent() }
}

/// Builds the eBPF object and puts it at [`workspace::object`].
///
/// # Errors
/// If the code does not compile.
pub fn object(ready: &Ready) -> Result<()> {
    let folder = workspace::target().join("bpf");
    let mut cargo = ready.toolchain.cargo();
    cargo.current_dir(workspace::root());
    cargo.args(["build", "--package", "nodeport-ebpf", "--bins", "--profile", "bpf"]);
    cargo.args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"]).arg(&folder);
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", RUSTFLAGS);
    cargo.env("PATH", path_with(std::slice::from_ref(&ready.linker_dir)));
    command::run(&mut cargo)?;
    let built = folder.join(TARGET).join("bpf");
    copy_if_changed(&built.join("bench"), &workspace::bench_object())?;
    copy_if_changed(&built.join("lab"), &workspace::lab_object())?;
    copy_if_changed(&built.join("nodeport"), &workspace::object())
}

/// Builds the agent with the object inside.
///
/// # Errors
/// If the code does not compile.
pub fn agent() -> Result<()> {
    let mut cargo = host_cargo();
    cargo.args(["build", "--release", "--package", "nodeport-agent"]);
    command::run(cargo.env(OBJECT_VARIABLE, workspace::object()))
}

/// An object that stays the same keeps its time stamp, and the agent is not built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
}
