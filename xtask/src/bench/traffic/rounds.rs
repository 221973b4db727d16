//! Round after round, every load on every candidate in turn.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::super::spread::median;
use super::candidate::{Candidate, Side};
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
    let mut sides: Vec<&mut Side> = candidates.iter_mut().flat_map(Candidate::sides).collect();
    // A way has its reference near it in time: what differs in the family is not held together.
    sides.sort_by_key(|side| side.way.family);
    let passes: u32 = probes.iter().map(|probe| probe.passes()).sum();
    let progress = ProgressBar::new(u64::from(rounds * passes) * sides.len() as u64)
        .with_style(ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}")?);
    let mut samples = Samples::default();
    for round in 1..=rounds {
        for probe in probes {
            for sides in sides.chunk_by_mut(|a, b| a.way.family == b.way.family) {
                let found = turns(*probe, counts, sides, &progress);
                let found = found.with_context(|| format!("{} of round {round}", probe.name()))?;
                for ((way, measure), values) in found {
                    median(&values).iter().for_each(|value| samples.add(measure, way, *value));
                }
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
    sides: &mut [&mut Side],
    progress: &ProgressBar,
) -> Result<Found> {
    let mut found = Found::new();
    for _ in 0..probe.passes() {
        for side in &mut *sides {
            let way = side.way;
            progress.set_message(format!("{}: {way}", probe.name()));
            let values = side.sample(probe, counts).with_context(|| way.to_string())?;
            for (measure, value) in values {
                found.entry((way, measure)).or_default().push(value);
            }
            progress.inc(1);
        }
    }
    Ok(found)
}
