//! `cargo xtask fuzz TARGET`: looks for inputs that break a rule of the packet path.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::progress::Step;
use crate::toolchain::{host_cargo, path_with};
use crate::{command, workspace};

/// Version on crates.io.
const CARGO_FUZZ: &str = "0.13.2";

/// Longest input, in bytes: a frame, or some hundred steps.
const LONGEST: u32 = 600;

/// What to fuzz.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// One of the targets in `nodeport-common/fuzz`.
    #[arg(value_parser = ["walk", "icmp_error", "rewrite_roundtrip", "flow_state"])]
    pub target: String,
    /// How long.
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
}

/// Runs the fuzzer. What it finds interesting is kept for the next time.
///
/// # Errors
/// If cargo-fuzz cannot be installed, the target does not compile, or an input fails: that one is
/// then in `nodeport-common/fuzz/artifacts`, to become a test in `tests/core/regression.rs`.
pub fn run(options: &Options) -> Result<()> {
    let Options { target, seconds } = options;
    install()?;
    let mut cargo = fuzz();
    cargo.args(["run", target, "--fuzz-dir", "nodeport-common/fuzz", "--target-dir"]);
    cargo.arg(workspace::target().join("fuzz"));
    // The crate forbids unsafe code, so there is nothing for a sanitizer to find, and without one
    // any compiler will do.
    cargo.args(["--sanitizer", "none", "--"]);
    cargo.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={LONGEST}"));
    command::run(&mut cargo).with_context(|| format!("fuzzing {target}"))
}

/// `cargo fuzz`, of the one in the checkout's own tools.
fn fuzz() -> Command {
    let mut cargo = host_cargo();
    cargo.arg("fuzz").env("PATH", path_with(&[workspace::tools().join("bin")]));
    cargo
}

fn install() -> Result<()> {
    let wanted = format!("cargo-fuzz {CARGO_FUZZ}");
    if command::capture(fuzz().arg("--version")).is_ok_and(|version| version.trim() == wanted) {
        return Ok(());
    }
    let step = Step::start("cargo install cargo-fuzz", "it builds and runs the fuzzers");
    let mut cargo = host_cargo();
    cargo.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--root"]);
    cargo.arg(workspace::tools());
    cargo.arg("--target-dir").arg(workspace::tools().join("build"));
    command::logged(&mut cargo, &step, "cargo-fuzz.log")?;
    step.done();
    Ok(())
}
