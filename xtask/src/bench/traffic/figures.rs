//! Rounds become ratios, ratios become figures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::spread::Spread;
use super::measure::{Measure, Way};

/// What all rounds gave, by measure and way, in the order of the rounds.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<(Measure, Way), Vec<f64>>);

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
    /// The rounds' values, in their order.
    #[serde(skip)]
    pub samples: Vec<f64>,
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
            let (value, ratio) = (Spread::of(values)?, Spread::of_ratios(values, reference)?);
            let unsteady = ratio.is_unsteady();
            let samples = values.clone();
            Some(Figure { measure: *measure, way: *way, value, ratio, unsteady, samples })
        };
        self.0.iter().filter_map(figure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::{Family, Setup};
    use super::*;
    use crate::lab::Place;

    const ROUTING: Way =
        Way { setup: Setup::Routing, place: Place::Remote, services: 0, family: Family::V4 };
    const OURS: Way =
        Way { setup: Setup::Nodeport, place: Place::Remote, services: 1, family: Family::V4 };

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
    fn without_a_reference_there_is_no_figure() {
        let mut alone = Samples::default();
        alone.add(Measure::UdpRate, OURS, 1.0);
        assert!(alone.figures().is_empty());
    }
}
