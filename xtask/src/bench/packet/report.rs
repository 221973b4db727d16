//! Figures as a table, as charts, and beside their goals.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::super::chart::{Bar, Chart, Group, Tone, thousands};
use super::super::goal::{Bound, Verdict};
use super::super::output::{Report, Svg};
use super::super::spread::Spread;

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
    /// Nanoseconds per packet.
    pub ns: Spread,
    /// Whether the rounds differ too much to tell small differences.
    pub unsteady: bool,
    /// The rounds' nanoseconds, in their order.
    #[serde(skip)]
    pub samples: Vec<f64>,
}

impl Figure {
    /// The figure of some rounds' nanoseconds; `None` of none.
    pub(super) fn new(
        name: &'static str,
        hook: &'static str,
        family: u8,
        flows: u32,
        samples: Vec<f64>,
    ) -> Option<Self> {
        let ns = Spread::of(&samples)?;
        Some(Self { name, hook, family, flows, ns, unsteady: ns.is_unsteady(), samples })
    }
}

/// All that a run has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Found {
    /// Each program with each number of flows.
    pub figures: Vec<Figure>,
}

/// A bound on one figure, relative to another of the same rounds.
struct Goal {
    name: &'static str,
    hook: &'static str,
    flows: u32,
    /// Nanoseconds that it may take.
    most: f64,
    /// Where that one takes so many.
    reference: (&'static str, f64),
}

/// What packets may cost, in terms of the same run: of the empty program where the program itself
/// is what costs, of a look-up in the kernel's hash map where memory is.
#[rustfmt::skip]
const GOALS: [Goal; 6] = [
    Goal { name: "established", hook: "xdp", flows: 1, most: 40.0, reference: ("empty", 22.0) },
    Goal { name: "established", hook: "xdp", flows: 65_536, most: 130.0, reference: ("bare-lookup", 176.0) },
    Goal { name: "established", hook: "xdp", flows: 1_048_576, most: 170.0, reference: ("bare-lookup", 295.0) },
    Goal { name: "new-flow", hook: "xdp", flows: 65_536, most: 350.0, reference: ("bare-lookup", 176.0) },
    Goal { name: "established", hook: "tc", flows: 1, most: 70.0, reference: ("empty", 25.0) },
    Goal { name: "not-ours", hook: "xdp", flows: 1, most: 32.0, reference: ("empty", 22.0) },
];

/// How much more than IPv4 an IPv6 packet may cost.
const IPV6: f64 = 1.25;

impl Goal {
    /// The largest ratio to the reference.
    fn ratio(&self) -> f64 {
        self.most / self.reference.1
    }

    /// For IPv4 against the reference, for IPv6 against IPv4; as far as they were measured.
    fn verdicts(&self, found: &Found) -> Vec<Verdict> {
        let Self { name, hook, flows, most, reference: (reference, base) } = self;
        let Some(four) = found.figure(name, hook, *flows, 4) else { return Vec::new() };
        let what = format!("{name}, {}, {}", hook.to_uppercase(), flows_of(*flows));
        let held = |figure: &Figure, against: &Figure, what: String, bound: f64, unit: &str| {
            let ratio = Spread::of_ratios(&figure.samples, &against.samples)?;
            Some(Verdict::new(what, Bound::AtMost(bound), unit, ratio))
        };
        let base = found.figure(reference, hook, *flows, 4).and_then(|against| {
            let unit = format!("× {reference} ({most} ns where that takes {base})");
            held(four, against, what.clone(), self.ratio(), &unit)
        });
        let six = found.figure(name, hook, *flows, 6);
        let six = six.and_then(|six| held(six, four, format!("{what}, IPv6"), IPV6, "× IPv4"));
        base.into_iter().chain(six).collect()
    }

    /// The bound in nanoseconds of this run, for one family.
    fn in_this_run(&self, found: &Found, family: u8) -> Option<f64> {
        let median =
            |name, family| Some(found.figure(name, self.hook, self.flows, family)?.ns.median);
        match family {
            4 => Some(median(self.reference.0, 4)? * self.ratio()),
            _ => Some(median(self.name, 4)? * IPV6),
        }
    }
}

fn flows_of(count: u32) -> String {
    let plural = if count == 1 { "flow" } else { "flows" };
    format!("{} {plural}", thousands(count))
}

impl Report for Found {
    fn print(&self) {
        println!("nanoseconds per packet, median (lowest to highest); ~ is unsteady");
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["packet", "hook", "family", "flows", "ns"]);
        for figure in &self.figures {
            table.add_row([
                figure.name.to_owned(),
                figure.hook.to_owned(),
                format!("IPv{}", figure.family),
                thousands(figure.flows),
                figure.ns.text(0),
            ]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
    }

    fn verdicts(&self) -> Vec<Verdict> {
        GOALS.iter().flat_map(|goal| goal.verdicts(self)).collect()
    }

    fn charts(&self) -> Result<Vec<Svg>> {
        let mut charts = Vec::new();
        for hook in ["xdp", "tc"] {
            for (kind, title, names) in CHARTS {
                let Some(chart) = self.chart(hook, title, names) else { continue };
                charts.push(Svg { name: format!("packet-{kind}-{hook}.svg"), text: chart.svg()? });
            }
        }
        Ok(charts)
    }
}

/// Packets that share a chart: what its file and its heading say, and which they are.
const CHARTS: [(&str, &str, &[&str]); 2] = [
    ("live", "A packet of a live flow, and one that is not ours", &["not-ours", "established"]),
    ("new", "The first packet of a flow", &["new-flow", "new-flow-full"]),
];

/// What packets are held against.
const REFERENCES: [(&str, &str); 2] =
    [("empty", "empty program"), ("bare-lookup", "one kernel hash look-up")];

impl Found {
    fn figure(&self, name: &str, hook: &str, flows: u32, family: u8) -> Option<&Figure> {
        self.figures
            .iter()
            .find(|f| f.name == name && f.hook == hook && f.flows == flows && f.family == family)
    }

    /// A group for each packet with each number of flows, its references above it.
    fn chart(&self, hook: &str, title: &str, names: &[&str]) -> Option<Chart> {
        let ours = |figure: &&Figure| figure.hook == hook && figure.family == 4;
        let groups: Vec<Group> = names
            .iter()
            .flat_map(|name| self.figures.iter().filter(ours).filter(move |f| f.name == *name))
            .map(|figure| self.group(figure))
            .collect();
        (!groups.is_empty()).then(|| Chart {
            title: format!("{title}, {} (less is better; red: goal)", hook.to_uppercase()),
            unit: "ns per packet".to_owned(),
            goal: None,
            limit: None,
            groups,
        })
    }

    fn group(&self, figure: &Figure) -> Group {
        let Figure { name, hook, flows, .. } = figure;
        let references = REFERENCES.iter().filter_map(|(reference, label)| {
            let value = self.figure(reference, hook, *flows, 4)?.ns;
            Some(Bar { name: (*label).to_owned(), tone: Tone::Reference, value, goal: None })
        });
        let asked = (*name, *hook, *flows);
        let goal = GOALS.iter().find(|goal| (goal.name, goal.hook, goal.flows) == asked);
        let ours = [4, 6].into_iter().filter_map(|family| {
            let value = self.figure(name, hook, *flows, family)?.ns;
            let goal = goal.and_then(|goal| goal.in_this_run(self, family));
            Some(Bar { name: format!("nodeport, IPv{family}"), tone: Tone::Ours, value, goal })
        });
        let bars = references.chain(ours).collect();
        Group { name: format!("{name}, {}", flows_of(*flows)), bars }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::goal::missed;
    use super::*;

    fn figure(name: &'static str, family: u8, ns: &[f64]) -> Figure {
        Figure::new(name, "xdp", family, 1, ns.to_vec()).unwrap()
    }

    fn found<const N: usize>(figures: [Figure; N]) -> Found {
        Found { figures: figures.into() }
    }

    fn missed_of<const N: usize>(figures: [Figure; N]) -> usize {
        missed(&found(figures).verdicts())
    }

    #[test]
    fn median_of_an_odd_number_is_the_middle_one() {
        let ns = figure("empty", 4, &[9.0, 1.0, 5.0]).ns;
        assert_eq!((ns.low, ns.median, ns.high), (1.0, 5.0, 9.0));
        assert!(Figure::new("empty", "xdp", 4, 1, Vec::new()).is_none());
    }

    #[test]
    fn goals_are_relative_to_the_same_rounds() {
        let slow = [figure("empty", 4, &[22.0]), figure("established", 4, &[41.0])];
        assert_eq!(missed_of(slow), 1);
        let slow_machine = [figure("empty", 4, &[44.0]), figure("established", 4, &[80.0])];
        assert_eq!(missed_of(slow_machine), 0);
        // Each round is quick enough, though the median of one is twice that of the other.
        let changing = [
            figure("empty", 4, &[22.0, 22.0, 44.0, 44.0, 44.0]),
            figure("established", 4, &[40.0, 40.0, 80.0, 80.0, 80.0]),
        ];
        assert_eq!(missed_of(changing), 0);
    }

    #[test]
    fn an_ipv6_packet_is_held_against_the_ipv4_one() {
        let with = |six| {
            let four = [figure("empty", 4, &[22.0]), figure("established", 4, &[40.0])];
            let [empty, four] = four;
            missed_of([empty, four, figure("established", 6, &[six])])
        };
        assert_eq!((with(50.0), with(51.0)), (0, 1));
    }

    #[test]
    fn what_was_not_measured_has_no_verdict() {
        assert!(found([figure("established", 4, &[40.0])]).verdicts().is_empty());
        assert!(found([figure("empty", 4, &[40.0])]).verdicts().is_empty());
    }

    #[test]
    fn a_chart_has_references_both_families_and_the_goals_in_nanoseconds() {
        let found = found([
            figure("empty", 4, &[44.0]),
            figure("bare-lookup", 4, &[90.0]),
            figure("established", 4, &[60.0]),
            figure("established", 6, &[70.0]),
        ]);
        let charts = found.charts().unwrap();
        assert_eq!(
            charts.iter().map(|svg| &svg.name[..]).collect::<Vec<_>>(),
            ["packet-live-xdp.svg"]
        );
        for text in ["established, 1 flow", "empty program", "nodeport, IPv4", "nodeport, IPv6"] {
            assert!(charts[0].text.contains(text), "{text}");
        }
        let bars = found.group(&found.figures[2]).bars;
        let goals: Vec<_> = bars.iter().map(|bar| bar.goal.map(f64::round)).collect();
        assert_eq!(goals, [None, None, Some(80.0), Some(75.0)]);
    }

    #[test]
    fn a_goal_is_that_of_the_number_of_flows() {
        let figure = |name| Figure::new(name, "xdp", 4, 65_536, vec![176.0]).unwrap();
        let found = found([figure("bare-lookup"), figure("established")]);
        let bars = found.group(&found.figures[1]).bars;
        assert_eq!(bars.last().unwrap().goal.map(f64::round), Some(130.0));
    }

    #[test]
    fn json_has_the_spread_of_each_figure() {
        let value = serde_json::to_value(found([figure("empty", 4, &[3.0, 1.0, 2.0])])).unwrap();
        let figure = &value["figures"][0];
        assert_eq!(figure["ns"]["median"], 2.0);
        assert_eq!((&figure["name"], &figure["family"]), (&"empty".into(), &4.into()));
        assert!(figure["samples"].is_null());
    }
}
