//! Figures as tables, as JSON, as charts, and beside their goals.

use std::collections::BTreeSet;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::super::chart::{Bar, Chart, Group, Tone, thousands};
use super::super::goal::{Bound, Verdict};
use super::super::output::{Report, Svg};
use super::super::spread::Spread;
use super::figures::Figure;
use super::frames::{FrameRate, Frames};
use super::measure::{Family, GOALS, Goal, Measure, Setup, Way, place};
use crate::lab::Place;

/// All that a run has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Found {
    /// Ways to the backend.
    pub traffic: Vec<Figure>,
    /// Frames that XDP sends.
    pub frames: Frames,
}

const PLACES: [Place; 2] = [Place::Remote, Place::Local];

/// Measures that share a table.
const TABLES: [(&str, &[Measure]); 3] = [
    (
        "packets and rates",
        &[
            Measure::FirstPacket,
            Measure::LaterPacket,
            Measure::NewConnections,
            Measure::KeptRequests,
            Measure::UdpRate,
        ],
    ),
    ("processor time", &[Measure::CpuPerConnection, Measure::CpuPerRequest]),
    (
        "round trips",
        &[
            Measure::FirstP50,
            Measure::FirstP99,
            Measure::FirstP999,
            Measure::LaterP50,
            Measure::LaterP99,
            Measure::LaterP999,
        ],
    ),
];

impl Report for Found {
    fn print(&self) {
        for (title, measures) in TABLES {
            let taken = |measure: &Measure| self.traffic.iter().any(|f| f.measure == *measure);
            let measures: Vec<Measure> = measures.iter().copied().filter(taken).collect();
            if !measures.is_empty() {
                println!("\n{title}: × plain routing, median (lowest to highest); ~ is unsteady");
                println!("{}", self.table(&measures));
            }
        }
        for (title, unit, rates) in self.frame_tables() {
            if !rates.is_empty() {
                println!("\n{title}, live frames over a veth, one processor");
                println!("{}", frame_table(unit, rates));
            }
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let of_frames = self.frames.walk.iter().filter(|rate| rate.program == FrameRate::OURS);
        let of_frames = of_frames.map(|rate| {
            let bound = Bound::AtLeast(FrameRate::GOAL);
            Verdict::new("XDP_TX frames/s".to_owned(), bound, "× empty program", rate.ratio)
        });
        GOALS.iter().flat_map(|goal| self.verdicts_of(goal)).chain(of_frames).collect()
    }

    fn charts(&self) -> Result<Vec<Svg>> {
        let mut charts = Vec::new();
        for (measure, at) in Measure::ALL.into_iter().flat_map(|m| PLACES.map(|at| (m, at))) {
            if let Some(chart) = self.chart(measure, at) {
                let name = format!("traffic-{}-{}.svg", measure.slug(), place(at));
                charts.push(Svg { name, text: chart.svg()? });
            }
        }
        for (file, (title, unit, rates)) in ["frames", "send"].iter().zip(self.frame_tables()) {
            if !rates.is_empty() {
                let text = frame_chart(title, unit, rates).svg()?;
                charts.push(Svg { name: format!("traffic-{file}.svg"), text });
            }
        }
        Ok(charts)
    }
}

impl Found {
    /// A goal of IPv4 beside plain routing, and of IPv6 beside IPv4, as far as measured.
    fn verdicts_of(&self, goal: &Goal) -> impl Iterator<Item = Verdict> {
        let Goal { measure, place, services, .. } = *goal;
        let way = |family| Way { setup: Setup::Nodeport, place, services, family };
        let of = |family| self.figure(measure, way(family));
        let what = |family| format!("{}, {}", measure.title(), way(family));
        let four = of(Family::V4).map(|figure| {
            Verdict::new(what(Family::V4), goal.bound(), "× plain routing", figure.ratio)
        });
        let six = of(Family::V4).zip(of(Family::V6)).and_then(|(four, six)| {
            let ratio = Spread::of_ratios(&six.samples, &four.samples)?;
            Some(Verdict::new(what(Family::V6), goal.bound_of_ipv6(), "× IPv4", ratio))
        });
        four.into_iter().chain(six)
    }

    fn table(&self, measures: &[Measure]) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let heads = measures.iter().map(|measure| measure.title().to_owned());
        let fixed = ["backend", "family", "by", "services"].map(str::to_owned);
        table.set_header(fixed.into_iter().chain(heads));
        for way in self.ways() {
            let cells = measures.iter().map(|measure| self.cell(*measure, way));
            let services =
                if way.services == 0 { "–".to_owned() } else { way.services.to_string() };
            let names = [place(way.place), way.family.name(), way.setup.name()].map(str::to_owned);
            let names = names.into_iter().chain([services]);
            table.add_row(names.chain(cells));
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// What was sent by XDP: a heading, what it is held against, and the figures.
    fn frame_tables(&self) -> [(&'static str, &'static str, &[FrameRate]); 2] {
        let Frames { walk, send } = &self.frames;
        [("the packet path", "× empty program", walk), ("ways to send", "× XDP_TX", send)]
    }

    /// Every way: remote backends first, of these IPv4.
    fn ways(&self) -> Vec<Way> {
        let ways: BTreeSet<Way> = self.traffic.iter().map(|figure| figure.way).collect();
        let mut ways: Vec<Way> = ways.into_iter().collect();
        ways.sort_by_key(|way| (way.place, way.family));
        ways
    }

    fn cell(&self, measure: Measure, way: Way) -> String {
        let Some(figure) = self.figure(measure, way) else { return String::new() };
        if way.setup == Setup::Routing {
            return in_unit(measure, figure.value.median);
        }
        figure.ratio.text(2)
    }

    fn figure(&self, measure: Measure, way: Way) -> Option<&Figure> {
        self.traffic.iter().find(|figure| figure.measure == measure && figure.way == way)
    }

    fn chart(&self, measure: Measure, at: Place) -> Option<Chart> {
        let group = |family: Family| {
            let is_here = |way: &Way| way.place == at && way.family == family;
            let ways = self.ways().into_iter().filter(is_here);
            let bars = ways.filter_map(|way| self.figure(measure, way)).map(bar).collect();
            Group { name: family.name().to_owned(), bars }
        };
        let groups = [Family::V4, Family::V6].map(group).into_iter();
        let groups: Vec<Group> = groups.filter(|group| !group.bars.is_empty()).collect();
        let goal = GOALS.iter().find(|goal| goal.measure == measure && goal.place == at);
        let better = if measure.is_rate() { "more is better" } else { "less is better" };
        (!groups.is_empty()).then(|| Chart {
            title: format!("{}, {} backend ({better})", measure.title(), place(at)),
            unit: "× plain routing".to_owned(),
            goal: goal.map(|goal| (goal.ratio, format!("goal {}", goal.ratio))),
            limit: (!measure.is_rate()).then_some(4.0),
            groups,
        })
    }
}

fn frame_table(unit: &str, rates: &[FrameRate]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["program", "frames/s", "ns/frame", unit]);
    for rate in rates {
        let frames = format!("{:.2} M", rate.value.median / 1e6);
        let nanoseconds = format!("{:.0}", rate.nanoseconds());
        table.add_row([rate.program, &frames, &nanoseconds, &rate.ratio.text(2)]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn frame_chart(title: &str, unit: &str, rates: &[FrameRate]) -> Chart {
    let bar = |rate: &FrameRate| {
        let is_ours = rate.program == FrameRate::OURS;
        Bar {
            name: format!("{} ({:.2} M/s)", rate.program, rate.value.median / 1e6),
            tone: if is_ours { Tone::Ours } else { Tone::Reference },
            value: rate.ratio,
            goal: is_ours.then_some(FrameRate::GOAL),
        }
    };
    Chart {
        title: format!("{title}: live frames over a veth, one CPU (more is better)"),
        unit: unit.to_owned(),
        goal: None,
        limit: None,
        groups: vec![Group { name: String::new(), bars: rates.iter().map(bar).collect() }],
    }
}

fn bar(figure: &Figure) -> Bar {
    let Way { setup, services, .. } = figure.way;
    let (name, tone) = match (setup, services) {
        (Setup::Routing, _) => {
            let value = in_unit(figure.measure, figure.value.median);
            (format!("plain routing ({value})"), Tone::Reference)
        }
        (Setup::Nodeport, services) => (named(setup, services), Tone::Ours),
        (_, services) => (named(setup, services), Tone::Peer),
    };
    Bar { name, tone, value: figure.ratio, goal: None }
}

fn named(setup: Setup, services: u32) -> String {
    let plural = if services == 1 { "service" } else { "services" };
    format!("{}, {} {plural}", setup.name(), thousands(services))
}

/// A value in the unit of its measure.
fn in_unit(measure: Measure, value: f64) -> String {
    match measure.is_rate() {
        true => format!("{:.0} /s", value),
        false => format!("{:.2} µs", value / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::goal::missed;
    use super::super::figures::Samples;
    use super::*;

    fn add(samples: &mut Samples, family: Family, routing: f64, ours: f64) {
        let reference = Way { setup: Setup::Routing, place: Place::Remote, services: 0, family };
        samples.add(Measure::LaterPacket, reference, routing);
        let way = Way { setup: Setup::Nodeport, services: 1, ..reference };
        samples.add(Measure::LaterPacket, way, ours);
    }

    fn report(ratio: f64) -> Found {
        let mut samples = Samples::default();
        add(&mut samples, Family::V4, 4_000.0, 4_000.0 * ratio);
        Found { traffic: samples.figures(), frames: Frames::default() }
    }

    #[test]
    fn a_goal_is_missed_or_reached_by_the_ratio() {
        let missed = |ratio| missed(&report(ratio).verdicts());
        assert_eq!((missed(0.96), missed(0.94)), (1, 0));
        assert_eq!(report(0.94).verdicts().len(), 1);
    }

    #[test]
    fn ipv6_is_held_against_ipv4() {
        let missed = |ours| {
            let mut samples = Samples::default();
            add(&mut samples, Family::V4, 4_000.0, 3_600.0);
            add(&mut samples, Family::V6, 5_000.0, ours);
            let report = Found { traffic: samples.figures(), frames: Frames::default() };
            assert_eq!(report.verdicts().len(), 2);
            assert_eq!(report.chart(Measure::LaterPacket, Place::Remote).unwrap().groups.len(), 2);
            missed(&report.verdicts())
        };
        assert_eq!((missed(4_500.0), missed(4_501.0)), (0, 1));
    }

    #[test]
    fn tables_have_the_reference_in_its_unit_and_others_as_ratios() {
        let text = report(0.94).table(&[Measure::LaterPacket]).to_string();
        assert!(text.contains("4.00 µs") && text.contains("0.94 (0.94–0.94)"), "{text}");
    }

    #[test]
    fn a_chart_has_every_way_and_the_goal() {
        let chart = report(0.94).chart(Measure::LaterPacket, Place::Remote).unwrap();
        assert_eq!(chart.groups[0].bars.len(), 2);
        assert_eq!(chart.goal.unwrap().0, 0.95);
        assert!(report(1.0).chart(Measure::UdpRate, Place::Remote).is_none());
    }
}
