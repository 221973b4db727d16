//! Bar charts: a bar for a median, a whisker from the lowest round to the highest, a line for the
//! goal.

use anyhow::{Context as _, Result, ensure};
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::element::{PathElement, Rectangle, Text};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, FontStyle, RGBColor, WHITE};

use super::super::spread::Spread;
use super::{Area, DrawError, GRID, INK, OURS, font, svg};

/// A chart of groups of bars, one below the other.
#[derive(Clone, Debug)]
pub(in super::super) struct Chart {
    /// Its heading.
    pub title: String,
    /// What the axis shows: `× plain routing`, `ns per packet`.
    pub unit: String,
    /// The goal line's place and name, if all bars have the same.
    pub goal: Option<(f64, String)>,
    /// Where the axis ends. Longer bars are cut there, and marked; their figures are whole. Without
    /// it the axis ends behind the longest bar.
    pub limit: Option<f64>,
    /// The groups, from above.
    pub groups: Vec<Group>,
}

/// Bars that belong together.
#[derive(Clone, Debug)]
pub(in super::super) struct Group {
    /// What they share: `10,000 services`. Without it there is no row for it.
    pub name: String,
    /// The bars, from above.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug)]
pub(in super::super) struct Bar {
    /// What was measured.
    pub name: String,
    /// Its colour.
    pub tone: Tone,
    /// What the rounds gave.
    pub value: Spread,
    /// Its own goal.
    pub goal: Option<f64>,
}

/// Which side a bar is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Tone {
    /// This project.
    Ours,
    /// Others that do the same work.
    Peer,
    /// What both are held against.
    Reference,
}

impl Tone {
    const fn colour(self) -> RGBColor {
        match self {
            Self::Ours => OURS,
            Self::Peer => RGBColor(0xd9, 0x9a, 0x4e),
            Self::Reference => RGBColor(0x9a, 0xa0, 0xa6),
        }
    }
}

const WIDTH: u32 = 900;
/// Height of a row: a bar, or a group's name.
const ROW: u32 = 24;
const TITLE: u32 = 40;
const AXIS: u32 = 50;
/// Room for the names.
const NAMES: u32 = 270;
/// Room for the figure behind the longest bar.
const FIGURES: u32 = 80;
const GOAL: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Chart {
    /// The chart as the text of an SVG file.
    ///
    /// # Errors
    /// If there is nothing to show, or a figure cannot be drawn.
    pub(in super::super) fn svg(&self) -> Result<String> {
        self.check().with_context(|| format!("draw the chart {:?}", self.title))?;
        svg((WIDTH, TITLE + AXIS + self.rows() * ROW), |area| self.draw(area))
    }

    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.groups.iter().flat_map(|group| &group.bars)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.bars().next().is_some(), "it has no bars");
        for Bar { name, value: Spread { low, median, high, .. }, .. } in self.bars() {
            let real = [median, low, high].iter().all(|value| value.is_finite() && **value >= 0.0);
            ensure!(real && low <= high, "{name}: {median} ({low} to {high}) cannot be drawn");
        }
        Ok(())
    }

    /// One row for each bar and each group's name.
    fn rows(&self) -> u32 {
        let rows = |group: &Group| group.bars.len() as u32 + u32::from(!group.name.is_empty());
        self.groups.iter().map(rows).sum()
    }

    /// Where the axis ends.
    fn end(&self) -> f64 {
        let longest = self.bars().map(|bar| bar.value.high).fold(0.0, f64::max);
        let of_all = self.goal.as_ref().map(|(value, _)| *value);
        let goals = self.bars().filter_map(|bar| bar.goal).chain(of_all);
        let whole = goals.fold(longest, f64::max) * 1.02;
        self.limit.map_or(whole, |limit| limit.min(whole)).max(f64::MIN_POSITIVE)
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), DrawError> {
        let heading = font(17, FontStyle::Bold, HPos::Left);
        area.draw(&Text::new(self.title.clone(), (14, TITLE as i32 / 2), heading))?;
        let mut plot = ChartBuilder::on(area)
            .margin_top(TITLE)
            .margin_left(NAMES)
            .margin_right(FIGURES)
            .x_label_area_size(AXIS)
            .build_cartesian_2d(0.0..self.end(), f64::from(self.rows())..0.0)?;
        plot.configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(8)
            .x_label_formatter(&|value| short(*value))
            .x_desc(self.unit.clone())
            .draw()?;
        let mut row = 0.0;
        for group in &self.groups {
            if !group.name.is_empty() {
                label(area, &plot, row, &group.name, FontStyle::Bold)?;
                row += 1.0;
            }
            for bar in &group.bars {
                self.draw_bar(area, &mut plot, row, bar)?;
                row += 1.0;
            }
        }
        self.draw_goal(area, &mut plot)
    }

    fn draw_bar(
        &self,
        area: &Area<'_>,
        plot: &mut Plot<'_, '_>,
        row: f64,
        bar: &Bar,
    ) -> Result<(), DrawError> {
        label(area, plot, row, &bar.name, FontStyle::Normal)?;
        let cut = |value: f64| value.min(self.end());
        let Spread { low, median, high, .. } = bar.value;
        let corners = [(0.0, row + 0.15), (cut(median), row + 0.85)];
        let whisker = [(cut(low), row + 0.5), (cut(high), row + 0.5)];
        let ends = whisker.map(|(x, y)| vec![(x, y - 0.18), (x, y + 0.18)]);
        plot.draw_series([Rectangle::new(corners, bar.tone.colour().filled())])?;
        plot.draw_series(
            [whisker.to_vec()]
                .into_iter()
                .chain(ends)
                .map(|line| PathElement::new(line, INK.stroke_width(1))),
        )?;
        if let Some(goal) = bar.goal {
            let line = vec![(cut(goal), row), (cut(goal), row + 1.0)];
            plot.draw_series([PathElement::new(line, GOAL.stroke_width(3))])?;
        }
        let end = cut(high.max(bar.goal.unwrap_or(0.0)));
        let (x, y) = plot.backend_coord(&(end, row + 0.5));
        let mark = if median > self.end() { "▸ " } else { "" };
        let figure = format!("{mark}{}", short(median));
        area.draw(&Text::new(figure, (x + 7, y), font(13, FontStyle::Bold, HPos::Left)))
    }

    fn draw_goal(&self, area: &Area<'_>, plot: &mut Plot<'_, '_>) -> Result<(), DrawError> {
        let Some((value, name)) = &self.goal else { return Ok(()) };
        let line = vec![(*value, 0.0), (*value, f64::from(self.rows()))];
        plot.draw_series([PathElement::new(line, GOAL.stroke_width(2))])?;
        let (x, y) = plot.backend_coord(&(*value, 0.0));
        let style = font(13, FontStyle::Normal, HPos::Center).color(&GOAL);
        area.draw(&Text::new(name.clone(), (x, y - 8), style))
    }
}

/// A name left of the axis.
fn label(
    area: &Area<'_>,
    plot: &Plot<'_, '_>,
    row: f64,
    name: &str,
    style: FontStyle,
) -> Result<(), DrawError> {
    let (x, y) = plot.backend_coord(&(0.0, row + 0.5));
    area.draw(&Text::new(name.to_owned(), (x - 8, y), font(13, style, HPos::Right)))
}

/// Three digits, as far as they say something.
fn short(value: f64) -> String {
    match value {
        value if value >= 1_000_000.0 => format!("{:.2} M", value / 1_000_000.0),
        value if value >= 10_000.0 => format!("{:.1} k", value / 1_000.0),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(medians: &[f64]) -> Chart {
        let bar = |median: &f64| Bar {
            name: format!("bar {median}"),
            tone: Tone::Ours,
            value: Spread::of(&[median * 0.9, *median, median * 1.1]).unwrap(),
            goal: None,
        };
        let bars = medians.iter().map(bar).collect();
        let group = Group { name: "1 service".to_owned(), bars };
        Chart {
            title: "Later packets".to_owned(),
            unit: "× plain routing".to_owned(),
            goal: Some((0.95, "goal 0.95".to_owned())),
            limit: Some(4.0),
            groups: vec![group],
        }
    }

    /// The widths of all bars of that colour.
    fn widths(svg: &str, tone: Tone) -> Vec<f64> {
        let colour = tone.colour();
        let fill = format!("fill=\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
        let bars = svg.lines().filter(|line| line.starts_with("<rect") && line.contains(&fill));
        let width = |line: &str| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok();
        bars.filter_map(width).collect()
    }

    #[test]
    fn every_bar_its_name_its_figure_and_the_goal_are_there() {
        let svg = chart(&[0.93, 1.85]).svg().unwrap();
        for text in ["Later packets", "1 service", "bar 0.93", "0.93", "1.85", "goal 0.95"] {
            assert!(svg.contains(text), "{text} is not in\n{svg}");
        }
        assert!(svg.contains("× plain routing") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn bars_are_as_long_as_their_figures() {
        let widths = widths(&chart(&[1.0, 3.0]).svg().unwrap(), Tone::Ours);
        assert!((widths[1] / widths[0] - 3.0).abs() < 0.05, "{widths:?}");
    }

    #[test]
    fn a_bar_beyond_the_limit_is_cut_and_says_so() {
        let svg = chart(&[1.0, 52.0]).svg().unwrap();
        let widths = widths(&svg, Tone::Ours);
        assert!((widths[1] / widths[0] - 4.0).abs() < 0.05, "{widths:?}");
        assert!(svg.contains("▸ 52.0"));
    }

    #[test]
    fn the_goal_of_one_bar_is_marked_in_its_row() {
        let mark = |svg: &str| svg.matches("stroke=\"#C0392B\"").count();
        let mut chart = Chart { goal: None, ..chart(&[1.0, 2.0]) };
        assert_eq!(mark(&chart.svg().unwrap()), 0);
        chart.groups[0].bars[1].goal = Some(3.0);
        assert_eq!(mark(&chart.svg().unwrap()), 1);
        assert!(chart.end() > 3.0);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        assert!(chart(&[]).svg().is_err());
        assert!(chart(&[f64::NAN]).svg().is_err());
        assert!(chart(&[f64::INFINITY]).svg().is_err());
    }

    #[test]
    fn figures_have_three_digits() {
        let texts = [0.934, 52.34, 321.4, 16_812.0, 2_934_000.0].map(short);
        assert_eq!(texts, ["0.93", "52.3", "321", "16.8 k", "2.93 M"]);
    }
}
