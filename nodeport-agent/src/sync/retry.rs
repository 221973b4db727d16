//! What failed, and when to try it again.

use std::time::{Duration, Instant};

use foldhash::HashMap;

use super::batch::Subject;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// What failed and has not succeeded since.
#[derive(Debug, Default)]
pub(super) struct Retries {
    waiting: HashMap<Subject, Retry>,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    failures: u32,
    at: Instant,
}

impl Retries {
    /// Notes a failure: the next try is twice as far away as the one before was.
    pub(super) fn failed(&mut self, subject: Subject, now: Instant) {
        let failures = self.waiting.get(&subject).map_or(0, |retry| retry.failures) + 1;
        let wait = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST);
        self.waiting.insert(subject, Retry { failures, at: now + wait });
    }

    /// Notes a success; returns whether it had failed before.
    pub(super) fn succeeded(&mut self, subject: &Subject) -> bool {
        self.waiting.remove(subject).is_some()
    }

    /// Whether it has failed and has not succeeded since.
    pub(super) fn has(&self, subject: &Subject) -> bool {
        self.waiting.contains_key(subject)
    }

    /// Whether it has failed and shall not be tried yet.
    pub(super) fn is_waiting(&self, subject: &Subject, now: Instant) -> bool {
        self.waiting.get(subject).is_some_and(|retry| retry.at > now)
    }

    /// What shall be tried again now.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = &Subject> {
        self.waiting.iter().filter(move |(_, retry)| retry.at <= now).map(|(subject, _)| subject)
    }

    /// When the next try is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|retry| retry.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_limit() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..12 {
            retries.failed(Subject::Leavings, now);
            waits.push((retries.next().unwrap() - now).as_millis());
        }
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 30_000);
        assert!(retries.is_waiting(&Subject::Leavings, now));
        assert_eq!(retries.due(now + LONGEST).count(), 1);
        assert!(retries.succeeded(&Subject::Leavings));
        assert!(!retries.succeeded(&Subject::Leavings));
        assert_eq!(retries.next(), None);
    }
}
