//! Figures as a table, as JSON, and beside their goals.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What one program took.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// `xdp` or `tc`.
    pub hook: &'static str,
    /// 4 or 6.
    pub family: u8,
    /// Live flows.
    pub flows: u32,
    /// The quickest round, in nanoseconds per packet.
    pub ns_min: u64,
    /// The middle one.
    pub ns_median: u64,
    /// The slowest one.
    pub ns_max: u64,
}

impl Figure {
    /// The figure of some rounds' nanoseconds; there must be at least one.
    pub(super) fn new(
        name: &'static str,
        hook: &'static str,
        family: u8,
        flows: u32,
        mut samples: Vec<u64>,
    ) -> Self {
        samples.sort_unstable();
        let at = |index: usize| samples.get(index).copied().unwrap_or_default();
        let (ns_min, ns_median) = (at(0), at(samples.len() / 2));
        let ns_max = at(samples.len().saturating_sub(1));
        Self { name, hook, family, flows, ns_min, ns_median, ns_max }
    }
}

/// Prints all figures.
pub(super) fn table(figures: &[Figure]) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["packet", "hook", "family", "flows", "min ns", "median ns", "max ns"]);
    for figure in figures {
        let Figure { name, hook, family, flows, ns_min, ns_median, ns_max } = figure;
        table.add_row([
            (*name).to_owned(),
            (*hook).to_owned(),
            format!("IPv{family}"),
            flows.to_string(),
            ns_min.to_string(),
            ns_median.to_string(),
            ns_max.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

/// Writes all figures as a JSON list.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn json(figures: &[Figure], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(figures).context("figures to JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}

/// A bound on one figure, relative to another of the same run.
struct Goal {
    name: &'static str,
    flows: u32,
    reference: &'static str,
    /// Largest ratio of the medians.
    ratio: f64,
}

/// What the pure form of the walk must not cost more than, in terms of the same run: 90 and 60 ns
/// where the empty program takes 22, and 1.3 look-ups where look-ups are dear.
const GOALS: [Goal; 3] = [
    Goal { name: "established", flows: 1, reference: "empty", ratio: 90.0 / 22.0 },
    Goal { name: "not-ours", flows: 1, reference: "empty", ratio: 60.0 / 22.0 },
    Goal { name: "established", flows: 65_536, reference: "bare-lookup", ratio: 1.3 },
];

/// Prints the goals for IPv4 in XDP beside what was measured; returns how many were missed.
pub(super) fn goals(figures: &[Figure]) -> usize {
    let median = |name: &str, flows: u32| {
        let found = figures
            .iter()
            .find(|f| f.name == name && f.flows == flows && f.hook == "xdp" && f.family == 4);
        found.map(|figure| figure.ns_median as f64)
    };
    let mut missed = 0;
    for Goal { name, flows, reference, ratio } in &GOALS {
        let (Some(value), Some(base)) = (median(name, *flows), median(reference, *flows)) else {
            continue;
        };
        let met = value <= base * ratio;
        missed += usize::from(!met);
        let word = if met { "reached" } else { "MISSED" };
        println!(
            "{name}, {flows} flows: {:.2} × {reference}, goal {ratio:.2}: {word}",
            value / base
        );
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::{Figure, goals};

    fn figure(name: &'static str, flows: u32, ns: u64) -> Figure {
        Figure::new(name, "xdp", 4, flows, vec![ns])
    }

    #[test]
    fn median_of_an_odd_number_is_the_middle_one() {
        let figure = Figure::new("empty", "xdp", 4, 1, vec![9, 1, 5]);
        assert_eq!((figure.ns_min, figure.ns_median, figure.ns_max), (1, 5, 9));
    }

    #[test]
    fn goals_are_relative_to_the_same_run() {
        let slow = [figure("empty", 1, 22), figure("established", 1, 91)];
        assert_eq!(goals(&slow), 1);
        let slow_machine = [figure("empty", 1, 44), figure("established", 1, 180)];
        assert_eq!(goals(&slow_machine), 0);
    }
}
