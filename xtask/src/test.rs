//! `cargo xtask test`: sets up, builds, and runs every test.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::toolchain::host_cargo;
use crate::{build, command, setup, workspace};

/// What to run.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Passed on to `cargo test`, for instance `-p xtask --test lab`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Runs the tests.
///
/// # Errors
/// If something cannot be installed or built, or a test fails.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let ready = setup::ensure()?;
    build::object(&ready)?;
    build::agent()?;
    let prepared = started.elapsed().as_secs();
    cargo_test(&options.arguments)?;
    let total = started.elapsed().as_secs();
    println!("all tests passed ({prepared} s set-up and build, {} s tests)", total - prepared);
    Ok(())
}

fn cargo_test(arguments: &[String]) -> Result<()> {
    let mut cargo = host_cargo();
    cargo.args(["test", "--no-fail-fast"]).args(arguments);
    command::run(cargo.env(build::OBJECT_VARIABLE, workspace::object()))
}
