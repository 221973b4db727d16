//! Figures as a table and as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::newcomers::Newcomers;
use super::phase::Phase;
use super::scene::Goal;
use super::{Hook, Options};
use crate::lab::client::Kept;

/// Values of several rounds.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let median = if values.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        };
        Self { min: at(0), median, max: at(values.len().saturating_sub(1)) }
    }
}

/// What the connections and the newcomers reached under floods of one goal.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    flood: &'static str,
    /// SYNs a second that were sent.
    syn_rate: Spread,
    /// Exchanges of the live connections a second.
    exchanges_per_second: Spread,
    /// Median and 99th percentile of an exchange, in microseconds.
    p50_us: Spread,
    p99_us: Spread,
    /// Exchanges a second under the flood to the NodePort, over those under this one in the same
    /// round.
    nodeport_over_this: Spread,
    newcomers: Newcomers,
    newcomers_median_us: u64,
    opened: u64,
    refused: u64,
    no_port: u64,
    table_full: u64,
    partner_rebuilt: u64,
    lost_on_links: u64,
}

fn figure(goal: Goal, phases: &[Phase], kept: &Kept) -> Figure {
    let all = &kept.exchanges;
    let rounds: Vec<&Phase> = phases.iter().filter(|phase| phase.goal == goal).collect();
    let ours: Vec<&Phase> = phases.iter().filter(|phase| phase.goal == Goal::NodePort).collect();
    let spread = |value: &dyn Fn(&Phase) -> f64| {
        Spread::of(rounds.iter().map(|phase| value(phase)).collect())
    };
    let total = |value: &dyn Fn(&Phase) -> u64| rounds.iter().map(|phase| value(phase)).sum();
    let ratios = ours.iter().zip(&rounds).map(|(our, this)| our.rate(all) / this.rate(all));
    let newcomers = Newcomers::sum(rounds.iter().map(|phase| &phase.newcomers));
    Figure {
        flood: goal.name(),
        syn_rate: spread(&|phase| phase.sent as f64 / phase.seconds()),
        exchanges_per_second: spread(&|phase| phase.rate(all)),
        p50_us: spread(&|phase| percentile(phase, kept, 0.5)),
        p99_us: spread(&|phase| percentile(phase, kept, 0.99)),
        nodeport_over_this: Spread::of(ratios.collect()),
        newcomers_median_us: newcomers.median(),
        newcomers,
        opened: total(&|phase| phase.counts.opened),
        refused: total(&|phase| phase.counts.refused()),
        no_port: total(&|phase| phase.counts.of("no_port")),
        table_full: total(&|phase| phase.counts.of("table_full")),
        partner_rebuilt: total(&|phase| phase.counts.of("partner_rebuilt")),
        lost_on_links: total(&|phase| phase.counts.lost_on_links),
    }
}

fn percentile(phase: &Phase, kept: &Kept, share: f64) -> f64 {
    let mut took: Vec<u32> =
        phase.exchanges(&kept.exchanges).iter().map(|exchange| exchange.took).collect();
    took.sort_unstable();
    let index = (took.len().saturating_sub(1) as f64 * share).round() as usize;
    took.get(index).copied().unwrap_or_default().into()
}

fn figures(phases: &[Phase], kept: &Kept) -> Vec<Figure> {
    Goal::ALL.iter().map(|goal| figure(*goal, phases, kept)).collect()
}

/// Says so if the machine could not send one of the floods as fast as it should: figures of
/// different rates do not compare.
fn too_slow(rate: u32, figures: &[Figure]) -> Option<String> {
    let slow = |figure: &&Figure| {
        figure.flood != Goal::Nothing.name() && figure.syn_rate.median < f64::from(rate) * 0.95
    };
    let slow: Vec<&str> = figures.iter().filter(slow).map(|figure| figure.flood).collect();
    (!slow.is_empty()).then(|| {
        format!(
            "slower than {rate} SYNs/s, and not to be compared (try --rate): {}",
            slow.join(", ")
        )
    })
}

/// Prints what came of it.
pub(super) fn table(options: &Options, phases: &[Phase], kept: &Kept) {
    println!(
        "{} connections in use, {} exchanges, none broke; floods of {} SYNs\n",
        options.connections,
        kept.exchanges.len(),
        options.syns
    );
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "flood",
        "SYNs/s",
        "exchanges/s",
        "p50 µs",
        "p99 µs",
        "NodePort / this",
        "(min–max)",
        "opened",
        "refused",
        "newcomers",
        "at once",
        "failed",
        "µs",
    ]);
    let figures = figures(phases, kept);
    let note = too_slow(options.rate, &figures);
    for figure in figures {
        let ratio = figure.nodeport_over_this;
        table.add_row([
            figure.flood.to_owned(),
            format!("{:.0}", figure.syn_rate.median),
            format!("{:.0}", figure.exchanges_per_second.median),
            format!("{:.0}", figure.p50_us.median),
            format!("{:.0}", figure.p99_us.median),
            format!("{:.3}", ratio.median),
            format!("{:.3}–{:.3}", ratio.min, ratio.max),
            figure.opened.to_string(),
            figure.refused.to_string(),
            figure.newcomers.served.to_string(),
            figure.newcomers.at_once.to_string(),
            figure.newcomers.failed.to_string(),
            figure.newcomers_median_us.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    if let Some(note) = note {
        println!("\n{note}");
    }
}

/// All figures of a run.
#[derive(Debug, Serialize)]
struct Report<'a> {
    mode: &'static str,
    family: u8,
    connections: u32,
    syns: u32,
    rate: u32,
    rounds: u32,
    max_flows: Option<u32>,
    exchanges: usize,
    broken: &'a std::collections::BTreeMap<String, u64>,
    floods: Vec<Figure>,
}

/// Writes all figures.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn json(options: &Options, phases: &[Phase], kept: &Kept, path: &Path) -> Result<()> {
    let report = Report {
        mode: if options.mode == Hook::Xdp { "xdp" } else { "tc" },
        family: if options.ipv6 { 6 } else { 4 },
        connections: options.connections,
        syns: options.syns,
        rate: options.rate,
        rounds: options.rounds,
        max_flows: options.max_flows,
        exchanges: kept.exchanges.len(),
        broken: &kept.broken,
        floods: figures(phases, kept),
    };
    let text = serde_json::to_string_pretty(&report).context("figures to JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(Spread::of(vec![9.0, 1.0, 5.0]), Spread { min: 1.0, median: 5.0, max: 9.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
