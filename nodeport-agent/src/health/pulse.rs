//! Whether the agent keeps up with the world.

use std::time::{Duration, Instant, SystemTime};

/// How old a change may become before it is in the maps; kube-proxy allows twice its `syncPeriod`,
/// which is 30 seconds by default.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What the loop has said of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// When the oldest change came that has been taken up and is not in the maps.
    pending: Option<Instant>,
    /// When all was last in the maps.
    updated: Option<SystemTime>,
}

impl Pulse {
    /// A change that came at that time is taken up.
    pub fn begin(&mut self, since: Instant) {
        self.pending = Some(self.pending.map_or(since, |pending| pending.min(since)));
    }

    /// All that was taken up is in the maps.
    pub const fn done(&mut self, now: SystemTime) {
        self.pending = None;
        self.updated = Some(now);
    }

    /// Whether no change is older than [`LIMIT`]; `waiting`, since when one waits to be taken up. It
    /// is true before anything is known of the world: the data path is as it was left.
    #[must_use]
    pub fn is_healthy(&self, waiting: Option<Instant>, now: Instant) -> bool {
        let oldest = self.pending.into_iter().chain(waiting).min();
        oldest.is_none_or(|oldest| now.saturating_duration_since(oldest) < LIMIT)
    }

    /// When all was last in the maps.
    #[must_use]
    pub const fn updated(&self) -> Option<SystemTime> {
        self.updated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_healthy_while_it_starts_and_while_changes_are_young() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(pulse.is_healthy(None, at(500)));
        assert_eq!(pulse.updated(), None);
        pulse.begin(start);
        assert!(pulse.is_healthy(None, at(59)));
        assert!(!pulse.is_healthy(None, at(60)));
        pulse.done(SystemTime::UNIX_EPOCH);
        assert!(pulse.is_healthy(None, at(500)));
        assert_eq!(pulse.updated(), Some(SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn the_oldest_change_counts_wherever_it_is() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!pulse.is_healthy(Some(start), at(60)));
        pulse.begin(start);
        pulse.begin(at(50));
        assert!(!pulse.is_healthy(Some(at(55)), at(60)));
        pulse.done(SystemTime::UNIX_EPOCH);
        assert!(pulse.is_healthy(Some(at(55)), at(60)));
        assert!(!pulse.is_healthy(Some(at(55)), at(115)));
    }
}
