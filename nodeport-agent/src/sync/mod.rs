//! Making the maps follow the plan.
//!
//! [`Sync`] knows what the maps hold: it reads them once, at the start, and notes every write
//! that succeeds. From that and the plan it makes the writes, and only those, that a change
//! needs; [`carry`] has their order, and what fails is tried again.

mod addresses;
mod adopt;
mod batch;
mod carry;
mod counted;
mod diff;
#[cfg(test)]
pub(crate) mod fake;
mod indices;
mod maps;
mod ops;
mod placed;
mod ports;
#[cfg(test)]
mod properties;
mod regions;
mod retry;
mod settle;
mod state;
#[cfg(test)]
mod tests;
mod tidy;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use batch::Subject;
use carry::Failed;
use counted::Counted;
use diff::Full;
use nodeport_common::abi::BACKEND_GONE;
use retry::Retries;
use state::State;

use crate::dataplane::{Dataplane, PortReport};
use crate::plan::{Desired, GroupKey};

/// How long what was replaced waits for more of its kind before one barrier serves all.
const GATHER: Duration = Duration::from_millis(20);
/// Pause between two looks whether a barrier has ended.
const LOOK: Duration = Duration::from_millis(5);

/// How long ports keep their bits when their services have gone, if [`Sync::lingering`] does not tell.
const LINGER: Duration = Duration::from_secs(180);

/// Keeps the maps true to the plan.
pub struct Sync {
    dataplane: Counted,
    state: State,
    retries: Retries,
    tidy_at: Option<Instant>,
    /// When to look whether the barrier that goes on has ended.
    look_at: Option<Instant>,
    /// How long ports keep their bits when their services have gone.
    linger: Duration,
}

/// How a round went.
#[derive(Debug, Default)]
pub struct Report {
    /// What failed, and why. It is tried again.
    pub failed: Vec<(Subject, anyhow::Error)>,
    /// What had failed before and works now.
    pub recovered: Vec<Subject>,
    /// Whether anything was written or tried.
    pub wrote: bool,
    /// Groups whose place in the maps may have changed.
    pub touched: BTreeSet<GroupKey>,
}

/// A backend as it is in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its index in the map of its family.
    pub index: u32,
    /// Its address.
    pub at: SocketAddr,
    /// Its generation.
    pub generation: u32,
    /// `BACKEND_USABLE` or `BACKEND_DRAINING`.
    pub state: u8,
    /// It is on this node.
    pub local: bool,
}

impl Sync {
    /// Reads what the maps hold. Nothing is written before the first [`Sync::follow`].
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn start(dataplane: Box<dyn Dataplane>) -> anyhow::Result<Self> {
        let mut dataplane = Counted::new(dataplane);
        let state = adopt::adopt(&mut dataplane)?;
        Ok(Self {
            dataplane,
            state,
            retries: Retries::default(),
            tidy_at: None,
            look_at: None,
            linger: LINGER,
        })
    }

    /// Ports keep their bits for so long when their services have gone: as long as flows may be silent
    /// whose backend is gone.
    #[must_use]
    pub const fn lingering(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// The seed of the choice of backends; at the start, the one in the maps.
    #[must_use]
    pub const fn seed(&self) -> u32 {
        self.state.seed
    }

    /// Chooses by this seed. After the first [`Sync::follow`] it must be the same for ever: tables
    /// that have been claimed are not made again.
    pub const fn set_seed(&mut self, seed: u32) {
        self.state.seed = seed;
    }

    /// The node's interfaces have these addresses, from the next [`Sync::follow`] on.
    pub fn set_own_addresses(&mut self, own: &BTreeSet<IpAddr>) {
        self.state.maps.addresses.own(own);
    }

    /// Makes the maps follow the plan: `changed` are the groups that differ from the last round,
    /// `complete` says that the plan was made from all there is, so that what it does not name
    /// is not wanted.
    pub fn follow(
        &mut self,
        desired: &Desired,
        changed: &BTreeSet<GroupKey>,
        complete: bool,
        now: Instant,
    ) -> Report {
        let mut round = self.round(now);
        self.write_seed(&mut round);
        self.groups(desired, changed, &mut round);
        if complete {
            self.end_adoption(&mut round);
        }
        self.addresses(desired, &mut round);
        self.tidy_in_time(&mut round);
        self.forget_ports(&mut round);
        self.report(round)
    }

    /// Whether the maps had services in them that nobody has asked for yet.
    #[must_use]
    pub fn has_adopted(&self) -> bool {
        self.state.adoption.as_ref().is_some_and(|adoption| !adoption.is_empty())
    }

    /// See [`Dataplane::check`].
    ///
    /// # Errors
    /// If something has ended.
    pub fn check(&self) -> anyhow::Result<()> {
        self.dataplane.check()
    }

    /// See [`Dataplane::port_report`].
    pub(crate) fn port_report(&self) -> Arc<PortReport> {
        self.dataplane.port_report()
    }

    /// Writes to the maps since the start. The slots of a table are one.
    #[must_use]
    pub const fn writes(&self) -> u64 {
        self.dataplane.writes()
    }

    /// When [`Sync::follow`] has something to do even if nothing changes.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        // What could not be written is tried again in its own time.
        let ports = self.state.maps.ports.next().filter(|_| !self.retries.has(&Subject::Leavings));
        [self.tidy_at, self.look_at, self.retries.next(), ports].into_iter().flatten().min()
    }

    /// Frees everything that was replaced, now; before the end.
    pub fn finish(&mut self) -> Report {
        let mut round =
            Round { now: Instant::now(), tried: BTreeSet::new(), failed: Failed::default() };
        self.tidy(&mut round);
        self.report(round)
    }

    /// Id and backends of a group, as they are in the maps.
    #[must_use]
    pub fn place(&self, key: &GroupKey) -> Option<(u32, Vec<Member>)> {
        let placed = self.state.groups.get(key)?;
        let member = |(at, index): (&SocketAddr, &u32)| {
            let value = self.state.maps.backend((key.family, *index))?;
            let live = value.state != BACKEND_GONE;
            live.then_some(Member {
                index: *index,
                at: *at,
                generation: value.generation,
                state: value.state,
                local: value.local,
            })
        };
        Some((placed.service, placed.members.iter().filter_map(member).collect()))
    }

    /// What is due is tried in this round, if only by finding that it needs nothing any more.
    fn round(&self, now: Instant) -> Round {
        let tried = self.retries.due(now).cloned().collect();
        Round { now, tried, failed: Failed::default() }
    }

    fn write_seed(&mut self, round: &mut Round) {
        let differs = self.state.seed != self.state.maps.seed;
        if differs && !self.retries.is_waiting(&Subject::Seed, round.now) {
            round.tried.insert(Subject::Seed);
            round.failed.extend(carry::seed(&mut self.state, &mut self.dataplane));
        }
    }

    fn groups(&mut self, desired: &Desired, changed: &BTreeSet<GroupKey>, round: &mut Round) {
        let mut keys = changed.clone();
        keys.extend(round.tried.iter().filter_map(Subject::group).cloned());
        if keys.is_empty() {
            return;
        }
        let mut failed = carry::groups(&mut self.state, desired, &keys, &mut self.dataplane);
        let full: BTreeSet<_> = failed.iter().filter_map(without_room).cloned().collect();
        // What was replaced and waits to be freed may be the room that is missing.
        if !full.is_empty() && self.state.has_leavings() {
            self.tidy(round);
            failed.retain(|_, error| !error.is::<Full>());
            failed.extend(carry::groups(&mut self.state, desired, &full, &mut self.dataplane));
        }
        round.tried.extend(keys.into_iter().map(Subject::Group));
        round.failed.extend(failed);
    }

    /// While it is not known on which addresses nodePorts shall be served, it stays as it is.
    fn addresses(&mut self, desired: &Desired, round: &mut Round) {
        let addresses = &mut self.state.maps.addresses;
        if let Some(served) = &desired.node_addresses {
            addresses.serve(served);
        }
        if !addresses.are_right() && !self.retries.is_waiting(&Subject::NodeAddresses, round.now) {
            round.tried.insert(Subject::NodeAddresses);
            round.failed.extend(carry::addresses(&mut self.state, &mut self.dataplane));
        }
    }

    fn end_adoption(&mut self, round: &mut Round) {
        if self.state.adoption.is_none() || self.retries.is_waiting(&Subject::Adoption, round.now) {
            return;
        }
        round.tried.insert(Subject::Adoption);
        let mut failed = carry::unclaimed(&mut self.state, &mut self.dataplane);
        failed.extend(carry::unclaimed_ranges(&mut self.state, &mut self.dataplane));
        if failed.is_empty() {
            self.state.end_adoption();
        }
        round.failed.extend(failed);
    }

    fn tidy_in_time(&mut self, round: &mut Round) {
        let failed_before = round.tried.contains(&Subject::Leavings);
        self.look_for_end(round);
        if !self.state.has_leavings() || self.retries.is_waiting(&Subject::Leavings, round.now) {
            self.tidy_at = None;
            return;
        }
        // What failed is tried again all at once, so that it is known how that went.
        if failed_before {
            return self.tidy(round);
        }
        if self.state.barriers.is_running() {
            return;
        }
        let at = *self.tidy_at.get_or_insert(round.now + GATHER);
        if at <= round.now {
            self.tidy_at = None;
            self.begin_tidying(round);
        }
    }

    fn begin_tidying(&mut self, round: &mut Round) {
        if self.state.needs_barrier() {
            self.state.barriers.begin();
            self.dataplane.begin_barrier();
            self.look_at = Some(round.now + LOOK);
        } else {
            self.free(round);
        }
    }

    /// Frees what waited for the barrier that went on, if it has ended.
    fn look_for_end(&mut self, round: &mut Round) {
        self.look_at = None;
        if !self.state.barriers.is_running() {
            return;
        }
        match self.dataplane.barrier_ended() {
            None => self.look_at = Some(round.now + LOOK),
            Some(outcome) => {
                self.state.barriers.end(outcome.is_ok());
                match outcome {
                    Ok(()) => self.free(round),
                    Err(error) => {
                        round.tried.insert(Subject::Leavings);
                        round.failed.insert(Subject::Leavings, error);
                    }
                }
            }
        }
    }

    fn free(&mut self, round: &mut Round) {
        round.tried.insert(Subject::Leavings);
        let linger = round.now + self.linger;
        round.failed.extend(tidy::free(&mut self.state, &mut self.dataplane, linger));
    }

    fn tidy(&mut self, round: &mut Round) {
        round.tried.insert(Subject::Leavings);
        let linger = round.now + self.linger;
        round.failed.extend(tidy::tidy(&mut self.state, &mut self.dataplane, linger));
        self.tidy_at = None;
    }

    fn forget_ports(&mut self, round: &mut Round) {
        let is_due = self.state.maps.ports.next().is_some_and(|at| at <= round.now);
        if is_due && !self.retries.is_waiting(&Subject::Leavings, round.now) {
            round.tried.insert(Subject::Leavings);
            round.failed.extend(tidy::ports(&mut self.state, &mut self.dataplane, round.now));
        }
    }

    fn report(&mut self, round: Round) -> Report {
        let Round { now, tried, failed } = round;
        let touched = std::mem::take(&mut self.state.touched);
        let mut report = Report { wrote: !tried.is_empty(), touched, ..Report::default() };
        for subject in tried.iter().filter(|subject| !failed.contains_key(subject)) {
            if self.retries.succeeded(subject) {
                report.recovered.push(subject.clone());
            }
        }
        let sorted: BTreeMap<_, _> = failed.into_iter().collect();
        for (subject, error) in sorted {
            self.retries.failed(subject.clone(), now);
            report.failed.push((subject, error));
        }
        report
    }
}

/// One call of [`Sync::follow`].
struct Round {
    now: Instant,
    tried: BTreeSet<Subject>,
    failed: Failed,
}

/// The group that failed because a map was full.
fn without_room<'a>((subject, error): (&'a Subject, &anyhow::Error)) -> Option<&'a GroupKey> {
    subject.group().filter(|_| error.is::<Full>())
}
