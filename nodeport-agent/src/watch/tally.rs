//! How much a source tells, and whether it can be heard, for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Changes of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of Services.
    pub services: u64,
    /// Those that have not been taken up.
    pub pending_services: u64,
    /// Of EndpointSlices.
    pub slices: u64,
    /// Those that have not been taken up.
    pub pending_slices: u64,
    /// When the last one came.
    pub last: Option<SystemTime>,
}

impl Tally {
    pub(super) fn service_changed(&mut self) {
        self.services += 1;
        self.pending_services += 1;
        self.last = Some(SystemTime::now());
    }

    pub(super) fn slice_changed(&mut self) {
        self.slices += 1;
        self.pending_slices += 1;
        self.last = Some(SystemTime::now());
    }

    /// All of them have been taken up.
    pub(super) const fn taken(&mut self) {
        (self.pending_services, self.pending_slices) = (0, 0);
    }
}

/// How the watches of an API server do, by what they watch.
#[derive(Debug, Default)]
pub struct Watches(Mutex<BTreeMap<&'static str, Watch>>);

/// How one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The last that was heard of it was no failure.
    pub works: bool,
    /// How often it failed.
    pub errors: u64,
}

impl Watches {
    /// It told something, or that it failed.
    pub(super) fn note(&self, what: &'static str, works: bool) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = watches.entry(what).or_default();
        watch.works = works;
        watch.errors += u64::from(!works);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, Watch)> {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.iter().map(|(what, watch)| (*what, *watch)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_works_again_keeps_its_errors() {
        let watches = Watches::default();
        watches.note("nodes", true);
        for works in [false, false, true] {
            watches.note("services", works);
        }
        let [nodes, services] =
            [Watch { works: true, errors: 0 }, Watch { works: true, errors: 2 }];
        assert_eq!(watches.all(), [("nodes", nodes), ("services", services)]);
        watches.note("nodes", false);
        assert!(!watches.all()[0].1.works);
    }
}
