//! Charts as SVG, all in one hand.

mod bars;
mod course;

pub(super) use bars::{Bar, Chart, Group, Tone};
pub(super) use course::{Course, Span};

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, IntoTextStyle as _, RGBColor, TextStyle, WHITE};

const INK: RGBColor = RGBColor(0x20, 0x24, 0x28);
const GRID: RGBColor = RGBColor(0xe3, 0xe5, 0xe8);
const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawError = DrawingAreaErrorKind<std::io::Error>;

/// The text of an SVG file of that size, with what is drawn on white.
fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>) -> Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    let drawn = area.fill(&WHITE).and_then(|()| draw(&area)).and_then(|()| area.present());
    drawn.map_err(|error| anyhow!("{error}"))?;
    drop(area);
    Ok(text)
}

fn font(size: u32, style: FontStyle, side: HPos) -> TextStyle<'static> {
    // Sizes are in pixels: those of the area have no say.
    let style = ("sans-serif", size, style).into_text_style(&(0, 0));
    style.color(&INK).pos(Pos::new(side, VPos::Center))
}

/// With a comma between thousands.
pub(super) fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let parts = digits.as_bytes().rchunks(3).rev();
    parts.map(String::from_utf8_lossy).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_have_a_comma() {
        assert_eq!([1, 999, 1_000, 10_000].map(thousands), ["1", "999", "1,000", "10,000"]);
        assert_eq!(thousands(1_048_576), "1,048,576");
    }
}
