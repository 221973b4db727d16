//! `cargo xtask bench flood`: a million SYNs from random sources while connections live.
//!
//! The connections are used all the time. Rounds of phases follow each other: no flood, a flood
//! that the node drops by a route, one that it routes to a pod, one to the NodePort; all of the
//! same number and rate. On a machine of few processors the flood itself takes what the
//! connections could use, whatever the node does with it: so what they reach under the flood to
//! the NodePort is held against what they reach under the other two.

mod account;
mod newcomers;
mod phase;
mod report;
mod scene;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

pub use account::{Counts, all_followed};
pub use newcomers::Newcomers;
pub use phase::{Amount, Phase, measure};
pub use scene::{Goal, Scene};

use self::report::Found;
use super::goal::Verdict;
use super::output::Output;
use crate::build;
use crate::lab::Mode;
use crate::lab::client::{Held, Kept};
use crate::progress::Step;

/// How to measure.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// SYNs of each flood; with five rounds a million to the NodePort.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub syns: u32,
    /// SYNs a second: what leaves the machine something to measure with.
    #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub rate: u32,
    /// Connections that live.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(64..=30_000))]
    pub connections: u32,
    /// Rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub rounds: u32,
    /// Where the programs run.
    #[arg(long, value_enum, default_value_t = Hook::Xdp)]
    pub mode: Hook,
    /// Over IPv6.
    #[arg(long)]
    pub ipv6: bool,
    /// Largest number of flows, as the agent takes it.
    #[arg(long, value_name = "NUMBER")]
    pub max_flows: Option<u32>,
    /// Do not build: measure the agent as it is.
    #[arg(long)]
    pub no_build: bool,
    /// Where the figures go.
    #[command(flatten)]
    pub output: Output,
}

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// XDP.
    Xdp,
    /// TC.
    Tc,
}

impl From<Hook> for Mode {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::Xdp => Self::Xdp,
            Hook::Tc => Self::Tc,
        }
    }
}

impl Options {
    /// What to pass on to the agent.
    fn agent_arguments(&self) -> Vec<String> {
        let flows = self.max_flows.map(|flows| ["--max-flows".to_owned(), flows.to_string()]);
        flows.into_iter().flatten().collect()
    }
}

/// Measures, and prints what came of it; returns the goals.
///
/// # Errors
/// If the lab cannot be built, a connection breaks, or SYNs are not accounted for.
pub(super) fn run(options: &Options) -> Result<Vec<Verdict>> {
    if !options.no_build {
        build::run(&build::Options::default())?;
    }
    let step = Step::start("the lab", "a client, a flooder, two nodes, two pods");
    let scene = Scene::build(options.mode.into(), &options.agent_arguments())?;
    step.done();
    let (phases, kept) = all_phases(options, &scene)?;
    kept.all_kept()?;
    options.output.publish(&Found::new(options, &phases, &kept))
}

fn all_phases(options: &Options, scene: &Scene) -> Result<(Vec<Phase>, Kept)> {
    let [target4, target6] = scene.targets();
    let target = if options.ipv6 { target6 } else { target4 };
    let step = Step::start("the connections", "all are in use until the end");
    let held = Held::open(scene.client(), target, options.connections as usize)?;
    step.done();
    let mut phases = Vec::new();
    for round in 0..options.rounds {
        for (number, goal) in (0..).zip(Goal::ALL) {
            let name = format!("round {} of {}: {}", round + 1, options.rounds, goal.name());
            let step = Step::start(&name, &format!("{} SYNs", options.syns));
            let number = round * Goal::ALL.len() as u32 + number;
            let amount = Amount { syns: options.syns, rate: options.rate, number };
            phases.push(measure(scene, &held, goal, amount).context(name)?);
            step.done();
        }
    }
    let seconds = phases.iter().map(Phase::seconds).sum();
    all_followed(&scene.flows()?, held.locals(), seconds)?;
    Ok((phases, held.close()?))
}
