//! All that is remembered between two rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use foldhash::HashMap;
use nodeport_common::abi::maps::{BACKEND_ENTRIES, SERVICE_ENTRIES};

use super::adopt::Adoption;
use super::indices::Indices;
use super::maps::{BackendId, Maps};
use super::ops::BackendValue;
use super::placed::Placed;
use super::regions::{Region, Regions};
use crate::model::{Family, PortName};
use crate::plan::{GroupKey, Traffic};

/// What the maps hold, and what stands behind it.
#[derive(Debug)]
pub(super) struct State {
    /// Seed of the choice of backends, by which tables are made.
    pub(super) seed: u32,
    pub(super) maps: Maps,
    pub(super) groups: HashMap<GroupKey, Placed>,
    pub(super) services: Services,
    pub(super) backends4: Indices,
    pub(super) backends6: Indices,
    pub(super) regions: Regions,
    /// Backends that take no more new flows, as soon as no packet is between an old table and
    /// them: what they become then.
    pub(super) departures: BTreeMap<BackendId, Departure>,
    /// Tables that no frontend points to any more, each with the barrier after whose end no packet
    /// reads it.
    pub(super) retired: Vec<(u64, Region)>,
    pub(super) barriers: Barriers,
    /// Groups whose place has changed since that was reported.
    pub(super) touched: BTreeSet<GroupKey>,
    /// What was found at the start and has not been claimed yet.
    pub(super) adoption: Option<Adoption>,
}

/// What becomes of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    /// Whose it is, and its address there; none for one that nobody claimed.
    pub(super) group: Option<(GroupKey, SocketAddr)>,
    /// What it becomes.
    pub(super) value: BackendValue,
    /// The barrier after whose end no packet is on its way to it.
    pub(super) after: u64,
}

/// Barriers, by number from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Barriers {
    /// The last that has begun.
    begun: u64,
    /// The last that has ended as it should.
    ended: u64,
    /// The one that goes on.
    running: Option<u64>,
}

impl Barriers {
    /// The next one to begin: what is replaced now is used by no packet after its end.
    pub(super) const fn next(self) -> u64 {
        self.begun + 1
    }

    /// Whether this one has ended.
    pub(super) const fn has_ended(self, number: u64) -> bool {
        number <= self.ended
    }

    pub(super) const fn is_running(self) -> bool {
        self.running.is_some()
    }

    /// One begins, and goes on.
    pub(super) const fn begin(&mut self) {
        self.running = Some(self.take());
    }

    /// The one that went on has ended; as it should, or what waits for it waits for another one.
    pub(super) fn end(&mut self, succeeded: bool) {
        if let Some(number) = self.running.take().filter(|_| succeeded) {
            self.set_ended(number);
        }
    }

    /// One that is waited for, maybe beside the one that goes on: its number.
    pub(super) const fn take(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    pub(super) fn set_ended(&mut self, number: u64) {
        self.ended = self.ended.max(number);
    }
}

/// Ids of service ports: both families share one.
#[derive(Debug)]
pub(super) struct Services {
    ids: HashMap<PortName, u32>,
    free: Indices,
    /// Found in use at the start, and nobody's yet.
    found: BTreeSet<u32>,
    /// Given out anew: what an earlier holder counted may still stand there.
    uncleared: BTreeSet<u32>,
}

impl State {
    /// Nothing yet but the seed, which the maps have.
    pub(super) fn new(seed: u32, slots: u32) -> Self {
        let none = BTreeSet::new();
        Self {
            seed,
            maps: Maps::new(seed),
            groups: HashMap::default(),
            services: Services::new(BTreeSet::new()),
            backends4: Indices::new(BACKEND_ENTRIES, &none),
            backends6: Indices::new(BACKEND_ENTRIES, &none),
            regions: Regions::new(slots),
            departures: BTreeMap::new(),
            retired: Vec::new(),
            barriers: Barriers::default(),
            touched: BTreeSet::new(),
            adoption: None,
        }
    }

    pub(super) const fn indices(&mut self, family: Family) -> &mut Indices {
        match family {
            Family::V4 => &mut self.backends4,
            Family::V6 => &mut self.backends6,
        }
    }

    /// Whether something waits for packets to have left what was replaced.
    pub(super) fn has_leavings(&self) -> bool {
        let Self { maps, departures, retired, .. } = self;
        !departures.is_empty() || !retired.is_empty() || maps.ports.has_doubtful()
    }

    /// Whether some of it waits for a barrier that has not ended.
    pub(super) fn needs_barrier(&self) -> bool {
        let waits = |number: u64| !self.barriers.has_ended(number);
        self.departures.values().any(|departure| waits(departure.after))
            || self.retired.iter().any(|(number, _)| waits(*number))
    }

    /// Sets a table aside that packets may be reading.
    pub(super) fn retire(&mut self, region: Region) {
        self.retired.push((self.barriers.next(), region));
    }

    /// Says what becomes of a backend that is in no table any more.
    pub(super) fn let_go(
        &mut self,
        id: BackendId,
        group: Option<(GroupKey, SocketAddr)>,
        value: BackendValue,
    ) {
        // One that was to go before has been in no table since.
        let after = self.departures.get(&id).map_or(self.barriers.next(), |known| known.after);
        self.departures.insert(id, Departure { group, value, after });
    }

    /// Forgets a group of which nothing is left.
    pub(super) fn forget_if_empty(&mut self, key: &GroupKey) {
        let guards = |placed: &Placed| {
            key.traffic == Traffic::External && self.maps.has_ranges((placed.service, key.family))
        };
        if !self.groups.get(key).is_some_and(|placed| placed.is_empty() && !guards(placed)) {
            return;
        }
        self.groups.remove(key);
        if !GroupKey::all(&key.port).any(|sibling| self.groups.contains_key(&sibling)) {
            self.services.release(&key.port);
        }
    }
}

impl Services {
    /// All ids free but these, which were found in use.
    pub(super) fn new(found: BTreeSet<u32>) -> Self {
        let free = Indices::new(SERVICE_ENTRIES, &found);
        Self { ids: HashMap::default(), free, found, uncleared: BTreeSet::new() }
    }

    /// The id of a service port: its own, or the one it was found with, or a new one.
    pub(super) fn id(&mut self, port: &PortName, found: Option<u32>) -> Option<u32> {
        if let Some(id) = self.ids.get(port) {
            return Some(*id);
        }
        let id = found.filter(|id| self.found.remove(id)).or_else(|| self.new_id())?;
        self.ids.insert(port.clone(), id);
        Some(id)
    }

    fn new_id(&mut self) -> Option<u32> {
        let id = self.free.take()?;
        self.uncleared.insert(id);
        Some(id)
    }

    /// Whether what was counted for this id may be another's.
    pub(super) fn is_uncleared(&self, id: u32) -> bool {
        self.uncleared.contains(&id)
    }

    /// What was counted for this id is its holder's from now on.
    pub(super) fn set_cleared(&mut self, id: u32) {
        self.uncleared.remove(&id);
    }

    fn release(&mut self, port: &PortName) {
        if let Some(id) = self.ids.remove(port) {
            self.free.free(id);
        }
    }

    /// Gives back the ids that were found in use and that nobody claimed.
    pub(super) fn release_found(&mut self) {
        for id in std::mem::take(&mut self.found) {
            self.free.free(id);
        }
    }
}
