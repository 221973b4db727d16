//! Rounds become a middle and a spread, and ratios to a reference of the same rounds.

use serde::Serialize;

/// A middle and a spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The lowest.
    pub low: f64,
    /// A quarter is below.
    pub lower: f64,
    /// The middle one.
    pub median: f64,
    /// A quarter is above.
    pub upper: f64,
    /// The highest.
    pub high: f64,
}

/// A middle half of the rounds wider than this share of the median is unsteady.
const STEADY: f64 = 0.10;

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&sorted, share);
        Some(Self {
            low: at(0.0)?,
            lower: at(0.25)?,
            median: at(0.5)?,
            upper: at(0.75)?,
            high: at(1.0)?,
        })
    }

    /// Of rounds' ratios, each to the reference in the same round: a change of the machine's speed
    /// meets both alike. `None` without a round that has both.
    pub(super) fn of_ratios(values: &[f64], reference: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = values.iter().zip(reference).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }

    /// Whether the rounds differ too much to tell small differences.
    pub(super) fn is_unsteady(&self) -> bool {
        self.upper - self.lower > STEADY * self.median
    }

    /// `0.95 (0.93–0.98)`, with `~` before it if it is unsteady.
    pub(super) fn text(&self, digits: usize) -> String {
        let Self { low, median, high, .. } = self;
        let mark = if self.is_unsteady() { "~" } else { "" };
        format!("{mark}{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}

/// The middle of some values.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

/// The value that a share of sorted ones does not exceed, between two of them where it falls there.
pub(super) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? as f64 * share.clamp(0.0, 1.0);
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine is twice as slow in two rounds: the ratio does not notice.
        let ratio = Spread::of_ratios(&[90.0, 180.0, 180.0, 90.0], &[100.0, 200.0, 200.0, 100.0]);
        let ratio = ratio.unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (0.9, 0.9, 0.9));
        assert!(!ratio.is_unsteady());
        assert_eq!(Spread::of_ratios(&[1.0], &[]), None);
    }

    #[test]
    fn one_outlier_is_no_unsteadiness_but_a_wide_middle_is() {
        assert!(!Spread::of(&[1.0, 1.0, 9.0, 1.0, 1.0]).unwrap().is_unsteady());
        assert!(Spread::of(&[1.0, 1.3, 0.7, 1.2, 0.8]).unwrap().is_unsteady());
    }

    #[test]
    fn quantiles_lie_between_values() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&sorted, 0.5), Some(2.5));
        assert_eq!(quantile(&sorted, 1.0), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn text_has_the_spread_and_marks_what_is_unsteady() {
        assert_eq!(Spread::of(&[0.95, 0.93, 0.984]).unwrap().text(2), "0.95 (0.93–0.98)");
        assert_eq!(Spread::of(&[1.0, 2.0, 3.0]).unwrap().text(0), "~2 (1–3)");
    }
}
