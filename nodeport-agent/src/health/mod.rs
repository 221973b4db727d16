//! What is said about this proxy's health: `/healthz` and `/livez`, and a server for each
//! `healthCheckNodePort`.

mod answers;
mod counts;
mod pulse;
mod servers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::http::{Answer, Asked};
use crate::model::Name;
use crate::plan::HealthCheck;
use crate::watch::Store;
use answers::Report;
pub use counts::Counts;
pub use pulse::{LIMIT, Pulse};
pub use servers::{Ports, serve};

/// All health checks, by service.
pub type Checks = BTreeMap<Name, HealthCheck>;

/// What the loop tells, and what is answered by it.
#[derive(Debug)]
pub struct Health {
    store: Arc<Store>,
    pulse: Mutex<Pulse>,
    /// The node is not about to be taken away; so while nothing is known of it.
    eligible: watch::Sender<bool>,
    checks: watch::Sender<Arc<Checks>>,
    healthz: Counts,
    livez: Counts,
}

impl Health {
    /// Of an agent that has just been started.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            pulse: Mutex::default(),
            eligible: watch::Sender::new(true),
            checks: watch::Sender::default(),
            healthz: Counts::default(),
            livez: Counts::default(),
        }
    }

    /// Changes that came at that time are taken up.
    pub fn begin(&self, since: Instant) {
        self.pulse().begin(since);
    }

    /// All that was taken up is in the maps.
    pub fn done(&self) {
        self.pulse().done(SystemTime::now());
    }

    /// Whether the node is not about to be taken away.
    pub fn set_eligible(&self, eligible: bool) {
        self.eligible.send_replace(eligible);
    }

    /// These are all the health checks of services there are.
    pub fn set_checks(&self, checks: &Checks) {
        self.checks.send_if_modified(|known| {
            let is_news = **known != *checks;
            if is_news {
                *known = Arc::new(checks.clone());
            }
            is_news
        });
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        // Its words are written one by one, and each is whole.
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the agent keeps up with the world.
    #[must_use]
    pub fn is_healthy(&self, now: Instant) -> bool {
        let waiting = self.store.waiting_since();
        self.pulse().is_healthy(waiting, now)
    }

    fn report(&self) -> Report {
        Report {
            healthy: self.is_healthy(Instant::now()),
            updated: self.pulse().updated(),
            eligible: *self.eligible.borrow(),
            now: SystemTime::now(),
        }
    }

    fn answer(&self, asked: Asked<'_>) -> Answer {
        let (answer, counts) = match asked.path {
            "/healthz" => (answers::healthz(&self.report()), &self.healthz),
            "/livez" => (answers::livez(&self.report()), &self.livez),
            _ => return Answer::not_found(),
        };
        counts.note(answer.status);
        answer
    }

    /// When all was last in the maps.
    #[must_use]
    pub fn updated(&self) -> Option<SystemTime> {
        self.pulse().updated()
    }

    /// How often `/healthz` was answered what.
    #[must_use]
    pub const fn healthz_counts(&self) -> &Counts {
        &self.healthz
    }

    /// How often `/livez` was answered what.
    #[must_use]
    pub const fn livez_counts(&self) -> &Counts {
        &self.livez
    }

    /// The answer about a service, whatever the path.
    fn answer_for(&self, name: &Name, asked: Asked<'_>) -> Answer {
        let endpoints = self.checks.borrow().get(name).map(|check| check.endpoints(asked.family));
        answers::service(name, endpoints.unwrap_or(0), self.report().healthy)
    }
}
