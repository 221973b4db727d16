//! Taking over what is in the maps from the agent before: ids, indices, generations and tables,
//! so that no connection notices and nothing is written that is right already.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use foldhash::HashMap;
use nodeport_common::abi::{Frontend, FrontendKey, maps};
use tracing::warn;

use super::indices::Indices;
use super::maps::BackendId;
use super::ops::{self, BackendValue};
use super::placed::{Placed, Table, slots, unless_equal};
use super::regions::Region;
use super::state::{Services, State};
use crate::dataplane::{Dataplane, Observed, Op};
use crate::model::Family;
use crate::plan::{FrontendAt, Group, GroupKey};

/// What was found and has not been claimed yet.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    frontends: BTreeSet<FrontendAt>,
    /// Slots of the tables, by their place.
    tables: HashMap<u32, Vec<u32>>,
    /// Backends in no table: they were draining.
    strays: HashMap<SocketAddr, Vec<u32>>,
    /// Backends that some group has.
    claimed: BTreeSet<BackendId>,
    /// Ids of service ports that were in use.
    services: BTreeSet<u32>,
}

/// The place where a group was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) service: Option<u32>,
    pub(super) placed: Placed,
}

/// Reads what the maps hold.
///
/// # Errors
/// If they cannot be read, or if what makes no sense in them cannot be removed.
pub(super) fn adopt(dataplane: &mut dyn Dataplane) -> anyhow::Result<State> {
    let observed = dataplane.observe().context("reading what the maps hold")?;
    let mut state = State::new(observed.seed, dataplane.slot_capacity());
    let mut adoption = Adoption::default();
    let Observed { frontends4, frontends6, backends4, backends6, .. } = &observed;
    for (index, backend) in backends4 {
        state.maps.put_backend((Family::V4, *index), BackendValue::from4(backend));
    }
    for (index, backend) in backends6 {
        state.maps.put_backend((Family::V6, *index), BackendValue::from6(backend));
    }
    let mut senseless = Vec::new();
    for (key, value) in frontends4 {
        if !adoption.frontend(*key, *value, &mut state, dataplane) {
            senseless.push(Op::RemoveFrontend4(*key));
        }
    }
    for (key, value) in frontends6 {
        if !adoption.frontend(*key, *value, &mut state, dataplane) {
            senseless.push(Op::RemoveFrontend6(*key));
        }
    }
    clear(&senseless, dataplane)?;
    state.take_numbers(&adoption);
    state.take_addresses(&observed);
    adoption.find_strays(&state);
    state.adoption = Some(adoption);
    Ok(state)
}

/// Removes what makes no sense, and waits until no packet reads what the agent before replaced
/// in its last moments: from here on, all that no frontend points to is free.
fn clear(senseless: &[Op], dataplane: &mut dyn Dataplane) -> anyhow::Result<()> {
    if !senseless.is_empty() {
        warn!(
            count = senseless.len(),
            "frontends in the maps point nowhere: they are written anew"
        );
    }
    let ops: Vec<_> = senseless.iter().cloned().chain([Op::Barrier]).collect();
    match dataplane.apply(&ops).into_iter().next() {
        Some(failure) => Err(failure.error.context("clearing the maps before taking them over")),
        None => Ok(()),
    }
}

impl Adoption {
    /// Whether all frontends that were found have been claimed.
    pub(super) fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// Takes note of a frontend and its table; false if it makes no sense.
    fn frontend<A: Into<IpAddr>>(
        &mut self,
        key: FrontendKey<A>,
        value: Frontend,
        state: &mut State,
        dataplane: &mut dyn Dataplane,
    ) -> bool {
        let Some(at) = ops::frontend_at(key) else { return false };
        if !self.table(value, state, dataplane) {
            return false;
        }
        state.maps.put_frontend(at, value);
        self.services.insert(value.service);
        self.frontends.insert(at)
    }

    fn table(&mut self, value: Frontend, state: &mut State, dataplane: &mut dyn Dataplane) -> bool {
        let region = Region { offset: value.slots_offset, len: value.slots_len };
        if region.len == 0 {
            return true;
        }
        if let Some(known) = self.tables.get(&region.offset) {
            return known.len() == region.len as usize;
        }
        if !state.regions.reserve(region) {
            return false;
        }
        match dataplane.read_slots(region.offset, region.len) {
            Ok(slots) if slots.len() == region.len as usize => {
                self.tables.insert(region.offset, slots);
                true
            }
            _ => {
                state.regions.free(region);
                false
            }
        }
    }

    /// A frontend that was removed.
    pub(super) fn forget(&mut self, at: &FrontendAt) {
        self.frontends.remove(at);
    }

    fn find_strays(&mut self, state: &State) {
        let mut in_tables: BTreeSet<BackendId> = BTreeSet::new();
        for (at, value) in state.maps.frontends() {
            let slots = self.tables.get(&value.slots_offset).filter(|_| value.slots_len > 0);
            in_tables.extend(slots.into_iter().flatten().map(|index| (at.family(), *index)));
        }
        for (id, value) in state.maps.backends() {
            if state.maps.is_live(id) && !in_tables.contains(&id) {
                self.strays.entry(value.at).or_default().push(id.1);
            }
        }
    }

    /// Takes a backend that was draining.
    fn stray(&mut self, at: SocketAddr, family: Family) -> Option<u32> {
        let index = self.strays.get_mut(&at)?.pop()?;
        self.claimed.insert((family, index));
        Some(index)
    }
}

impl State {
    fn take_numbers(&mut self, adoption: &Adoption) {
        let used = |wanted: Family| -> BTreeSet<u32> {
            let ids = self.maps.backends().map(|(id, _)| id);
            let live = ids.filter(|id| id.0 == wanted && self.maps.is_live(*id));
            live.map(|(_, index)| index).collect()
        };
        let (used4, used6) = (used(Family::V4), used(Family::V6));
        self.backends4 = Indices::new(maps::BACKEND_ENTRIES, &used4);
        self.backends6 = Indices::new(maps::BACKEND_ENTRIES, &used6);
        self.services = Services::new(adoption.services.clone());
    }

    fn take_addresses(&mut self, observed: &Observed) {
        let Observed { addresses4, addresses6, ports, ranges, .. } = observed;
        for (service, range) in ranges {
            self.maps.add_range((*service, Family::of(range.network())), *range);
        }
        for (address, bits) in addresses4 {
            self.maps.addresses.put(IpAddr::from(*address), *bits);
        }
        for (address, bits) in addresses6 {
            self.maps.addresses.put(IpAddr::from(*address), *bits);
        }
        self.maps.addresses.doubt_all();
        for (port, bits) in ports {
            self.maps.ports.set(*port, *bits);
        }
    }

    /// The place where a group was found: told by its frontends.
    pub(super) fn claim(&mut self, key: &GroupKey, group: &Group) -> Found {
        let mut found = Found::default();
        let Some(mut adoption) = self.adoption.take() else { return found };
        for at in &group.frontends {
            if adoption.frontends.remove(at)
                && let Some(value) = self.maps.frontend(at)
            {
                found.service.get_or_insert(value.service);
                found.placed.frontends.insert(*at);
                self.claim_table((key.family, group), value, &mut adoption, &mut found.placed);
            }
        }
        for target in group.usable.iter().chain(&group.lingering) {
            if !found.placed.members.contains_key(&target.at)
                && let Some(index) = adoption.stray(target.at, key.family)
            {
                found.placed.members.insert(target.at, index);
            }
        }
        self.adoption = Some(adoption);
        found
    }

    fn claim_table(
        &self,
        (family, group): (Family, &Group),
        value: Frontend,
        adoption: &mut Adoption,
        placed: &mut Placed,
    ) {
        let region = Region { offset: value.slots_offset, len: value.slots_len };
        if region.len == 0 {
            return;
        }
        // Not there: an earlier frontend has claimed it already.
        let Some(found) = adoption.tables.remove(&region.offset) else { return };
        let indices: BTreeSet<u32> = found.iter().copied().collect();
        let backends = self.claim_backends(family, &indices, adoption);
        let sorted: Vec<_> = backends.iter().map(|(at, index)| (*at, *index)).collect();
        let weights = unless_equal(sorted.iter().map(|(at, _)| weight(group, *at)).collect());
        let exact = sorted.len() == indices.len() && slots(&sorted, &weights, self.seed) == found;
        let order = match exact {
            true => sorted.iter().map(|(_, index)| *index).collect(),
            false => indices.into_iter().collect(),
        };
        placed.members.extend(backends);
        placed.tables.push(Table { region, order, weights, exact, used: true });
    }

    /// Those of the indices that are backends of their own, by address.
    fn claim_backends(
        &self,
        family: Family,
        indices: &BTreeSet<u32>,
        adoption: &mut Adoption,
    ) -> BTreeMap<SocketAddr, u32> {
        let mut backends = BTreeMap::new();
        for index in indices {
            let id = (family, *index);
            let Some(value) = self.maps.backend(id).filter(|_| self.maps.is_live(id)) else {
                continue;
            };
            if !backends.contains_key(&value.at) && adoption.claimed.insert(id) {
                backends.insert(value.at, *index);
            }
        }
        backends
    }

    /// Frontends that were found and that nobody wants. Only a complete world can tell.
    pub(super) fn unclaimed_frontends(&self) -> Vec<FrontendAt> {
        self.adoption.iter().flat_map(|adoption| adoption.frontends.iter().copied()).collect()
    }

    /// Ends the adoption: what nobody has claimed goes.
    pub(super) fn end_adoption(&mut self) {
        let Some(adoption) = self.adoption.take() else { return };
        for (offset, slots) in adoption.tables {
            self.retire(Region { offset, len: slots.len() as u32 });
        }
        let members = |(key, placed): (&GroupKey, &Placed)| -> Vec<BackendId> {
            placed.members.values().map(|index| (key.family, *index)).collect()
        };
        let held: BTreeSet<BackendId> = self.groups.iter().flat_map(members).collect();
        let live = self.maps.backends().map(|(id, _)| id).filter(|id| self.maps.is_live(*id));
        let going: Vec<BackendId> = live.filter(|id| !held.contains(id)).collect();
        for id in going {
            let value = BackendValue::gone(id.0, self.maps.next_generation(id));
            self.let_go(id, None, value);
        }
        self.services.release_found();
        self.maps.ports.doubt_all();
    }
}

/// What a backend weighs that the table of a group may have been made of: what it weighs now. One that
/// weighs nothing now was in the table with some other weight, so any will do.
fn weight(group: &Group, at: SocketAddr) -> u32 {
    let found = group.usable.binary_search_by(|target| target.at.cmp(&at));
    found.ok().and_then(|position| group.usable.get(position)).map_or(1, |target| target.weight)
}
