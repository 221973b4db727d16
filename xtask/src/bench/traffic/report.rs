//! Figures as tables, as JSON, as charts, and beside their goals.

use std::collections::BTreeSet;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::super::chart::{Bar, Chart, Group, Tone, thousands};
use super::super::goal::{Bound, Verdict};
use super::super::output::{Report, Svg};
use super::figures::Figure;
use super::frames::FrameRate;
use super::measure::{GOALS, Goal, Measure, Setup, Way, place};
use crate::lab::Place;

/// All that a run has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Found {
    /// Ways to the backend.
    pub traffic: Vec<Figure>,
    /// Frames that XDP sends.
    pub frames: Vec<FrameRate>,
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
        if !self.frames.is_empty() {
            println!("\nframes that XDP sends over a veth, one processor\n{}", self.frame_table());
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let of_frames = self.frames.iter().filter(|rate| rate.program == FrameRate::OURS);
        let of_frames = of_frames.map(|rate| {
            let bound = Bound::AtLeast(FrameRate::GOAL);
            Verdict::new("XDP_TX frames/s".to_owned(), bound, "× empty program", rate.ratio)
        });
        GOALS.iter().filter_map(|goal| self.verdict(goal)).chain(of_frames).collect()
    }

    fn charts(&self) -> Result<Vec<Svg>> {
        let mut charts = Vec::new();
        for (measure, at) in Measure::ALL.into_iter().flat_map(|m| PLACES.map(|at| (m, at))) {
            if let Some(chart) = self.chart(measure, at) {
                let name = format!("traffic-{}-{}.svg", measure.slug(), place(at));
                charts.push(Svg { name, text: chart.svg()? });
            }
        }
        if let Some(chart) = self.frame_chart() {
            charts.push(Svg { name: "traffic-frames.svg".to_owned(), text: chart.svg()? });
        }
        Ok(charts)
    }
}

impl Found {
    /// A goal, if it was measured.
    fn verdict(&self, goal: &Goal) -> Option<Verdict> {
        let Goal { measure, place, services, .. } = *goal;
        let way = Way { setup: Setup::Nodeport, place, services };
        let figure = self.figure(measure, way)?;
        let what = format!("{}, {way}", measure.title());
        Some(Verdict::new(what, goal.bound(), "× plain routing", figure.ratio))
    }

    fn table(&self, measures: &[Measure]) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let heads = measures.iter().map(|measure| measure.title().to_owned());
        let fixed = ["backend", "by", "services"].map(str::to_owned);
        table.set_header(fixed.into_iter().chain(heads));
        for way in self.ways() {
            let cells = measures.iter().map(|measure| self.cell(*measure, way));
            let services =
                if way.services == 0 { "–".to_owned() } else { way.services.to_string() };
            let names = [place(way.place).to_owned(), way.setup.name().to_owned(), services];
            table.add_row(names.into_iter().chain(cells));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn frame_table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["program", "frames/s", "× empty"]);
        for FrameRate { program, value, ratio, .. } in &self.frames {
            let rate = format!("{:.2} M", value.median / 1e6);
            table.add_row([(*program).to_owned(), rate, ratio.text(2)]);
        }
        table
    }

    /// Every way, remote backends first.
    fn ways(&self) -> Vec<Way> {
        let ways: BTreeSet<_> =
            self.traffic.iter().map(|f| (f.way.place, f.way.setup, f.way.services)).collect();
        ways.into_iter().map(|(place, setup, services)| Way { setup, place, services }).collect()
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
        let figures = self.ways().into_iter().filter(|way| way.place == at);
        let bars: Vec<Bar> = figures.filter_map(|way| self.figure(measure, way)).map(bar).collect();
        let goal = GOALS.iter().find(|goal| goal.measure == measure && goal.place == at);
        let better = if measure.is_rate() { "more is better" } else { "less is better" };
        (!bars.is_empty()).then(|| Chart {
            title: format!("{}, {} backend ({better})", measure.title(), place(at)),
            unit: "× plain routing".to_owned(),
            goal: goal.map(|goal| (goal.ratio, format!("goal {}", goal.ratio))),
            limit: (!measure.is_rate()).then_some(4.0),
            groups: vec![Group { name: String::new(), bars }],
        })
    }

    fn frame_chart(&self) -> Option<Chart> {
        let bar = |rate: &FrameRate| {
            let FrameRate { program, value, ratio, .. } = rate;
            let tone = match *program {
                FrameRate::OURS => Tone::Ours,
                _ => Tone::Reference,
            };
            let name = format!("{program} ({:.2} M/s)", value.median / 1e6);
            Bar { name, tone, value: *ratio, goal: None }
        };
        let bars: Vec<Bar> = self.frames.iter().map(bar).collect();
        (!bars.is_empty()).then(|| Chart {
            title: "frames that XDP sends, one CPU (more is better)".to_owned(),
            unit: "× empty program".to_owned(),
            goal: Some((FrameRate::GOAL, format!("goal {}", FrameRate::GOAL))),
            limit: None,
            groups: vec![Group { name: String::new(), bars }],
        })
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

    fn report(ratio: f64) -> Found {
        let mut samples = Samples::default();
        let routing = Way { setup: Setup::Routing, place: Place::Remote, services: 0 };
        let ours = Way { setup: Setup::Nodeport, services: 1, ..routing };
        samples.add(Measure::LaterPacket, routing, 4_000.0);
        samples.add(Measure::LaterPacket, ours, 4_000.0 * ratio);
        Found { traffic: samples.figures(), frames: Vec::new() }
    }

    #[test]
    fn a_goal_is_missed_or_reached_by_the_ratio() {
        let missed = |ratio| missed(&report(ratio).verdicts());
        assert_eq!((missed(0.96), missed(0.94)), (1, 0));
        assert_eq!(report(0.94).verdicts().len(), 1);
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
