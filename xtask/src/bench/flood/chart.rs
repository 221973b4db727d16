//! What the live connections reached, over time, as SVG.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _};
use plotters::element::{EmptyElement, PathElement, Rectangle, Text};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoTextStyle as _, RGBColor, TextStyle, WHITE};

use super::phase::Phase;
use super::scene::Goal;
use crate::lab::client::Exchange;

const SIZE: (u32, u32) = (1_000, 380);
const TITLE: i32 = 70;
/// Exchanges are counted in steps of so many microseconds.
const STEP: u32 = 250_000;
const INK: RGBColor = RGBColor(0x20, 0x24, 0x28);
const GRID: RGBColor = RGBColor(0xe3, 0xe5, 0xe8);
const LINE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);

const fn colour(goal: Goal) -> RGBColor {
    match goal {
        Goal::Nothing => RGBColor(0xf4, 0xf5, 0xf6),
        Goal::Dropped => RGBColor(0xe0, 0xe3, 0xe6),
        Goal::Routed => RGBColor(0xf3, 0xdd, 0xb8),
        Goal::NodePort => RGBColor(0xcf, 0xe3, 0xf3),
    }
}

/// A chart of one run.
pub(super) struct Chart<'a> {
    /// Its heading.
    pub title: String,
    /// What the connections did.
    pub exchanges: &'a [Exchange],
    /// The floods, in order.
    pub phases: &'a [Phase],
}

type DrawError = DrawingAreaErrorKind<std::io::Error>;

impl Chart<'_> {
    /// Writes it as an SVG file.
    ///
    /// # Errors
    /// If there is nothing to show, or the file cannot be written.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = self.svg().with_context(|| format!("draw {}", path.display()))?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    fn svg(&self) -> Result<String> {
        ensure!(!self.exchanges.is_empty() && !self.phases.is_empty(), "there is nothing to show");
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        self.draw(&area).map_err(|error| anyhow!("{error}"))?;
        drop(area);
        Ok(text)
    }

    /// Seconds and exchanges a second; the last step, which is not whole, is left out.
    fn points(&self) -> Vec<(f64, f64)> {
        let last = self.exchanges.last().map_or(0, |exchange| exchange.at / STEP);
        let mut counts = vec![0_u32; last as usize];
        for exchange in self.exchanges {
            if let Some(count) = counts.get_mut((exchange.at / STEP) as usize) {
                *count += 1;
            }
        }
        let seconds = f64::from(STEP) / 1e6;
        let point = |(index, count): (usize, u32)| {
            ((index as f64 + 0.5) * seconds, f64::from(count) / seconds)
        };
        (0..).zip(counts).map(point).collect()
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), DrawError> {
        let mut points = self.points();
        let top = points.iter().map(|point| point.1).fold(1.0, f64::max) * 1.05;
        let end = self.phases.iter().map(|phase| phase.span.1.as_secs_f64()).fold(0.0, f64::max);
        points.retain(|point| point.0 < end);
        area.fill(&WHITE)?;
        area.draw(&Text::new(self.title.clone(), (14, 20), font(22)))?;
        self.draw_legend(area)?;
        let mut plot = ChartBuilder::on(area)
            .margin_top(TITLE)
            .margin_right(20)
            .x_label_area_size(45)
            .y_label_area_size(75)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        plot.draw_series(self.phases.iter().map(|phase| {
            let (from, to) = (phase.span.0.as_secs_f64(), phase.span.1.as_secs_f64());
            Rectangle::new([(from, 0.0), (to, top)], colour(phase.goal).filled())
        }))?;
        plot.configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE.mix(0.0))
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(("sans-serif", 15))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_desc("exchanges a second")
            .x_desc("seconds")
            .draw()?;
        plot.draw_series([PathElement::new(points, LINE.stroke_width(2))])?;
        area.present()
    }

    /// The goals that there were, beside their colours.
    fn draw_legend(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), DrawError> {
        let goals: BTreeSet<Goal> = self.phases.iter().map(|phase| phase.goal).collect();
        for (goal, x) in goals.into_iter().zip((14..).step_by(220)) {
            let element = EmptyElement::at((x, 48))
                + Rectangle::new([(0, -8), (22, 8)], colour(goal).filled())
                + Text::new(goal.name(), (30, 0), font(16));
            area.draw(&element)?;
        }
        Ok(())
    }
}

fn font(size: u32) -> TextStyle<'static> {
    let style = ("sans-serif", size).into_text_style(&SIZE);
    style.color(&INK).pos(Pos::new(HPos::Left, VPos::Center))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Counts, Newcomers};
    use super::*;

    fn phase(goal: Goal, from: u64, to: u64) -> Phase {
        let span = (Duration::from_secs(from), Duration::from_secs(to));
        Phase { goal, span, sent: 0, counts: Counts::default(), newcomers: Newcomers::default() }
    }

    #[test]
    fn floods_that_there_were_are_named_and_others_not() {
        let exchanges: Vec<Exchange> =
            (0..4_000).map(|n| Exchange { at: n * 1_000, took: 1 }).collect();
        let phases = [phase(Goal::Nothing, 0, 2), phase(Goal::NodePort, 2, 4)];
        let chart = Chart { title: "Flood".to_owned(), exchanges: &exchanges, phases: &phases };
        let svg = chart.svg().unwrap();
        for text in ["Flood", Goal::Nothing.name(), Goal::NodePort.name(), "seconds"] {
            assert!(svg.contains(text), "{text} is not in\n{svg}");
        }
        assert!(!svg.contains(Goal::Routed.name()) && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn steps_count_what_ended_in_them() {
        let exchanges: Vec<Exchange> =
            (0..10).map(|n| Exchange { at: n * 100_000, took: 1 }).collect();
        let chart = Chart { title: String::new(), exchanges: &exchanges, phases: &[] };
        assert_eq!(chart.points(), [(0.125, 12.0), (0.375, 8.0), (0.625, 12.0)]);
        assert!(chart.svg().is_err());
    }
}
