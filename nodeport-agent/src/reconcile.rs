//! The loop's one step: what changed in the world becomes a plan, the plan becomes writes.

mod addresses;
mod directory;
mod events;
mod listeners;
mod ports;
mod seed;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use nodeport_common::abi::LAYOUT_VERSION;
use tracing::{debug, error, info, warn};

use crate::addresses::Watch as AddressWatch;
use crate::config::{HostListeners, NodePortAddresses};
use crate::dataplane::PortReport;
use crate::events::Events;
use crate::health::Health;
use crate::listeners::Watch;
use crate::metrics::{Progress, Situation, Trigger};
use crate::plan::{Changed, GroupKey, Planner, SeedRule, Settings, check};
use crate::state_file::State;
use crate::sync::{Report, Subject, Sync};
use crate::telemetry::{self, Board, Scope};
use crate::watch::{Snapshot, Store};
use addresses::Addresses;
pub use directory::{Directory, Listed};
use listeners::Listeners;
use seed::SeedKeeper;
use services::Services;

/// Brings the maps where the world says they should be, a step at a time.
pub struct Reconciler {
    store: Arc<Store>,
    planner: Planner,
    sync: Sync,
    seed: SeedKeeper,
    board: Board,
    services: Services,
    listeners: Listeners,
    addresses: Addresses,
    failures: BTreeMap<Subject, String>,
    health: Arc<Health>,
    progress: Arc<Progress>,
    ports: Arc<PortReport>,
    node_name: Arc<str>,
    events: Events,
    started: bool,
    outdated: bool,
}

impl Reconciler {
    /// A loop that has not taken a step yet.
    #[must_use]
    pub fn new(store: Arc<Store>, settings: Settings, sync: Sync, seed: SeedRule) -> Self {
        let node_name = settings.node_name.clone();
        let planner = Planner::new(settings);
        Self {
            health: Arc::new(Health::new(store.clone())),
            store,
            planner,
            sync,
            seed: SeedKeeper::new(seed),
            board: Board::default(),
            services: Services::default(),
            listeners: Listeners::new(None, HostListeners::Ignore),
            addresses: Addresses::new(None, NodePortAddresses::Primary, node_name.clone()),
            failures: BTreeMap::new(),
            progress: Arc::default(),
            ports: Arc::default(),
            node_name,
            events: Events::default(),
            started: false,
            outdated: false,
        }
    }

    /// Heeds the node's own listeners, as `rule` says.
    #[must_use]
    pub fn beside(mut self, watch: Watch, rule: HostListeners) -> Self {
        self.listeners = Listeners::new(Some(watch), rule);
        self
    }

    /// Says by Events too what is wrong with objects.
    #[must_use]
    pub fn telling(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// What is known of this proxy's health.
    #[must_use]
    pub const fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// How its work goes.
    #[must_use]
    pub const fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The services that have a place in the maps.
    #[must_use]
    pub const fn directory(&self) -> &Arc<Directory> {
        self.services.directory()
    }

    /// Heeds the addresses of the node's interfaces, as `rule` says.
    #[must_use]
    pub fn serving_on(mut self, watch: AddressWatch, rule: NodePortAddresses) -> Self {
        self.addresses = Addresses::new(Some(watch), rule, self.node_name.clone());
        self
    }

    /// Takes a step. It needs no reason: without a change there is nothing to do.
    pub fn step(&mut self, now: Instant) {
        self.heed_ports();
        let Some(snapshot) = self.store.take(now) else {
            // Why nothing is listed yet is worth knowing all the more.
            self.note(Scope::Source, self.store.problems());
            self.tell_situation();
            return;
        };
        let Snapshot { mut update, complete, since, triggers, problems } = snapshot;
        if let Some(since) = since {
            self.health.begin(since);
        }
        self.note(Scope::Source, problems);
        if let Some(own) = self.addresses.look() {
            self.sync.set_own_addresses(&own);
            self.outdated = true;
        }
        update.node = self.addresses.of(update.node);
        let changed = self.planner.update(update);
        let (left, is_news) = self.listeners.follow(&mut self.planner, &changed);
        let changed = changed.and(left);
        if is_news {
            self.outdated = true;
            self.tell_of_listeners();
        }
        let groups = self.take_note(changed);
        self.sync.set_seed(self.seed.keep(self.planner.model()));
        let mut report = self.sync.follow(self.planner.desired(), &groups, complete, now);
        self.outdated |= report.wrote || !groups.is_empty();
        let has_caught_up = !report.recovered.is_empty();
        self.log(&mut report, &groups);
        self.tell_health();
        if since.is_some() || has_caught_up {
            self.tell_progress(now, triggers);
        }
        if !std::mem::replace(&mut self.started, true) {
            let services = self.planner.desired().groups.len();
            let milliseconds = now.elapsed().as_millis();
            info!(services, milliseconds, "all is listed and in the maps");
            self.outdated = true;
        }
        self.tell_situation();
    }

    fn tell_progress(&self, began: Instant, triggers: Vec<Trigger>) {
        let failing =
            self.failures.keys().filter_map(|subject| Some(&subject.group()?.port.service));
        let failing: BTreeSet<_> = failing.collect();
        self.progress
            .synced(began.elapsed(), Timestamp::now(), triggers, |name| failing.contains(name));
    }

    fn tell_situation(&self) {
        if !self.outdated {
            return;
        }
        let mut findings = BTreeMap::new();
        for finding in self.board.iter() {
            *findings.entry((finding.kind, finding.severity)).or_default() += 1;
        }
        self.progress.set(Situation {
            started: self.started,
            writes: self.sync.writes(),
            failures: self.failures.len(),
            findings,
            listeners: self.listeners.all().cloned().collect(),
        });
    }

    fn tell_health(&self) {
        let node = self.planner.model().node.as_deref();
        self.health.set_eligible(node.is_none_or(|node| node.eligible));
        self.health.set_checks(&self.planner.desired().health_checks);
        // A service that cannot be written is told of beside it, and does not make the others' node unwell.
        if self.failures.keys().all(|subject| subject.group().is_some()) {
            self.health.done();
        }
    }

    /// See [`crate::dataplane::Dataplane::check`].
    ///
    /// # Errors
    /// If something has ended.
    pub fn check(&self) -> anyhow::Result<()> {
        self.listeners.check()?;
        self.addresses.check()?;
        self.sync.check()
    }

    /// When a step is due even if nothing changes.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.sync.wake_at().into_iter().chain(self.store.wake_at()).min()
    }

    /// Completes what would otherwise be done a moment later.
    pub fn finish(&mut self) {
        let mut report = self.sync.finish();
        self.outdated |= report.wrote;
        self.log(&mut report, &BTreeSet::new());
    }

    /// Whether other commands know less than there is.
    #[must_use]
    pub const fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Other commands have not been told after all.
    pub const fn set_outdated(&mut self) {
        self.outdated = true;
    }

    /// Whether a plan has been carried out.
    #[must_use]
    pub const fn has_started(&self) -> bool {
        self.started
    }

    /// What other commands shall know, if it is not what they knew before.
    pub fn take_state(&mut self) -> Option<State> {
        if !std::mem::take(&mut self.outdated) {
            return None;
        }
        let failures = self.failures.iter().map(|(subject, why)| format!("{subject}: {why}"));
        Some(State {
            layout: LAYOUT_VERSION,
            node: self.node_name.to_string(),
            served_on: self.addresses.served().to_vec(),
            cluster_seed: self.seed.of_cluster(),
            map_writes: self.sync.writes(),
            services: self.services.all(),
            host_listeners: self.listeners.all().cloned().collect(),
            findings: self.board.iter().cloned().collect(),
            failures: failures.collect(),
        })
    }

    /// Notes what is wrong; returns the groups whose plan may be carried out.
    fn take_note(&mut self, changed: Changed) -> BTreeSet<GroupKey> {
        let Changed { mut groups, findings, node } = changed;
        for (name, findings) in findings {
            self.note(Scope::Service(name), findings);
        }
        if let Some(findings) = node {
            self.note(Scope::Node, findings);
        }
        groups.retain(|key| self.is_sound(key));
        groups
    }

    fn is_sound(&self, key: &GroupKey) -> bool {
        let group = self.planner.desired().groups.get(key);
        let violations = group.map(|group| check::group(key, group)).unwrap_or_default();
        for violation in &violations {
            error!(
                "the plan for {key} is a mistake of this program, please report it; \
                 it is not carried out: {}",
                violation.what
            );
        }
        violations.is_empty()
    }

    /// Says what failed when it fails for the first time or for another reason, and when it works
    /// again.
    fn log(&mut self, report: &mut Report, groups: &BTreeSet<GroupKey>) {
        let mut is_news = false;
        let touched = std::mem::take(&mut report.touched);
        self.services.renew(touched, self.planner.desired(), &self.sync);
        for (subject, error) in &report.failed {
            let why = telemetry::line(error);
            if self.failures.get(subject) != Some(&why) {
                warn!("{subject}: {why} (it is tried again)");
                self.failures.insert(subject.clone(), why);
                is_news = true;
            }
        }
        for subject in &report.recovered {
            info!("{subject}: works now");
            self.failures.remove(subject);
            is_news = true;
        }
        if is_news {
            self.outdated = true;
            self.tell_of_failures();
        }
        for key in groups {
            debug!("{key}: changed");
        }
    }
}
