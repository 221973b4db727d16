//! `bench packet`: the programs alone.
//!
//! Each round runs every program once, so that a change of the machine's speed meets all of them
//! alike. The packet is made fresh before each run of a program: `fresh` shows what that costs,
//! and it is part of all figures but those of `empty`.

mod report;

use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use indicatif::ProgressBar;

use self::report::{Figure, Found};
use super::frames::{ack, syn};
use super::goal::Verdict;
use super::output::Output;
use super::runner::{Hook, Runner, XDP_TX, isolate};
use crate::{build, setup};

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
    /// Where the figures go.
    #[command(flatten)]
    pub output: Output,
}

/// A port on which no service listens.
const OTHER_PORT: u16 = 443;
/// The port of the benchmark's service.
const FRONTEND_PORT: u16 = 30_007;

/// So many flows must begin for the time that one takes to be told.
const FEWEST_NEW: u32 = 1_024;

/// So many established flows leave room for newcomers that push each other out.
const MOST_BESIDE_NEW: u32 = 16_384;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    Fresh,
    BareLookup,
    Established,
    NewFlow,
    NewFlowFull,
    NotOurs,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Empty,
        Self::Fresh,
        Self::BareLookup,
        Self::Established,
        Self::NewFlow,
        Self::NewFlowFull,
        Self::NotOurs,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::BareLookup => "bare-lookup",
            Self::Established => "established",
            Self::NewFlow => "new-flow",
            Self::NewFlowFull => "new-flow-full",
            Self::NotOurs => "not-ours",
        }
    }

    /// Whether it is measured with so many flows, of which the fewest are `fewest`.
    const fn is_measured_with(self, flows: u32, fewest: u32) -> bool {
        match self {
            Self::BareLookup | Self::Established => true,
            Self::NewFlow => flows >= FEWEST_NEW,
            // Where most of the table is the established ones', there is no room for newcomers.
            Self::NewFlowFull => flows == fewest && flows <= MOST_BESIDE_NEW,
            _ => flows == fewest,
        }
    }

    fn program(self, hook: Hook, family: u8) -> String {
        let hook = hook.name();
        match self {
            Self::Empty => format!("empty_{hook}"),
            Self::Fresh => format!("fresh{family}_{hook}"),
            Self::BareLookup => format!("lookup{family}_{hook}"),
            Self::Established | Self::NewFlow | Self::NewFlowFull | Self::NotOurs => {
                format!("walk{family}_{hook}")
            }
        }
    }

    /// The verdict that shows that the packet went the way it should.
    fn verdict(self, hook: Hook) -> u32 {
        /// `XDP_PASS`, `XDP_REDIRECT`, `TC_ACT_UNSPEC` and `TC_ACT_REDIRECT`.
        const PASS: u32 = 2;
        const REDIRECT: u32 = 4;
        const UNSPEC: u32 = u32::MAX;
        const TC_REDIRECT: u32 = 7;
        match (self, hook) {
            (Self::NotOurs, Hook::Xdp) => PASS,
            (Self::NewFlow | Self::NewFlowFull, Hook::Xdp) => REDIRECT,
            (_, Hook::Xdp) => XDP_TX,
            (Self::Established | Self::NewFlow | Self::NewFlowFull, Hook::Tc) => TC_REDIRECT,
            (_, Hook::Tc) => UNSPEC,
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    hook: Hook,
    family: u8,
}

/// Builds the programs, measures, prints; returns the goals.
///
/// # Errors
/// If a program cannot be loaded or gives another verdict than it should.
pub(super) fn run(options: &Options) -> Result<Vec<Verdict>> {
    build::object(&setup::ensure()?)?;
    let owned = options.clone();
    let measured = thread::spawn(move || measure(&owned)).join();
    let figures = measured.map_err(|_| anyhow!("the measuring thread has panicked"))??;
    options.output.publish(&Found { figures })
}

fn measure(options: &Options) -> Result<Vec<Figure>> {
    isolate(options.cpu)?;
    let (Some(fewest), flows) = (options.flows.iter().min(), &options.flows) else {
        bail!("--flows: at least one number");
    };
    let mut figures = Vec::new();
    for count in flows {
        let cases = cases(options, *count, *fewest)?;
        figures.extend(measure_with(options, *count, &cases)?);
    }
    Ok(figures)
}

/// What is measured with one number of flows.
fn cases(options: &Options, flows: u32, fewest: u32) -> Result<Vec<Case>> {
    let kinds = kinds(&options.only)?;
    let measured = || kinds.iter().filter(|kind| kind.is_measured_with(flows, fewest));
    let mut cases = Vec::new();
    for hook in [Hook::Xdp, Hook::Tc] {
        for family in [4, 6] {
            cases.extend(measured().map(|kind| Case { kind: *kind, hook, family }));
        }
    }
    Ok(cases)
}

/// The packets of these names; all, if there are none.
fn kinds(names: &[String]) -> Result<Vec<Kind>> {
    if names.is_empty() {
        return Ok(Kind::ALL.to_vec());
    }
    let known = || Kind::ALL.map(Kind::name);
    if let Some(name) = names.iter().find(|name| !known().contains(&name.as_str())) {
        bail!("--only {name}: not one of {}", known().join(", "));
    }
    let is_wanted = |kind: &Kind| names.iter().any(|name| name == kind.name());
    Ok(Kind::ALL.into_iter().filter(is_wanted).collect())
}

fn measure_with(options: &Options, flows: u32, cases: &[Case]) -> Result<Vec<Figure>> {
    let progress = ProgressBar::new(u64::from(options.rounds) * cases.len() as u64);
    progress.set_message(format!("{flows} flows"));
    let mut runner = Runner::new(flows, options.packets)?;
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..options.rounds {
        for (case, samples) in cases.iter().zip(&mut samples) {
            samples.push(sample(&mut runner, *case)? as f64);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let figures = cases.iter().zip(samples).map(|(case, samples)| {
        Figure::new(case.kind.name(), case.hook.name(), case.family, flows, samples)
    });
    figures.collect::<Option<_>>().context("--rounds: at least one")
}

fn sample(runner: &mut Runner, case: Case) -> Result<u64> {
    let Case { kind, hook, family } = case;
    runner.set_port(if kind == Kind::NotOurs { OTHER_PORT } else { FRONTEND_PORT })?;
    let program = kind.program(hook, family);
    let (nanoseconds, verdict) = match kind {
        Kind::NewFlow => runner.time_new(&program, hook, &syn(family), family)?,
        Kind::NewFlowFull => {
            runner.set_new(true)?;
            runner.time(&program, hook, &syn(family))?
        }
        _ => {
            runner.set_new(false)?;
            runner.time(&program, hook, &ack(family))?
        }
    };
    let wanted = kind.verdict(hook);
    if verdict != wanted {
        return Err(anyhow!("verdict {verdict}, not {wanted}"))
            .with_context(|| format!("{} by {program}", kind.name()));
    }
    Ok(nanoseconds)
}
