//! What the maps hold, as far as we know: what was found at the start, and every write since
//! that did not fail.

use std::collections::BTreeSet;

use foldhash::HashMap;
use ipnet::IpNet;
use nodeport_common::abi::{BACKEND_GONE, Frontend};

use super::addresses::Addresses;
use super::ops::BackendValue;
use super::ports::Ports;
use crate::model::Family;
use crate::plan::FrontendAt;

/// Index of a backend in the map of its family.
pub(super) type BackendId = (Family, u32);

/// Id of a service port, and the family of its source ranges.
pub(super) type RangesOf = (u32, Family);

/// The contents of the maps.
#[derive(Debug, Default)]
pub(super) struct Maps {
    /// By which packets choose slots.
    pub(super) seed: u32,
    frontends: HashMap<FrontendAt, Frontend>,
    /// By index, of each family: indices are given out from the lowest on.
    backends4: Vec<Option<BackendValue>>,
    backends6: Vec<Option<BackendValue>>,
    pub(super) addresses: Addresses,
    pub(super) ports: Ports,
    /// Networks whose clients may use guarded frontends, of each service port.
    ranges: HashMap<RangesOf, BTreeSet<IpNet>>,
    /// How many frontends point to the table at an offset.
    references: HashMap<u32, u32>,
}

impl Maps {
    /// Empty ones.
    pub(super) fn new(seed: u32) -> Self {
        Self { seed, ..Self::default() }
    }

    pub(super) fn frontend(&self, at: &FrontendAt) -> Option<Frontend> {
        self.frontends.get(at).copied()
    }

    pub(super) fn backend(&self, (family, index): BackendId) -> Option<&BackendValue> {
        let backends = match family {
            Family::V4 => &self.backends4,
            Family::V6 => &self.backends6,
        };
        backends.get(index as usize)?.as_ref()
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = (BackendId, &BackendValue)> {
        let families = [(Family::V4, &self.backends4), (Family::V6, &self.backends6)];
        families.into_iter().flat_map(|(family, backends)| {
            let numbered = (0..).zip(backends);
            numbered.filter_map(move |(index, value)| Some(((family, index), value.as_ref()?)))
        })
    }

    pub(super) fn frontends(&self) -> impl Iterator<Item = (&FrontendAt, &Frontend)> {
        self.frontends.iter()
    }

    /// Whether some frontend points to the table at that offset.
    pub(super) fn is_referenced(&self, offset: u32) -> bool {
        self.references.contains_key(&offset)
    }

    pub(super) fn put_frontend(&mut self, at: FrontendAt, value: Frontend) {
        self.remove_frontend(&at);
        self.frontends.insert(at, value);
        self.ports.hold_frontend(at.port);
        self.addresses.name(at.address);
        if value.slots_len > 0 {
            hold(&mut self.references, value.slots_offset);
        }
    }

    pub(super) fn remove_frontend(&mut self, at: &FrontendAt) {
        let Some(old) = self.frontends.remove(at) else { return };
        self.addresses.unname(at.address);
        if old.slots_len > 0 {
            release(&mut self.references, old.slots_offset);
        }
        self.ports.release_frontend(at.port);
    }

    /// The source ranges of a service port; empty if it has none.
    pub(super) fn ranges(&self, of: RangesOf) -> impl Iterator<Item = &IpNet> {
        self.ranges.get(&of).into_iter().flatten()
    }

    pub(super) fn has_range(&self, of: RangesOf, range: &IpNet) -> bool {
        self.ranges.get(&of).is_some_and(|ranges| ranges.contains(range))
    }

    pub(super) fn has_ranges(&self, of: RangesOf) -> bool {
        self.ranges.contains_key(&of)
    }

    /// Whose there are.
    pub(super) fn guarded(&self) -> impl Iterator<Item = RangesOf> {
        self.ranges.keys().copied()
    }

    pub(super) fn add_range(&mut self, of: RangesOf, range: IpNet) {
        self.ranges.entry(of).or_default().insert(range);
    }

    pub(super) fn remove_range(&mut self, of: RangesOf, range: &IpNet) {
        let Some(ranges) = self.ranges.get_mut(&of) else { return };
        ranges.remove(range);
        if ranges.is_empty() {
            self.ranges.remove(&of);
        }
    }

    pub(super) fn put_backend(&mut self, id: BackendId, value: BackendValue) {
        let (family, index) = (id.0, id.1 as usize);
        let backends = match family {
            Family::V4 => &mut self.backends4,
            Family::V6 => &mut self.backends6,
        };
        if backends.len() <= index {
            backends.resize(index + 1, None);
        }
        let old = backends[index].replace(value);
        if value.may_answer_here() {
            self.ports.hold_backend(value.at.port());
        }
        if let Some(old) = old.filter(BackendValue::may_answer_here) {
            self.ports.release_backend(old.at.port());
        }
    }

    /// The generation that a new backend at this index has: one that no flow can know.
    pub(super) fn next_generation(&self, id: BackendId) -> u32 {
        self.backend(id).map_or(0, |value| value.generation).wrapping_add(1)
    }

    /// Whether the index has a backend.
    pub(super) fn is_live(&self, id: BackendId) -> bool {
        self.backend(id).is_some_and(|value| value.state != BACKEND_GONE)
    }
}

pub(super) fn hold<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) {
    *counts.entry(key).or_insert(0) += 1;
}

/// Returns whether that was the last.
pub(super) fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) -> bool {
    let Some(count) = counts.get_mut(&key) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
        return true;
    }
    false
}
