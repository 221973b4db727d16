//! `cargo xtask bench`: what a packet costs, and what the agent does among many services.

mod chart;
pub mod flood;
mod frames;
mod packet;
mod report;
mod runner;
pub mod scale;
pub mod traffic;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

/// What to measure.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Nanoseconds per packet of the programs alone, by BPF_PROG_TEST_RUN.
    Packet(Options),
    /// Packets, connections and requests from sockets to sockets, beside plain routing and
    /// kube-proxy.
    Traffic(traffic::Options),
    /// The agent among ten thousand services and a million flows.
    Scale(scale::Options),
    /// What a flood of SYNs does to connections that are there, and to new ones.
    Flood(flood::Options),
    /// All of them, one after the other.
    All(All),
}

/// Where the figures of all benches go.
#[derive(Args, Clone, Debug)]
pub struct All {
    /// Write the figures of each as JSON into this folder: `packet.json`, `traffic.json`,
    /// `scale.json`.
    #[arg(long, value_name = "DIR")]
    pub json: Option<PathBuf>,
    /// Write charts (SVG) into this folder.
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,
    /// Fail if a figure misses its goal; the others are measured all the same.
    #[arg(long)]
    pub check: bool,
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
        Command::Scale(options) => scale::run(options),
        Command::Flood(options) => flood::run(options),
        Command::All(options) => all(options),
    }
}

fn all(all: &All) -> Result<()> {
    let All { json, charts, check } = all;
    if let Some(folder) = json {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let file = |name: &str| json.as_ref().map(|folder| folder.join(name));
    let packet = Options { json: file("packet.json"), check: *check, ..defaults()? };
    let traffic = traffic::Options {
        json: file("traffic.json"),
        charts: charts.clone(),
        check: *check,
        ..defaults()?
    };
    let scale = scale::Options { json: file("scale.json"), check: *check, ..defaults()? };
    let results = [
        packet::run(&packet).context("bench packet"),
        traffic::run(&traffic).context("bench traffic"),
        scale::run(&scale).context("bench scale"),
    ];
    // Each has said what it missed.
    results.into_iter().collect()
}

/// The options of a bench that is called without any.
fn defaults<T: Args>() -> Result<T> {
    let command = T::augment_args(clap::Command::new("bench"));
    let matches = command.try_get_matches_from(["bench"]).context("options without a default")?;
    T::from_arg_matches(&matches).context("options without a default")
}

#[cfg(test)]
mod tests {
    use super::{Options, defaults, scale, traffic};

    #[test]
    fn every_bench_can_be_called_without_options() {
        assert!(defaults::<Options>().unwrap().rounds >= 5);
        assert!(defaults::<traffic::Options>().unwrap().rounds >= 5);
        assert!(defaults::<scale::Options>().unwrap().rounds >= 5);
    }
}
