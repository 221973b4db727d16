//! Round after round, every load on every candidate in turn.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::super::spread::median;
use super::candidate::Candidate;
use super::figures::Samples;
use super::measure::{Measure, Way};
use super::probe::{Counts, Probe};

/// Runs all rounds.
///
/// # Errors
/// If anything sent does not arrive; names the way, the load and the round.
pub(super) fn run(
    rounds: u32,
    probes: &[Probe],
    counts: &Counts,
    candidates: &mut [Candidate],
) -> Result<Samples> {
    let passes: u32 = probes.iter().map(|probe| probe.passes()).sum();
    let progress = ProgressBar::new(u64::from(rounds * passes) * candidates.len() as u64)
        .with_style(ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}")?);
    let mut samples = Samples::default();
    for round in 1..=rounds {
        for probe in probes {
            let found = turns(*probe, counts, candidates, &progress);
            let found = found.with_context(|| format!("{} of round {round}", probe.name()))?;
            for ((way, measure), values) in found {
                median(&values).iter().for_each(|value| samples.add(measure, way, *value));
            }
        }
    }
    progress.finish_and_clear();
    Ok(samples)
}

/// What all passes of a load gave.
type Found = BTreeMap<(Way, Measure), Vec<f64>>;

/// A B C A B C: the passes of one load in one round.
fn turns(
    probe: Probe,
    counts: &Counts,
    candidates: &mut [Candidate],
    progress: &ProgressBar,
) -> Result<Found> {
    let mut found = Found::new();
    for _ in 0..probe.passes() {
        for candidate in &mut *candidates {
            let way = candidate.way;
            progress.set_message(format!("{}: {way}", probe.name()));
            let values = candidate.sample(probe, counts).with_context(|| way.to_string())?;
            for (measure, value) in values {
                found.entry((way, measure)).or_default().push(value);
            }
            progress.inc(1);
        }
    }
    Ok(found)
}
