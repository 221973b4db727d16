//! `cargo xtask bench`: what a packet costs.

mod chart;
mod frames;
mod packet;
mod report;
mod runner;
pub mod traffic;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

/// What to measure.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Nanoseconds per packet of the programs alone, by BPF_PROG_TEST_RUN.
    Packet(Options),
    /// Packets, connections and requests from sockets to sockets, beside plain routing and
    /// kube-proxy.
    Traffic(traffic::Options),
}

/// How to measure.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rounds; in each, every program runs once, in turn.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Packets of each program in a round.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    pub packets: u32,
    /// Numbers of live flows to measure with; powers of two.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 65_536, 1_048_576])]
    pub flows: Vec<u32>,
    /// Measure these packets alone (as the table names them).
    #[arg(long, value_delimiter = ',', value_name = "PACKETS")]
    pub only: Vec<String>,
    /// Processor to run on.
    #[arg(long, default_value_t = 1)]
    pub cpu: usize,
    /// Write the figures as a JSON list.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Fail if a figure is above its goal.
    #[arg(long)]
    pub check: bool,
}

/// Measures.
///
/// # Errors
/// If a program cannot be loaded or gives another verdict than it should.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Packet(options) => packet::run(options),
        Command::Traffic(options) => traffic::run(options),
    }
}
