//! Figures as a table, as charts, and beside their goals.

use std::time::Duration;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::super::chart::{Bar, Chart, Group, Tone, thousands};
use super::super::goal::{Bound, Verdict};
use super::super::output::{Report, Svg};
use super::super::spread::Spread;
use super::services::Round;

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
    /// What the rounds gave.
    pub value: Spread,
    /// Number of rounds.
    pub rounds: usize,
    /// Whether the rounds differ too much to tell small differences.
    pub unsteady: bool,
}

impl Figure {
    /// The figure of some rounds; zero of none.
    pub(super) fn new(
        name: &'static str,
        (of, count): (&'static str, u32),
        unit: &'static str,
        samples: Vec<f64>,
    ) -> Self {
        let value = Spread::of(&samples).unwrap_or_default();
        let (rounds, unsteady) = (samples.len(), value.is_unsteady());
        Self { name, of, count, unit, value, rounds, unsteady }
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

/// All that a run has found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    /// Services first, then flows.
    pub figures: Vec<Figure>,
}

fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// A bound on the median of a figure.
struct Goal {
    name: &'static str,
    count: u32,
    most: f64,
}

/// Times that are absolute: what the peers take for the same is seconds and minutes.
const GOALS: [Goal; 6] = [
    Goal { name: "plan-all", count: 10_000, most: 500.0 },
    Goal { name: "plan-change-p99", count: 10_000, most: 1_000.0 },
    Goal { name: "first-sync", count: 10_000, most: 500.0 },
    Goal { name: "change-p99", count: 10_000, most: 5.0 },
    // Of one service it takes as many: the backend, the slots, the frontend, and the one that went.
    Goal { name: "map-writes-per-change", count: 10_000, most: 5.0 },
    Goal { name: "list-flows", count: 1_048_576, most: 1_000.0 },
];

/// Figures that share a chart: its file, its heading, and which they are; all in one unit.
const CHARTS: [(&str, &str, &[&str]); 4] = [
    ("first-sync", "From the agent's start until all maps are written", &["first-sync"]),
    ("change", "From an endpoint's change to the map", &["change-p50", "change-p99"]),
    ("memory", "Memory", &["agent-memory", "agent-memory-peak", "service-maps", "flow-tables"]),
    (
        "flows",
        "Among live flows",
        &["list-flows", "list-flows-json", "sweep", "sweep-longest-step"],
    ),
];

impl Report for Found {
    fn print(&self) {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["measure", "among", "", "median", "low", "high", "unit", ""]);
        for Figure { name, of, count, unit, value, unsteady, .. } in &self.figures {
            table.add_row([
                (*name).to_owned(),
                thousands(*count),
                (*of).to_owned(),
                shown(value.median),
                shown(value.low),
                shown(value.high),
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

    fn verdicts(&self) -> Vec<Verdict> {
        GOALS.iter().filter_map(|goal| self.verdict(goal)).collect()
    }

    fn charts(&self) -> Result<Vec<Svg>> {
        let mut charts = Vec::new();
        for (kind, title, names) in CHARTS {
            let Some(chart) = self.chart(title, names) else { continue };
            charts.push(Svg { name: format!("scale-{kind}.svg"), text: chart.svg()? });
        }
        Ok(charts)
    }
}

impl Found {
    /// A goal, if it was measured.
    fn verdict(&self, goal: &Goal) -> Option<Verdict> {
        let Goal { name, count, most } = goal;
        let found = self.figures.iter().find(|one| one.name == *name && one.count == *count);
        found.map(|Figure { unit, of, value, .. }| {
            let what = format!("{name} among {} {of}", thousands(*count));
            Verdict::new(what, Bound::AtMost(*most), unit, *value)
        })
    }

    /// A group for each figure, with a bar for each number.
    fn chart(&self, title: &str, names: &[&str]) -> Option<Chart> {
        let figures =
            |name: &str| self.figures.iter().filter(|one| one.name == name).collect::<Vec<_>>();
        let found = names.iter().map(|name| (*name, figures(name)));
        let found: Vec<_> = found.filter(|(_, figures)| !figures.is_empty()).collect();
        let unit = found.first()?.1.first()?.unit;
        let group = |(name, figures): (&str, Vec<&Figure>)| Group {
            name: name.to_owned(),
            bars: figures.into_iter().map(bar).collect(),
        };
        Some(Chart {
            title: format!("{title} (less is better; red: goal)"),
            unit: unit.to_owned(),
            goal: None,
            limit: None,
            groups: found.into_iter().map(group).collect(),
        })
    }
}

fn bar(figure: &Figure) -> Bar {
    let Figure { name, of, count, value, .. } = figure;
    let goal = GOALS.iter().find(|goal| (goal.name, goal.count) == (name, *count));
    Bar {
        name: format!("{} {of}", thousands(*count)),
        tone: Tone::Ours,
        value: *value,
        goal: goal.map(|goal| goal.most),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::goal::missed;
    use super::*;

    fn figure(name: &'static str, samples: &[f64]) -> Figure {
        Figure::new(name, ("services", 10_000), "ms", samples.to_vec())
    }

    #[test]
    fn rounds_far_apart_are_called_unsteady() {
        let steady = figure("x", &[10.0, 9.0, 11.0]);
        let value = steady.value;
        assert_eq!((value.low, value.median, value.high), (9.0, 10.0, 11.0));
        assert!(!steady.unsteady);
        assert!(figure("x", &[10.0, 9.0, 13.0]).unsteady);
    }

    #[test]
    fn goals_hold_for_the_median() {
        let goals = |figures: &[Figure]| missed(&Found { figures: figures.to_vec() }.verdicts());
        assert_eq!(goals(&[figure("first-sync", &[400.0, 450.0, 900.0])]), 0);
        assert_eq!(goals(&[figure("first-sync", &[501.0]), figure("change-p99", &[5.1])]), 2);
        assert_eq!(goals(&[]), 0);
    }

    #[test]
    fn charts_have_a_bar_for_each_number_and_the_goals() {
        let few = Figure::new("change-p99", ("services", 1), "ms", vec![1.0]);
        let found = Found { figures: vec![few, figure("change-p99", &[4.0, 5.0, 6.0])] };
        let charts = found.charts().unwrap();
        assert_eq!(charts.len(), 1);
        assert_eq!(charts[0].name, "scale-change.svg");
        assert!(charts[0].text.contains("10,000 services"));
        let groups = found.chart("", &["change-p50", "change-p99"]).unwrap().groups;
        let goals: Vec<_> = groups[0].bars.iter().map(|bar| bar.goal).collect();
        assert_eq!(goals, [None, Some(5.0)]);
    }

    #[test]
    fn json_has_the_spread_of_each_figure() {
        let value = serde_json::to_value(figure("x", &[3.0, 1.0, 2.0])).unwrap();
        assert_eq!((&value["value"]["median"], &value["rounds"]), (&2.0.into(), &3.into()));
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
