//! Planning alone, on one processor: the agent's own benchmark, which knows its parts.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Options;
use super::report::Figure;
use crate::toolchain::host_cargo;
use crate::{build, command, workspace};

/// What the benchmark prints.
#[derive(Deserialize)]
struct Output {
    rounds: Vec<Round>,
}

#[derive(Deserialize)]
struct Round {
    /// Everything from nothing.
    first_ms: f64,
    /// One endpoint's change.
    change_p50_us: f64,
    change_p99_us: f64,
}

/// Builds it and measures with each number of services.
///
/// # Errors
/// If it does not compile, or plans something else than it should.
pub(super) fn measure(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for count in &options.services {
        let rounds = rounds(options, *count)?;
        let mut add = |name, unit, value: fn(&Round) -> f64| {
            let samples = rounds.iter().map(value).collect();
            figures.push(Figure::new(name, ("services", *count), unit, samples));
        };
        add("plan-all", "ms", |round| round.first_ms);
        add("plan-change-p50", "us", |round| round.change_p50_us);
        add("plan-change-p99", "us", |round| round.change_p99_us);
    }
    Ok(figures)
}

fn rounds(options: &Options, count: u32) -> Result<Vec<Round>> {
    let mut cargo = host_cargo();
    cargo.args(["bench", "--quiet", "--package", "nodeport-agent", "--bench", "plan", "--"]);
    for (name, value) in
        [("--services", count), ("--endpoints", options.endpoints), ("--rounds", options.rounds)]
    {
        cargo.args([name.to_owned(), value.to_string()]);
    }
    let printed = command::capture(cargo.env(build::OBJECT_VARIABLE, workspace::object()))?;
    let output: Output = serde_json::from_str(&printed).context("what the benchmark printed")?;
    Ok(output.rounds)
}
