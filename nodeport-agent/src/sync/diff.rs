//! What must be written for a group to become what the plan says.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;
use nodeport_common::abi::{
    BACKEND_USABLE, FRONTEND_AFFINITY, FRONTEND_AFFINITY_STEP, FRONTEND_DROPS, FRONTEND_GUARDED,
    FRONTEND_INTERNAL, FRONTEND_LEAST, FRONTEND_RANDOM, FRONTEND_YIELDS, Frontend, PORT_BACKEND,
    PORT_FRONTEND, maps,
};
use nodeport_common::core::maglev::table_len;

use super::maps::{BackendId, RangesOf};
use super::ops::BackendValue;
use super::placed::{Placed, Table, slots, unless_equal};
use super::state::State;
use crate::model::{Algorithm, Family};
use crate::plan::{FrontendAt, Group, GroupKey, Target, Traffic};

/// What must be written for one group, in the order of the fields. Backends that go are not
/// among it: they go when no packet can be on its way to them any more.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The id of a service port for which another may have counted.
    pub(super) cleared: Option<u32>,
    /// Bits that ports need.
    pub(super) ports: BTreeSet<(u16, u8)>,
    /// Backends that come, or come back.
    pub(super) backends: Vec<(u32, BackendValue)>,
    /// Source ranges that come, and those that go while there is something to guard: whom they let in
    /// shall be shut out.
    pub(super) ranges: Vec<(RangesOf, IpNet, Comes)>,
    /// A new table.
    pub(super) table: Option<NewTable>,
    /// Frontends that come or are switched to the new table.
    pub(super) frontends: Vec<(FrontendAt, Frontend)>,
}

/// Whether something comes, or goes.
pub(super) type Comes = bool;

/// A table that is to be written.
#[derive(Debug)]
pub(super) struct NewTable {
    pub(super) table: Table,
    /// What it is made of, sorted by address.
    backends: Vec<(SocketAddr, u32)>,
    /// Its slots, once [`NewTable::fill`] has filled them.
    pub(super) slots: Vec<u32>,
}

impl NewTable {
    /// Fills its slots: most of the work of a first round.
    pub(super) fn fill(&mut self, seed: u32) {
        self.slots = slots(&self.backends, &self.table.weights, seed);
    }
}

impl State {
    /// What must be written for this group. Numbers and regions are taken, nothing else changes.
    ///
    /// # Errors
    /// If a map is full.
    pub(super) fn change(&mut self, key: &GroupKey, group: &Group) -> Result<Change, Full> {
        self.place(key, group)?;
        let mut change = Change::default();
        let mut order = Vec::with_capacity(group.usable.len());
        let weights = unless_equal(group.usable.iter().map(|target| target.weight).collect());
        for target in &group.usable {
            let index = self.member(key, target.at)?;
            order.push((target.at, index));
            self.bring(key, target, index, &mut change);
        }
        if !group.opens_flows() {
            // Nobody would read the table.
            order.clear();
        }
        let (offset, len) = self.table(key, order, weights, &mut change)?;
        let service = self.groups.get(key).map_or(0, |placed| placed.service);
        change.cleared = Some(service).filter(|id| self.services.is_uncleared(*id));
        if !group.guarded.is_empty() {
            change.ranges = self.ranges((service, key.family), group);
        }
        let time = self.affinity_time(group, service);
        for at in &group.frontends {
            let mut wanted = frontend(key, group, at, (service, offset, len));
            wanted.flags |= time;
            if self.maps.frontend(at) != Some(wanted) {
                change.ports.insert((at.port, PORT_FRONTEND));
                change.frontends.push((*at, wanted));
            }
        }
        change.ports.retain(|(port, bit)| self.maps.ports.bits(*port) & bit == 0);
        Ok(change)
    }

    /// The bits of the group's frontends that number the times for which it knows its clients. All of a
    /// service port share them, since a client is known at each.
    fn affinity_time(&self, group: &Group, service: u32) -> u32 {
        let written = group.frontends.iter().filter_map(|at| self.maps.frontend(at));
        let written = written.filter(|frontend| frontend.service == service);
        let times = written.map(|frontend| (frontend.flags & FRONTEND_AFFINITY, frontend.affinity));
        // Where not all could be written the last time, the others are behind.
        let (time, affinity) = times.max().unwrap_or_default();
        match affinity != 0 && group.affinity == 0 {
            true => time.wrapping_add(FRONTEND_AFFINITY_STEP),
            false => time,
        }
    }

    /// Source ranges that come and go.
    fn ranges(&self, of: RangesOf, group: &Group) -> Vec<(RangesOf, IpNet, Comes)> {
        let comes = group.ranges.iter().filter(|range| !self.maps.has_range(of, range));
        let goes = self.maps.ranges(of).filter(|range| group.ranges.binary_search(range).is_err());
        let goes = goes.map(|range| (of, *range, false));
        comes.map(|range| (of, *range, true)).chain(goes).collect()
    }

    /// Gives the group a place if it has none: the one where it was found, or an empty one.
    fn place(&mut self, key: &GroupKey, group: &Group) -> Result<(), Full> {
        if self.groups.contains_key(key) {
            return Ok(());
        }
        let found = self.claim(key, group);
        let service = self.services.id(&key.port, found.service).ok_or(Full::Services)?;
        let placed = Placed { service, ..found.placed };
        self.groups.insert(key.clone(), placed);
        Ok(())
    }

    /// The index of the backend at that address; a new one if it has none.
    fn member(&mut self, key: &GroupKey, at: SocketAddr) -> Result<u32, Full> {
        let placed = self.groups.get(key).and_then(|placed| placed.members.get(&at));
        if let Some(index) = placed {
            return Ok(*index);
        }
        let index = self.indices(key.family).take().ok_or(Full::Backends(key.family))?;
        if let Some(placed) = self.groups.get_mut(key) {
            placed.members.insert(at, index);
        }
        Ok(index)
    }

    fn bring(&self, key: &GroupKey, target: &Target, index: u32, change: &mut Change) {
        let id = (key.family, index);
        let wanted = self.value(id, target, BACKEND_USABLE);
        if self.maps.backend(id) != Some(&wanted) {
            change.backends.push((index, wanted));
        }
        // Also of those on other nodes: where one is not known, or the way to it is not watched,
        // the answers may leave by this node's interface.
        change.ports.insert((target.at.port(), PORT_BACKEND));
    }

    /// What a backend's entry shall be. While the same backend has the index, the generation
    /// stays, and with it all its flows.
    pub(super) fn value(&self, id: BackendId, target: &Target, state: u8) -> BackendValue {
        let held = self.maps.backend(id).filter(|_| self.maps.is_live(id));
        let generation = match held.filter(|held| held.at == target.at) {
            Some(held) => held.generation,
            None => self.maps.next_generation(id),
        };
        BackendValue {
            at: target.at,
            local: target.local,
            state,
            generation,
            weight: target.weight,
        }
    }

    /// The table of these backends with these weights: the one that is there, or a new one in a free region.
    fn table(
        &mut self,
        key: &GroupKey,
        backends: Vec<(SocketAddr, u32)>,
        weights: Vec<u32>,
        change: &mut Change,
    ) -> Result<(u32, u32), Full> {
        if backends.is_empty() {
            return Ok((0, 0));
        }
        let order: Vec<_> = backends.iter().map(|(_, index)| *index).collect();
        if let Some(table) = self.groups.get(key).and_then(|placed| placed.table(&order, &weights))
        {
            return Ok((table.region.offset, table.region.len));
        }
        let len = table_len(backends.len());
        let region = self.regions.take(len).ok_or(Full::Slots(len))?;
        let table = Table { region, order, weights, exact: true, used: false };
        change.table = Some(NewTable { table, backends, slots: Vec::new() });
        Ok((region.offset, region.len))
    }
}

/// What a frontend of a group shall be, with the id of the service port and the table there.
fn frontend(
    key: &GroupKey,
    group: &Group,
    at: &FrontendAt,
    (service, slots_offset, slots_len): (u32, u32, u32),
) -> Frontend {
    if group.yields.contains(at) {
        let (flags, affinity) = (FRONTEND_YIELDS, group.affinity);
        return Frontend { service, flags, affinity, ..Frontend::default() };
    }
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    let flags = flag(group.drops, FRONTEND_DROPS)
        | flag(group.guarded.contains(at), FRONTEND_GUARDED)
        | flag(key.traffic == Traffic::Internal, FRONTEND_INTERNAL)
        | flag(group.algorithm == Algorithm::Random, FRONTEND_RANDOM)
        | flag(group.algorithm == Algorithm::Least, FRONTEND_LEAST);
    Frontend { service, slots_offset, slots_len, flags, affinity: group.affinity }
}

/// A map has no room for what a group needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Services,
    Backends(Family),
    Slots(u32),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services => {
                let most = maps::SERVICE_ENTRIES - 1;
                write!(f, "the map service_stats is full: {most} service ports can be served")
            }
            Self::Backends(family) => {
                let most = maps::BACKEND_ENTRIES - 1;
                write!(f, "the map of {family} backends is full: {most} endpoints can be served")
            }
            Self::Slots(len) => {
                write!(f, "the map slots has no room for {len} more: raise --max-slots")
            }
        }
    }
}

impl std::error::Error for Full {}
