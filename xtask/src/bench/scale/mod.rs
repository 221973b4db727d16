//! `bench scale`: the agent among many services and many flows.
//!
//! What is measured is the agent as users run it, in a network namespace of a lab, with programs
//! and maps of its own, fed by an API server in this process over HTTP ([`api`]). What has come of
//! it is read from the maps ([`observe`]), not from what the agent says.

mod api;
mod flows;
mod observe;
mod planning;
mod process;
mod report;
mod services;
mod world;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;

use super::goal::Verdict;
use super::output::Output;
use crate::lab::{Lab, Topology};
use crate::{build, setup};
pub use report::Figure;

/// How to measure.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rounds; in each, every number of services has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Numbers of services to measure with.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 10_000],
          value_parser = clap::value_parser!(u32).range(1..=i64::from(world::MOST_SERVICES)))]
    pub services: Vec<u32>,
    /// Endpoints of each service.
    #[arg(long, default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(world::MOST_ENDPOINTS)))]
    pub endpoints: u32,
    /// Changes in a second; in each, one endpoint of a service takes the place of another.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Seconds of changes in a round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seconds: u32,
    /// Live flows that are stored, swept and listed; a power of two.
    #[arg(long, default_value_t = 1_048_576, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1_024..=4_194_304))]
    pub flows: u32,
    /// Where the figures go.
    #[command(flatten)]
    pub output: Output,
}

impl Options {
    /// Changes in a round.
    fn changes(&self) -> u32 {
        self.rate.saturating_mul(self.seconds).min(world::MOST_CHANGES)
    }
}

/// Builds what is measured, measures, prints; returns the goals.
///
/// # Errors
/// If the agent cannot be built or started, or does not do what it should.
pub(super) fn run(options: &Options) -> Result<Vec<Verdict>> {
    build::object(&setup::ensure()?)?;
    build::agent()?;
    let figures = [planning::measure(options)?, measure(options)?].concat();
    options.output.publish(&report::Found { figures })
}

/// Measures with an agent that is built.
///
/// # Errors
/// If the agent cannot be started, or does not do what it should.
pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    let lab = Lab::build(&Topology::new(1))?;
    let progress = ProgressBar::new(u64::from(options.rounds) * options.services.len() as u64);
    let mut rounds = vec![Vec::new(); options.services.len()];
    for _ in 0..options.rounds {
        for (count, rounds) in options.services.iter().zip(&mut rounds) {
            progress.set_message(format!("{count} services"));
            rounds.push(services::round(&lab, options, *count)?);
            progress.inc(1);
        }
    }
    progress.set_message(format!("{} flows", options.flows));
    let flows = flows::measure(&lab, options)?;
    progress.finish_and_clear();
    let measured = options.services.iter().zip(rounds);
    let of_services = measured.flat_map(|(count, rounds)| report::services(*count, &rounds));
    Ok(of_services.chain(flows).collect())
}
