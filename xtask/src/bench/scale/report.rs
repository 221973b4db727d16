//! Figures as a table, as JSON, and beside their goals.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::services::Round;

/// Rounds that are further apart than this part of their median are called unsteady.
const STEADY: f64 = 0.25;

/// One figure, with what each round made of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// What there were many of: `services` or `flows`.
    pub of: &'static str,
    /// How many.
    pub count: u32,
    /// The unit of the numbers.
    pub unit: &'static str,
    /// The smallest round.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The largest one.
    pub max: f64,
    /// Number of rounds.
    pub rounds: usize,
    /// The rounds are far apart.
    pub unsteady: bool,
}

impl Figure {
    /// The figure of some rounds; zero of none.
    pub(super) fn new(
        name: &'static str,
        (of, count): (&'static str, u32),
        unit: &'static str,
        mut samples: Vec<f64>,
    ) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |index: usize| samples.get(index).copied().unwrap_or_default();
        let (min, median, max) =
            (at(0), at(samples.len() / 2), at(samples.len().saturating_sub(1)));
        let unsteady = max - min > median * STEADY;
        Self { name, of, count, unit, min, median, max, rounds: samples.len(), unsteady }
    }
}

/// The figures of one number of services.
pub(super) fn services(count: u32, rounds: &[Round]) -> Vec<Figure> {
    let figure = |name, unit, value: &dyn Fn(&Round) -> f64| {
        Figure::new(name, ("services", count), unit, rounds.iter().map(value).collect())
    };
    vec![
        figure("first-sync", "ms", &|round| ms(round.first_sync)),
        figure("first-served", "ms", &|round| ms(round.first_served)),
        figure("first-sync-until-maps", "ms", &|round| ms(round.until_maps)),
        figure("first-sync-after-lists", "ms", &|round| ms(round.after_list)),
        figure("first-sync-cpu", "ms", &|round| ms(round.first_cpu)),
        figure("changes-per-second", "1/s", &|round| round.rate),
        figure("change-p50", "ms", &|round| ms(quantile(&round.changes, 0.5))),
        figure("change-p99", "ms", &|round| ms(quantile(&round.changes, 0.99))),
        figure("change-longest", "ms", &|round| ms(quantile(&round.changes, 1.0))),
        figure("map-writes-per-change", "", &|round| round.writes_per_change),
        figure("cpu-per-change", "us", &|round| ms(round.cpu_per_change) * 1e3),
        figure("cpu-share", "%", &|round| round.cpu_share * 100.0),
        figure("agent-memory", "MiB", &|round| mib(round.memory.own)),
        figure("agent-memory-peak", "MiB", &|round| mib(round.memory.peak)),
        figure("service-maps", "MiB", &|round| mib(round.map_bytes)),
    ]
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The value that a part of all does not exceed; `sorted` is.
fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Prints all figures.
pub(super) fn table(figures: &[Figure]) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["measure", "among", "", "median", "min", "max", "unit", ""]);
    for figure in figures {
        let Figure { name, of, count, unit, min, median, max, rounds: _, unsteady } = figure;
        table.add_row([
            (*name).to_owned(),
            count.to_string(),
            (*of).to_owned(),
            shown(*median),
            shown(*min),
            shown(*max),
            (*unit).to_owned(),
            if *unsteady { "unsteady".to_owned() } else { String::new() },
        ]);
    }
    for column in [1, 3, 4, 5] {
        let column = table.column_mut(column);
        column.into_iter().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    }
    println!("{table}");
}

fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// Writes all figures as a JSON list.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn json(figures: &[Figure], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(figures).context("figures to JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}

/// A bound on the median of a figure.
struct Goal {
    name: &'static str,
    count: u32,
    most: f64,
}

/// Times that are absolute: what the peers take for the same is seconds and minutes.
const GOALS: [Goal; 3] = [
    Goal { name: "first-sync", count: 10_000, most: 500.0 },
    Goal { name: "change-p99", count: 10_000, most: 5.0 },
    Goal { name: "list-flows", count: 1_048_576, most: 1_000.0 },
];

/// Prints the goals beside what was measured; returns how many were missed.
pub(super) fn goals(figures: &[Figure]) -> usize {
    let mut missed = 0;
    for Goal { name, count, most } in &GOALS {
        let found = figures.iter().find(|one| one.name == *name && one.count == *count);
        let Some(Figure { median, unit, of, .. }) = found else { continue };
        let is_met = median <= most;
        missed += usize::from(!is_met);
        let word = if is_met { "reached" } else { "MISSED" };
        println!("{name} among {count} {of}: {median:.2} {unit}, goal {most} {unit}: {word}");
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &'static str, samples: &[f64]) -> Figure {
        Figure::new(name, ("services", 10_000), "ms", samples.to_vec())
    }

    #[test]
    fn rounds_far_apart_are_called_unsteady() {
        let steady = figure("x", &[10.0, 9.0, 11.0]);
        assert_eq!((steady.min, steady.median, steady.max), (9.0, 10.0, 11.0));
        assert!(!steady.unsteady);
        assert!(figure("x", &[10.0, 9.0, 13.0]).unsteady);
    }

    #[test]
    fn goals_hold_for_the_median() {
        assert_eq!(goals(&[figure("first-sync", &[400.0, 450.0, 900.0])]), 0);
        assert_eq!(goals(&[figure("first-sync", &[501.0]), figure("change-p99", &[5.1])]), 2);
        assert_eq!(goals(&[]), 0);
    }

    #[test]
    fn quantiles_are_values_that_came() {
        let sorted: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.5), Duration::from_millis(100));
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(198));
        assert_eq!(quantile(&sorted, 1.0), Duration::from_millis(200));
        assert_eq!(quantile(&[], 0.99), Duration::ZERO);
    }
}
