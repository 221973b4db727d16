//! Rounds become ratios, ratios become figures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::{Measure, Way};

/// What all rounds gave, by measure and way, in the order of the rounds.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<(Measure, Way), Vec<f64>>);

/// A middle and a spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
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

/// One measure of one way.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// What was measured.
    pub measure: Measure,
    /// Of which way.
    #[serde(flatten)]
    pub way: Way,
    /// The rounds' values, in the measure's own unit.
    pub value: Spread,
    /// The rounds' ratios, each to plain routing in the same round.
    pub ratio: Spread,
    /// Whether the rounds differ too much to tell small differences.
    pub unsteady: bool,
}

/// A middle half of the rounds wider than this share of the median is unsteady.
const STEADY: f64 = 0.10;

/// Whether rounds differ too much to tell small differences.
pub(super) fn unsteady(ratio: &Spread) -> bool {
    ratio.upper - ratio.lower > STEADY * ratio.median
}

impl Samples {
    /// Adds what a round gave.
    pub(super) fn add(&mut self, measure: Measure, way: Way, value: f64) {
        self.0.entry((measure, way)).or_default().push(value);
    }

    /// Figures of all that has a reference.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let figure = |((measure, way), values): (&(Measure, Way), &Vec<f64>)| {
            let reference = self.0.get(&(*measure, way.reference()))?;
            let ratios: Vec<f64> = values.iter().zip(reference).map(|(a, b)| a / b).collect();
            let (value, ratio) = (Spread::of(values)?, Spread::of(&ratios)?);
            let unsteady = unsteady(&ratio);
            Some(Figure { measure: *measure, way: *way, value, ratio, unsteady })
        };
        self.0.iter().filter_map(figure).collect()
    }
}

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
    use super::super::measure::Setup;
    use super::*;
    use crate::lab::Place;

    const ROUTING: Way = Way { setup: Setup::Routing, place: Place::Remote, services: 0 };
    const OURS: Way = Way { setup: Setup::Nodeport, place: Place::Remote, services: 1 };

    fn samples(ours: &[f64], routing: &[f64]) -> Samples {
        let mut samples = Samples::default();
        for (way, values) in [(OURS, ours), (ROUTING, routing)] {
            values.iter().for_each(|value| samples.add(Measure::LaterPacket, way, *value));
        }
        samples
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine is twice as slow in two rounds: the ratio does not notice.
        let figures = samples(&[90.0, 180.0, 180.0, 90.0], &[100.0, 200.0, 200.0, 100.0]).figures();
        let ours = figures.iter().find(|figure| figure.way == OURS).unwrap();
        assert_eq!((ours.ratio.low, ours.ratio.median, ours.ratio.high), (0.9, 0.9, 0.9));
        assert!(!ours.unsteady);
        assert_eq!(ours.value.median, 135.0);
    }

    #[test]
    fn one_outlier_is_no_unsteadiness_but_a_wide_middle_is() {
        let steady = samples(&[1.0, 1.0, 9.0, 1.0, 1.0], &[1.0; 5]).figures();
        assert!(steady.iter().all(|figure| !figure.unsteady));
        let wide = samples(&[1.0, 1.3, 0.7, 1.2, 0.8], &[1.0; 5]).figures();
        assert!(wide.iter().any(|figure| figure.way == OURS && figure.unsteady));
    }

    #[test]
    fn without_a_reference_there_is_no_figure() {
        let mut alone = Samples::default();
        alone.add(Measure::UdpRate, OURS, 1.0);
        assert!(alone.figures().is_empty());
    }

    #[test]
    fn quantiles_lie_between_values() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&sorted, 0.5), Some(2.5));
        assert_eq!(quantile(&sorted, 1.0), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
