//! `cargo xtask COMMAND`: everything the project does beside plain cargo.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use xtask::{bench, build, demo, fuzz, lab, setup, test, verify};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, tests and the lab")]
enum Command {
    /// Install what building and testing need; what is there already is left alone.
    Setup(setup::Options),
    /// Build the eBPF object and the agent that carries it.
    Build(build::Options),
    /// Set up, build, and run every test.
    Test(test::Options),
    /// Load every program and print what the verifier counted.
    Verify(verify::Options),
    /// Show a NodePort being load-balanced, on this machine.
    Demo(demo::Options),
    /// Look for inputs that break a rule of the packet path.
    Fuzz(fuzz::Options),
    /// Measure what a packet costs.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Build a cluster's network from namespaces, or take it away.
    #[command(subcommand)]
    Lab(lab::commands::Command),
    /// The server in the lab's pods.
    #[command(hide = true)]
    LabServer(lab::server::Options),
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        verify::guest::run();
    }
    match dispatch(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Setup(options) => setup::run(&options),
        Command::Build(options) => build::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Bench(command) => bench::run(&command),
        Command::Lab(command) => lab::commands::run(&command),
        Command::LabServer(options) => lab::server::run(&options),
    }
}
