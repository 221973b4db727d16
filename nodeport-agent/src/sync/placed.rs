//! Where a group has its place in the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nodeport_common::core::maglev::{self, Preference};

use super::regions::Region;
use crate::plan::FrontendAt;

/// The place of a group. It may lag behind the plan where a write failed.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Id of the service port.
    pub(super) service: u32,
    /// Indices of all its backends that are not gone.
    pub(super) members: BTreeMap<SocketAddr, u32>,
    /// Frontends that hold its service id.
    pub(super) frontends: BTreeSet<FrontendAt>,
    /// Its tables. There is more than one only while a frontend could not be switched.
    pub(super) tables: Vec<Table>,
}

/// A table in the `slots` map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) region: Region,
    /// The indices in it, sorted by the addresses of their backends.
    pub(super) order: Vec<u32>,
    /// Their weights, if they are not all the same.
    pub(super) weights: Vec<u32>,
    /// Its slots are what [`slots`] makes of that order; else it was found like that.
    pub(super) exact: bool,
    /// Some frontend has pointed to it, so a packet may still be reading it.
    pub(super) used: bool,
}

impl Placed {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.frontends.is_empty() && self.tables.is_empty()
    }

    /// The table of exactly these backends and weights, if it is there.
    pub(super) fn table(&self, order: &[u32], weights: &[u32]) -> Option<&Table> {
        let is_it = |table: &&Table| table.order == order && table.weights == weights;
        self.tables.iter().filter(|table| table.exact).find(is_it)
    }
}

/// The same, or nothing if all are equal: then the table is that of backends without weights.
pub(super) fn unless_equal(weights: Vec<u32>) -> Vec<u32> {
    let are_equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
    if are_equal { Vec::new() } else { weights }
}

/// The slots of a table: for each the index of a backend. The backends must be sorted by address;
/// those that have no weight are all of the same.
pub(super) fn slots(backends: &[(SocketAddr, u32)], weights: &[u32], seed: u32) -> Vec<u32> {
    let len = maglev::table_len(backends.len());
    let weights = weights.iter().copied().chain(std::iter::repeat(1));
    let preference =
        |((at, _), weight): (&(SocketAddr, u32), u32)| preference(*at, seed, len).weighing(weight);
    let mut preferences: Vec<_> = backends.iter().zip(weights).map(preference).collect();
    let mut slots = vec![0; len as usize];
    maglev::fill(&mut preferences, &mut slots);
    for slot in &mut slots {
        *slot = backends.get(*slot as usize).map_or(0, |(_, index)| *index);
    }
    slots
}

fn preference(at: SocketAddr, seed: u32, len: u32) -> Preference {
    match at {
        SocketAddr::V4(at) => Preference::new(&at.ip().octets(), at.port(), seed, len),
        SocketAddr::V6(at) => Preference::new(&at.ip().octets(), at.port(), seed, len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_name_the_indices_of_all_backends() {
        let backends: Vec<(SocketAddr, u32)> =
            (1..=5).map(|n| (SocketAddr::from(([10, 0, 0, n], 80)), 100 + u32::from(n))).collect();
        let slots = slots(&backends, &[], 7);
        assert_eq!(slots.len(), 509);
        for (_, index) in &backends {
            let count = slots.iter().filter(|slot| *slot == index).count();
            assert!((101..=102).contains(&count), "{index}: {count}");
        }
    }

    #[test]
    fn slots_follow_weights() {
        let backends: Vec<(SocketAddr, u32)> =
            (1..=4).map(|n| (SocketAddr::from(([10, 0, 0, n], 80)), 100 + u32::from(n))).collect();
        let slots = slots(&backends, &[1, 2, 3, 4], 7);
        for (part, (_, index)) in (1..).zip(&backends) {
            let count = slots.iter().filter(|slot| *slot == index).count();
            assert!(count.abs_diff(51 * part) <= 2, "{index}: {count}");
        }
    }

    #[test]
    fn equal_weights_are_none() {
        assert!(unless_equal(vec![3, 3]).is_empty());
        assert!(unless_equal(vec![3]).is_empty());
        assert_eq!(unless_equal(vec![3, 2]), [3, 2]);
    }

    #[test]
    fn without_backends_there_are_no_slots() {
        assert!(slots(&[], &[], 7).is_empty());
    }
}
