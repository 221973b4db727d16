//! `cargo xtask bench`: what a packet costs, and what the agent does among many services.

mod all;
mod chart;
pub mod flood;
mod frames;
mod goal;
mod output;
mod packet;
mod runner;
pub mod scale;
mod spread;
pub mod traffic;

use anyhow::{Result, ensure};
use clap::Subcommand;

pub use output::Output;
pub use spread::Spread;

/// What to measure.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Nanoseconds per packet of the programs alone, by BPF_PROG_TEST_RUN.
    Packet(packet::Options),
    /// Packets, connections and requests from sockets to sockets, beside plain routing and
    /// kube-proxy.
    Traffic(traffic::Options),
    /// The agent among ten thousand services and a million flows.
    Scale(scale::Options),
    /// What a flood of SYNs does to connections that are there, and to new ones.
    Flood(flood::Options),
    /// All of them, one after the other.
    All(all::Options),
}

/// Measures, prints the goals beside what was measured.
///
/// # Errors
/// If something cannot be measured, or with `--check` if a goal is missed.
pub fn run(command: &Command) -> Result<()> {
    let (verdicts, check) = match command {
        Command::Packet(options) => (packet::run(options)?, options.output.check),
        Command::Traffic(options) => (traffic::run(options)?, options.output.check),
        Command::Scale(options) => (scale::run(options)?, options.output.check),
        Command::Flood(options) => (flood::run(options)?, options.output.check),
        Command::All(options) => (all::run(options)?, options.check),
    };
    let missed = goal::missed(&verdicts);
    ensure!(!check || missed == 0, "{missed} of {} goals are missed", verdicts.len());
    Ok(())
}
