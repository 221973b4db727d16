//! What shall be reached, beside what was measured.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::spread::Spread;

/// Where a figure must lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Bound {
    /// No higher.
    AtMost(f64),
    /// No lower.
    AtLeast(f64),
}

impl Bound {
    /// The bound itself.
    pub(super) const fn value(self) -> f64 {
        match self {
            Self::AtMost(value) | Self::AtLeast(value) => value,
        }
    }

    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::AtMost(_) => "≤",
            Self::AtLeast(_) => "≥",
        }
    }
}

/// A goal and what was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    /// Of what: `later packets, one CPU, remote backend, 1 service`.
    pub what: String,
    /// Where the figure must lie.
    pub bound: Bound,
    /// The unit of both: `× plain routing`, `ms`.
    pub unit: String,
    /// What was measured.
    pub measured: Spread,
    /// Whether the median is within the bound.
    pub reached: bool,
    /// Whether the rounds differ too much to tell small differences.
    pub unsteady: bool,
}

impl Verdict {
    /// Holds the median against the bound.
    pub(super) fn new(what: String, bound: Bound, unit: &str, measured: Spread) -> Self {
        let (reached, unsteady) = (bound.is_met(measured.median), measured.is_unsteady());
        Self { what, bound, unit: unit.to_owned(), measured, reached, unsteady }
    }

    fn word(&self) -> &'static str {
        if self.reached { "reached" } else { "MISSED" }
    }
}

/// How many goals are missed.
pub(super) fn missed(verdicts: &[Verdict]) -> usize {
    verdicts.iter().filter(|verdict| !verdict.reached).count()
}

/// All goals with what was measured; `~` is unsteady.
pub(super) fn table(verdicts: &[Verdict]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["goal", "", "measured", "unit", ""]);
    for verdict in verdicts {
        let Verdict { what, bound, unit, measured, .. } = verdict;
        let bound = format!("{} {}", bound.sign(), trimmed(bound.value()));
        table.add_row([what, &bound, &measured.text(2), unit, verdict.word()]);
    }
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Two digits behind the point, if they say something.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(bound: Bound, samples: &[f64]) -> Verdict {
        Verdict::new("a packet".to_owned(), bound, "ms", Spread::of(samples).unwrap())
    }

    #[test]
    fn the_median_decides_and_the_bound_itself_is_within() {
        for (bound, samples, reached) in [
            (Bound::AtMost(0.95), [0.9, 0.95, 2.0], true),
            (Bound::AtMost(0.95), [0.1, 0.96, 0.97], false),
            (Bound::AtLeast(1.02), [0.5, 1.02, 1.1], true),
            (Bound::AtLeast(1.02), [1.0, 1.01, 9.0], false),
        ] {
            assert_eq!(verdict(bound, &samples).reached, reached, "{bound:?} {samples:?}");
        }
    }

    #[test]
    fn missed_goals_are_counted_and_shouted() {
        let both = [verdict(Bound::AtMost(5.0), &[6.0]), verdict(Bound::AtLeast(5.0), &[6.0])];
        assert_eq!(missed(&both), 1);
        let text = table(&both).to_string();
        for word in ["≤ 5", "≥ 5", "6.00 (6.00–6.00)", "ms", "MISSED", "reached"] {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
    }

    #[test]
    fn json_has_the_bound_and_the_verdict() {
        let value = serde_json::to_value(verdict(Bound::AtMost(5.0), &[6.0, 8.0, 7.0])).unwrap();
        assert_eq!(value["bound"]["at-most"], 5.0);
        assert_eq!(value["measured"]["median"], 7.0);
        assert_eq!(value["reached"], false);
    }

    #[test]
    fn bounds_have_no_more_digits_than_they_need() {
        assert_eq!([0.88, 1.1, 500.0, 1.818].map(trimmed), ["0.88", "1.1", "500", "1.82"]);
    }
}
