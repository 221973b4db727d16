//! How much of a CPU a census takes, and how often.

use std::time::Duration;

/// Ports are counted no more often than this, and nothing is where nobody wants to know loads.
const SLOW_ROUND: Duration = Duration::from_secs(2);
/// After each step the thread rests for so many times what the step took: it takes a twentieth of a CPU.
const SLOW_REST: u32 = 19;
/// From one count of loads to the next, at least.
const QUICK_REST: Duration = Duration::from_secs(1);
/// And so many times what the walk took: it takes a tenth of a CPU at most.
const QUICK_RESTS: u32 = 9;

/// How fast it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Some service chooses by loads: in one go, so that what is counted is of one instant, more or less.
    Quick,
    /// None does: a step at a time.
    Slow,
}

impl Pace {
    /// The rest after a step that took so long.
    pub(super) const fn after_step(self, took: Duration) -> Duration {
        match self {
            Self::Quick => Duration::ZERO,
            Self::Slow => took.saturating_mul(SLOW_REST),
        }
    }

    /// The rest after a walk that worked for `worked`, and began `elapsed` ago.
    pub(super) fn after_round(self, worked: Duration, elapsed: Duration) -> Duration {
        match self {
            Self::Quick => QUICK_REST.max(worked.saturating_mul(QUICK_RESTS)),
            Self::Slow => SLOW_ROUND.saturating_sub(elapsed),
        }
    }
}

/// Whether ports are to be counted by a walk that begins so long after the last one that did.
pub(super) fn is_due(since: Option<Duration>) -> bool {
    since.is_none_or(|since| since >= SLOW_ROUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_walk_takes_a_twentieth_of_a_cpu() {
        let (took, pace) = (3 * MS, Pace::Slow);
        assert_eq!(pace.after_step(took) + took, 20 * took);
        assert_eq!(pace.after_round(took, 500 * MS), 1_500 * MS, "a round takes two seconds");
        assert_eq!(pace.after_round(took, 5_000 * MS), Duration::ZERO);
        assert_eq!(pace.after_step(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn a_quick_walk_goes_in_one_go_and_takes_a_tenth_at_most() {
        let pace = Pace::Quick;
        assert_eq!(pace.after_step(3 * MS), Duration::ZERO);
        assert_eq!(pace.after_round(MS, MS), 1_000 * MS);
        assert_eq!(pace.after_round(500 * MS, 500 * MS), 4_500 * MS);
        // It began as a slow one: what it rested is not what it took.
        assert_eq!(pace.after_round(100 * MS, 2_000 * MS), 1_000 * MS);
    }

    #[test]
    fn ports_are_counted_every_other_second_at_most() {
        let cases = [(None, true), (Some(1_999), false), (Some(2_000), true)];
        for (since, expected) in cases {
            assert_eq!(is_due(since.map(|ms| ms * MS)), expected, "{since:?}");
        }
    }
}
