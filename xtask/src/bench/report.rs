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
    hook: &'static str,
    flows: u32,
    reference: &'static str,
    /// Largest ratio of the medians.
    ratio: f64,
}

impl Goal {
    /// `name` at `hook` may cost `nanoseconds` where `reference` costs `where_it_costs`.
    const fn new(
        name: &'static str,
        hook: &'static str,
        flows: u32,
        nanoseconds: f64,
        reference: (&'static str, f64),
    ) -> Self {
        Self { name, hook, flows, reference: reference.0, ratio: nanoseconds / reference.1 }
    }
}

/// What packets may cost, in terms of the same run: of the empty program where the program itself
/// is what costs, of a look-up in the kernel's hash map where memory is.
const GOALS: [Goal; 6] = [
    Goal::new("established", "xdp", 1, 40.0, ("empty", 22.0)),
    Goal::new("established", "xdp", 65_536, 130.0, ("bare-lookup", 176.0)),
    Goal::new("established", "xdp", 1_048_576, 170.0, ("bare-lookup", 295.0)),
    Goal::new("new-flow", "xdp", 65_536, 350.0, ("bare-lookup", 176.0)),
    Goal::new("established", "tc", 1, 70.0, ("empty", 25.0)),
    Goal::new("not-ours", "xdp", 1, 32.0, ("empty", 22.0)),
];

/// How much more than IPv4 an IPv6 packet may cost.
const IPV6: f64 = 1.25;

/// Prints the goals beside what was measured; returns how many were missed.
pub(super) fn goals(figures: &[Figure]) -> usize {
    let median = |name: &str, hook: &str, flows: u32, family: u8| {
        let found = figures
            .iter()
            .find(|f| f.name == name && f.hook == hook && f.flows == flows && f.family == family);
        found.map(|figure| figure.ns_median as f64)
    };
    let mut missed = 0;
    let mut judge = |what: &str, value: f64, (reference, base): (&str, f64), goal: f64| {
        let (ratio, met) = (value / base, value <= base * goal);
        missed += usize::from(!met);
        let word = if met { "reached" } else { "MISSED" };
        println!("{what}: {ratio:.2} × {reference}, goal {goal:.2}: {word}");
    };
    for Goal { name, hook, flows, reference, ratio } in &GOALS {
        let Some(value) = median(name, hook, *flows, 4) else { continue };
        let what = format!("{name}, {hook}, {flows} flows");
        if let Some(base) = median(reference, hook, *flows, 4) {
            judge(&what, value, (reference, base), *ratio);
        }
        if let Some(six) = median(name, hook, *flows, 6) {
            judge(&format!("{what}, IPv6"), six, ("IPv4", value), IPV6);
        }
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
        let slow = [figure("empty", 1, 22), figure("established", 1, 41)];
        assert_eq!(goals(&slow), 1);
        let slow_machine = [figure("empty", 1, 44), figure("established", 1, 80)];
        assert_eq!(goals(&slow_machine), 0);
    }

    #[test]
    fn an_ipv6_packet_is_held_against_the_ipv4_one() {
        let six = |ns| Figure::new("established", "xdp", 6, 1, vec![ns]);
        let four = || [figure("empty", 1, 22), figure("established", 1, 40)];
        assert_eq!(goals(&four().into_iter().chain([six(50)]).collect::<Vec<_>>()), 0);
        assert_eq!(goals(&four().into_iter().chain([six(51)]).collect::<Vec<_>>()), 1);
    }
}
