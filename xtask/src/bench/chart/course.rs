//! What something reached over time, with the spans in which something else was going on.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use plotters::chart::ChartBuilder;
use plotters::element::{EmptyElement, PathElement, Rectangle, Text};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, FontStyle, RGBColor, WHITE};

use super::{Area, DrawError, GRID, OURS, font, svg};

const SIZE: (u32, u32) = (1_000, 380);
const TITLE: i32 = 70;
/// Spans of the same kind have the same colour.
const SHADES: [RGBColor; 4] = [
    RGBColor(0xf4, 0xf5, 0xf6),
    RGBColor(0xe0, 0xe3, 0xe6),
    RGBColor(0xf3, 0xdd, 0xb8),
    RGBColor(0xcf, 0xe3, 0xf3),
];

/// A line over seconds.
#[derive(Clone, Debug)]
pub(in super::super) struct Course {
    /// Its heading.
    pub title: String,
    /// What the line shows.
    pub unit: String,
    /// Seconds, and what was reached then.
    pub points: Vec<(f64, f64)>,
    /// What else was going on.
    pub spans: Vec<Span>,
}

/// A time in which something was going on.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Span {
    /// What it was.
    pub name: &'static str,
    /// Its kind, from 0, for its colour.
    pub kind: usize,
    /// First and last second.
    pub seconds: (f64, f64),
}

impl Span {
    fn colour(&self) -> RGBColor {
        SHADES[self.kind % SHADES.len()]
    }
}

impl Course {
    /// The chart as the text of an SVG file.
    ///
    /// # Errors
    /// If there is nothing to show.
    pub(in super::super) fn svg(&self) -> Result<String> {
        let Self { title, points, spans, .. } = self;
        ensure!(!points.is_empty() && !spans.is_empty(), "the chart {title:?} has nothing to show");
        svg(SIZE, |area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), DrawError> {
        let heading = font(17, FontStyle::Bold, HPos::Left);
        area.draw(&Text::new(self.title.clone(), (14, 20), heading))?;
        self.draw_legend(area)?;
        let top = self.points.iter().map(|point| point.1).fold(1.0, f64::max) * 1.05;
        let end = self.spans.iter().map(|span| span.seconds.1).fold(0.0, f64::max);
        let mut plot = ChartBuilder::on(area)
            .margin_top(TITLE)
            .margin_right(20)
            .x_label_area_size(45)
            .y_label_area_size(75)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        plot.draw_series(self.spans.iter().map(|span| {
            let (from, to) = span.seconds;
            Rectangle::new([(from, 0.0), (to, top)], span.colour().filled())
        }))?;
        plot.configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE.mix(0.0))
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(("sans-serif", 15))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_desc(self.unit.clone())
            .x_desc("seconds")
            .draw()?;
        let points = self.points.iter().copied().filter(|point| point.0 < end);
        let line = PathElement::new(points.collect::<Vec<_>>(), OURS.stroke_width(2));
        plot.draw_series([line]).map(|_| ())
    }

    /// What went on, beside its colour.
    fn draw_legend(&self, area: &Area<'_>) -> Result<(), DrawError> {
        let kinds: BTreeMap<usize, &Span> =
            self.spans.iter().map(|span| (span.kind, span)).collect();
        for (span, x) in kinds.into_values().zip((14..).step_by(220)) {
            let element = EmptyElement::at((x, 48))
                + Rectangle::new([(0, -8), (22, 8)], span.colour().filled())
                + Text::new(span.name, (30, 0), font(16, FontStyle::Normal, HPos::Left));
            area.draw(&element)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_on_is_named_once_and_nothing_else_is() {
        let span = |kind, name, from| Span { name, kind, seconds: (from, from + 2.0) };
        let spans = vec![span(0, "quiet", 0.0), span(3, "storm", 2.0), span(0, "quiet", 4.0)];
        let points = (0..60).map(|n| (f64::from(n) * 0.1, 1_000.0)).collect();
        let (title, unit) = ("Weather".to_owned(), "steps a second".to_owned());
        let svg = Course { title, unit, points, spans }.svg().unwrap();
        for text in ["Weather", "steps a second", "storm", "seconds"] {
            assert!(svg.contains(text), "{text} is not in\n{svg}");
        }
        assert_eq!(svg.matches("quiet").count(), 1);
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn nothing_is_refused() {
        let empty = Course {
            title: "Empty".to_owned(),
            unit: String::new(),
            points: Vec::new(),
            spans: Vec::new(),
        };
        assert!(empty.svg().unwrap_err().to_string().contains("Empty"));
    }
}
