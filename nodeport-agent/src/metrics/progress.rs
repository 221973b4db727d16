//! What the loop tells of its work, under the names that kube-proxy has for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::listeners::HostListener;
use crate::model::{Kind, Name, Severity};

/// Changes of endpoints that are remembered while they cannot be written.
const MOST_PENDING: usize = 4_096;

/// When an endpoint changed: whose, and what its EndpointSlice says.
pub type Trigger = (Name, Timestamp);

/// What the loop tells, and a scrape reads.
#[derive(Debug)]
pub struct Progress {
    started: Timestamp,
    sync_duration: Histogram,
    programming: Histogram,
    told: Mutex<Told>,
}

/// What changes with every step.
#[derive(Debug, Default)]
struct Told {
    /// Changes that are not in the maps yet.
    pending: Vec<Trigger>,
    situation: Arc<Situation>,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// All is listed and in the maps.
    pub started: bool,
    /// Writes to the maps.
    pub writes: u64,
    /// Parts of the plan that could not be written.
    pub failures: usize,
    /// How much is wrong with objects.
    pub findings: BTreeMap<(Kind, Severity), u64>,
    /// Processes of the node that listen where services are.
    pub listeners: Vec<HostListener>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new(Timestamp::now())
    }
}

impl Progress {
    /// Of an agent that was started then.
    #[must_use]
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            sync_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            programming: Histogram::new(programming_buckets()),
            told: Mutex::default(),
        }
    }

    /// All that had changed was tried, in that time; `is_failing` names the Services of which something
    /// is not in the maps.
    pub fn synced(
        &self,
        took: Duration,
        now: Timestamp,
        triggers: Vec<Trigger>,
        is_failing: impl Fn(&Name) -> bool,
    ) {
        self.sync_duration.observe(took.as_secs_f64());
        let mut told = self.told();
        // What changed before this agent came was not for it to be quick with.
        told.pending.extend(triggers.into_iter().filter(|(_, at)| *at > self.started));
        let written: Vec<_> = told.pending.extract_if(.., |(name, _)| !is_failing(name)).collect();
        told.pending.truncate(MOST_PENDING);
        drop(told);
        for (_, at) in written {
            self.programming.observe(now.duration_since(at).as_secs_f64().max(0.0));
        }
    }

    /// Things stand like this.
    pub fn set(&self, situation: Situation) {
        self.told().situation = Arc::new(situation);
    }

    /// How things stand.
    #[must_use]
    pub fn situation(&self) -> Arc<Situation> {
        self.told().situation.clone()
    }

    pub(super) const fn sync_duration(&self) -> &Histogram {
        &self.sync_duration
    }

    pub(super) const fn programming(&self) -> &Histogram {
        &self.programming
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Each of its parts is replaced as a whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// kube-proxy's own: fine up to a minute, coarse up to five.
fn programming_buckets() -> impl Iterator<Item = f64> {
    let fine = (1..60).map(f64::from);
    let by_five = (60..120).step_by(5).map(f64::from);
    let by_thirty = (120..=300).step_by(30).map(f64::from);
    [0.25, 0.5].into_iter().chain(fine).chain(by_five).chain(by_thirty)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Count and sum of the latencies.
    fn latencies(progress: &Progress) -> (String, String) {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("p", "p", progress.programming.clone());
        encode(&mut text, &registry).unwrap();
        let of = |start| text.lines().find_map(|line| line.strip_prefix(start)).unwrap().to_owned();
        (of("p_count "), of("p_sum "))
    }

    #[test]
    fn latency_is_from_the_change_until_it_is_written() {
        let progress = Progress::new(at(100));
        let [web, shop] = ["web", "shop"].map(|name| Name::new("default", name));
        let triggers = vec![(web.clone(), at(99)), (web, at(107)), (shop.clone(), at(104))];
        progress.synced(Duration::ZERO, at(110), triggers, |name| *name == shop);
        assert_eq!(
            latencies(&progress),
            ("1".to_owned(), "3.0".to_owned()),
            "not what came before"
        );
        progress.synced(Duration::ZERO, at(114), vec![], |_| false);
        assert_eq!(latencies(&progress), ("2".to_owned(), "13.0".to_owned()), "late, not never");
        progress.synced(Duration::ZERO, at(120), vec![], |_| false);
        assert_eq!(latencies(&progress).0, "2", "told once");
    }

    #[test]
    fn a_clock_behind_the_clusters_makes_no_latency_below_zero() {
        let progress = Progress::new(at(100));
        let triggers = vec![(Name::new("default", "web"), at(200))];
        progress.synced(Duration::ZERO, at(150), triggers, |_| false);
        assert_eq!(latencies(&progress), ("1".to_owned(), "0.0".to_owned()));
    }

    #[test]
    fn buckets_are_kube_proxys() {
        let all: Vec<_> = programming_buckets().collect();
        assert_eq!((all.len(), all[1], all[2], all[60], all[61]), (80, 0.5, 1.0, 59.0, 60.0));
        assert_eq!((all[72], all[73], all[74], all[79]), (115.0, 120.0, 150.0, 300.0));
        assert_eq!(all[78], 270.0);
        assert!(all.is_sorted());
    }
}
