//! Figures as a table, as JSON, as a chart, and beside the goal.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::super::chart::{Course, Span};
use super::super::goal::{Bound, Verdict};
use super::super::output::{Report, Svg};
use super::super::spread::{Spread, quantile};
use super::newcomers::Newcomers;
use super::phase::Phase;
use super::scene::Goal;
use super::{Hook, Options};
use crate::lab::client::{Exchange, Kept};

/// The least share of what connections reach while the same SYNs are routed that they must reach
/// while the SYNs come to the NodePort.
const LEAST: f64 = 0.9;

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

impl Figure {
    fn new(goal: Goal, phases: &[Phase], all: &[Exchange]) -> Self {
        let of = |goal: Goal| phases.iter().filter(move |phase| phase.goal == goal);
        let spread = |value: &dyn Fn(&Phase) -> f64| {
            Spread::of(&of(goal).map(value).collect::<Vec<_>>()).unwrap_or_default()
        };
        let total = |value: &dyn Fn(&Phase) -> u64| of(goal).map(value).sum();
        let rates = |goal| of(goal).map(|phase| phase.rate(all)).collect::<Vec<_>>();
        let ratio = Spread::of_ratios(&rates(Goal::NodePort), &rates(goal));
        let newcomers = Newcomers::sum(of(goal).map(|phase| &phase.newcomers));
        Self {
            flood: goal.name(),
            syn_rate: spread(&|phase| phase.sent as f64 / phase.seconds()),
            exchanges_per_second: spread(&|phase| phase.rate(all)),
            p50_us: spread(&|phase| took(phase, all, 0.5)),
            p99_us: spread(&|phase| took(phase, all, 0.99)),
            nodeport_over_this: ratio.unwrap_or_default(),
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
}

/// Microseconds that a share of a phase's exchanges did not exceed.
fn took(phase: &Phase, all: &[Exchange], share: f64) -> f64 {
    let exchanges = phase.exchanges(all).iter();
    let mut took: Vec<f64> = exchanges.map(|exchange| exchange.took.into()).collect();
    took.sort_by(f64::total_cmp);
    quantile(&took, share).unwrap_or_default()
}

/// Exchanges are counted in steps of so many microseconds.
const STEP: u32 = 250_000;

/// Seconds and exchanges a second; the last step, which is not whole, is left out.
fn points(exchanges: &[Exchange]) -> Vec<(f64, f64)> {
    let last = exchanges.last().map_or(0, |exchange| exchange.at / STEP);
    let mut counts = vec![0_u32; last as usize];
    for exchange in exchanges {
        if let Some(count) = counts.get_mut((exchange.at / STEP) as usize) {
            *count += 1;
        }
    }
    let seconds = f64::from(STEP) / 1e6;
    let point = |(index, count): (u32, u32)| {
        ((f64::from(index) + 0.5) * seconds, f64::from(count) / seconds)
    };
    (0..).zip(counts).map(point).collect()
}

/// All that a run has found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    mode: &'static str,
    family: u8,
    connections: u32,
    syns: u32,
    rate: u32,
    rounds: u32,
    max_flows: Option<u32>,
    exchanges: usize,
    broken: BTreeMap<String, u64>,
    floods: Vec<Figure>,
    #[serde(skip)]
    points: Vec<(f64, f64)>,
    #[serde(skip)]
    spans: Vec<Span>,
}

impl Found {
    /// Of all floods, in order, and what the connections did meanwhile.
    pub(super) fn new(options: &Options, phases: &[Phase], kept: &Kept) -> Self {
        let Kept { exchanges, broken } = kept;
        let span = |phase: &Phase| Span {
            name: phase.goal.name(),
            kind: phase.goal as usize,
            seconds: (phase.span.0.as_secs_f64(), phase.span.1.as_secs_f64()),
        };
        Self {
            mode: if options.mode == Hook::Xdp { "xdp" } else { "tc" },
            family: if options.ipv6 { 6 } else { 4 },
            connections: options.connections,
            syns: options.syns,
            rate: options.rate,
            rounds: options.rounds,
            max_flows: options.max_flows,
            exchanges: exchanges.len(),
            broken: broken.clone(),
            floods: Goal::ALL.map(|goal| Figure::new(goal, phases, exchanges)).into(),
            points: points(exchanges),
            spans: phases.iter().map(span).collect(),
        }
    }

    /// Says so if the machine could not send one of the floods as fast as it should: figures of
    /// different rates do not compare.
    fn too_slow(&self) -> Option<String> {
        let (rate, none) = (self.rate, Goal::Nothing.name());
        let is_slow = |figure: &&Figure| {
            figure.flood != none && figure.syn_rate.median < f64::from(rate) * 0.95
        };
        let slow: Vec<&str> = self.floods.iter().filter(is_slow).map(|f| f.flood).collect();
        (!slow.is_empty()).then(|| {
            let slow = slow.join(", ");
            format!("slower than {rate} SYNs/s, and not to be compared (try --rate): {slow}")
        })
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header([
            "flood",
            "SYNs/s",
            "exchanges/s",
            "p50 µs",
            "p99 µs",
            "NodePort / this",
            "opened",
            "refused",
            "newcomers",
            "at once",
            "failed",
            "µs",
        ]);
        for figure in &self.floods {
            table.add_row([
                figure.flood.to_owned(),
                format!("{:.0}", figure.syn_rate.median),
                format!("{:.0}", figure.exchanges_per_second.median),
                format!("{:.0}", figure.p50_us.median),
                format!("{:.0}", figure.p99_us.median),
                figure.nodeport_over_this.text(3),
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
        table
    }

    /// What a chart of it is called, and its file.
    fn title(&self) -> (String, String) {
        let Self { mode, family, connections, rate, .. } = self;
        let hook = mode.to_uppercase();
        let title = format!(
            "{connections} connections during floods of {rate} SYNs/s, {hook}, IPv{family}"
        );
        let (hook, family) =
            (if *mode == "xdp" { "" } else { "-tc" }, if *family == 4 { "" } else { "-ipv6" });
        (title, format!("flood{hook}{family}.svg"))
    }
}

impl Report for Found {
    fn print(&self) {
        println!(
            "{} connections in use, {} exchanges, none broke; floods of {} SYNs\n\n{}",
            self.connections,
            self.exchanges,
            self.syns,
            self.table()
        );
        if let Some(note) = self.too_slow() {
            println!("\n{note}");
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let routed = self.floods.iter().find(|figure| figure.flood == Goal::Routed.name());
        let verdict = |figure: &Figure| {
            let what = format!(
                "exchanges/s during a flood of SYNs to the NodePort, {}, IPv{}",
                self.mode.to_uppercase(),
                self.family
            );
            let unit = "× the same SYNs routed";
            Verdict::new(what, Bound::AtLeast(LEAST), unit, figure.nodeport_over_this)
        };
        routed.into_iter().map(verdict).collect()
    }

    fn charts(&self) -> Result<Vec<Svg>> {
        let (title, name) = self.title();
        let (points, spans) = (self.points.clone(), self.spans.clone());
        let course = Course { title, unit: "exchanges a second".to_owned(), points, spans };
        Ok(vec![Svg { name, text: course.svg()? }])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::super::super::goal::missed;
    use super::super::account::Counts;
    use super::*;

    #[derive(Parser)]
    struct Call {
        #[command(flatten)]
        options: Options,
    }

    /// A second of each flood; in the last one so many exchanges, in all others 1,000.
    fn found(arguments: &[&str], last: u32, sent: u64) -> Found {
        let options = Call::parse_from([&["bench"], arguments].concat()).options;
        let phase = |(goal, second): (Goal, u64)| {
            let span = (Duration::from_secs(second), Duration::from_secs(second + 1));
            Phase { goal, span, sent, counts: Counts::default(), newcomers: Newcomers::default() }
        };
        let phases: Vec<Phase> = Goal::ALL.into_iter().zip(0..).map(phase).collect();
        let exchanges = (0..4).zip([1_000, 1_000, 1_000, last]).flat_map(|(second, count)| {
            let at = move |n| second * 1_000_000 + n * (1_000_000 / count);
            (0..count).map(move |n| Exchange { at: at(n), took: n })
        });
        Found::new(
            &options,
            &phases,
            &Kept { exchanges: exchanges.collect(), broken: BTreeMap::new() },
        )
    }

    #[test]
    fn a_tenth_less_than_routed_is_the_most() {
        assert_eq!(missed(&found(&[], 910, 25_000).verdicts()), 0);
        assert_eq!(missed(&found(&[], 890, 25_000).verdicts()), 1);
    }

    #[test]
    fn floods_that_were_too_slow_are_named() {
        assert_eq!(found(&[], 1_000, 24_000).too_slow(), None);
        let note = found(&[], 1_000, 23_000).too_slow().unwrap();
        assert!(note.contains(Goal::NodePort.name()) && !note.contains(Goal::Nothing.name()));
    }

    #[test]
    fn a_chart_names_all_floods_and_its_file_the_family() {
        let chart = &found(&["--ipv6"], 1_000, 1).charts().unwrap()[0];
        assert_eq!(chart.name, "flood-ipv6.svg");
        for text in Goal::ALL.map(Goal::name).iter().chain(&["IPv6", "XDP", "seconds"]) {
            assert!(chart.text.contains(text), "{text}");
        }
        assert_eq!(found(&["--mode", "tc"], 1_000, 1).charts().unwrap()[0].name, "flood-tc.svg");
    }

    #[test]
    fn steps_count_what_ended_in_them() {
        let exchanges: Vec<Exchange> =
            (0..10).map(|n| Exchange { at: n * 100_000, took: 1 }).collect();
        assert_eq!(points(&exchanges), [(0.125, 12.0), (0.375, 8.0), (0.625, 12.0)]);
    }

    #[test]
    fn json_has_each_flood_with_its_spread() {
        let value = serde_json::to_value(found(&[], 500, 1)).unwrap();
        assert_eq!((&value["family"], &value["mode"]), (&4.into(), &"xdp".into()));
        assert_eq!(value["floods"].as_array().unwrap().len(), 4);
        assert_eq!(value["floods"][3]["nodeport_over_this"]["median"], 1.0);
        assert_eq!(value["floods"][2]["nodeport_over_this"]["median"], 0.5);
    }
}
