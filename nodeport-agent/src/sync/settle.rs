//! After the writes for a group: what nothing points to any more is set aside, to be freed when
//! no packet can be reading it ([`super::tidy`]).

use std::net::SocketAddr;

use nodeport_common::abi::BACKEND_DRAINING;

use super::maps::BackendId;
use super::ops::BackendValue;
use super::placed::Placed;
use super::state::State;
use crate::plan::{FrontendAt, Group, GroupKey, Target};

impl State {
    /// Frontends that still lead to this group, against the plan: their new owner could not
    /// take them over, or they could not be removed.
    pub(super) fn astray(&self, key: &GroupKey, group: Option<&Group>) -> Vec<FrontendAt> {
        let Some(placed) = self.groups.get(key) else { return Vec::new() };
        let held = placed.frontends.iter().filter(|at| self.leads_to(at, placed));
        held.filter(|at| !group.is_some_and(|group| group.frontends.contains(at)))
            .copied()
            .collect()
    }

    fn leads_to(&self, at: &FrontendAt, placed: &Placed) -> bool {
        let has = |offset| placed.tables.iter().any(|table| table.region.offset == offset);
        self.maps.frontend(at).is_some_and(|value| {
            value.service == placed.service || (value.slots_len > 0 && has(value.slots_offset))
        })
    }

    /// Sets aside what the group has and no longer needs.
    pub(super) fn settle(&mut self, key: &GroupKey, group: Option<&Group>) {
        self.touched.insert(key.clone());
        let Some(mut placed) = self.groups.remove(key) else { return };
        let mut frontends = std::mem::take(&mut placed.frontends);
        frontends.retain(|at| self.leads_to(at, &placed));
        placed.frontends = frontends;
        self.settle_tables(&mut placed);
        self.settle_members(key, &placed, group);
        self.groups.insert(key.clone(), placed);
        self.forget_if_empty(key);
    }

    fn settle_tables(&mut self, placed: &mut Placed) {
        let Self { maps, regions, retired, barriers, .. } = self;
        placed.tables.retain_mut(|table| {
            if maps.is_referenced(table.region.offset) {
                table.used = true;
                return true;
            }
            match table.used {
                true => retired.push((barriers.next(), table.region)),
                // No packet has ever read it.
                false => regions.free(table.region),
            }
            false
        });
    }

    fn settle_members(&mut self, key: &GroupKey, placed: &Placed, group: Option<&Group>) {
        let mut in_tables: Vec<u32> =
            placed.tables.iter().flat_map(|table| table.order.iter().copied()).collect();
        in_tables.sort_unstable();
        for (at, index) in &placed.members {
            let id = (key.family, *index);
            match self.future(id, *at, group, in_tables.binary_search(index).is_ok()) {
                Some(value) => self.let_go(id, Some((key.clone(), *at)), value),
                None => {
                    self.departures.remove(&id);
                }
            }
        }
    }

    /// What becomes of a backend once no packet is on its way to it; none if it stays as it is.
    fn future(
        &self,
        id: BackendId,
        at: SocketAddr,
        group: Option<&Group>,
        in_table: bool,
    ) -> Option<BackendValue> {
        if in_table || group.is_some_and(|group| find(&group.usable, at).is_some()) {
            return None;
        }
        // One that could never be written has no flows that go on.
        let lingering = group.and_then(|group| find(&group.lingering, at));
        let Some(target) = lingering.filter(|_| self.maps.is_live(id)) else {
            return Some(BackendValue::gone(id.0, self.maps.next_generation(id)));
        };
        let draining = self.value(id, target, BACKEND_DRAINING);
        (self.maps.backend(id) != Some(&draining)).then_some(draining)
    }
}

fn find(targets: &[Target], at: SocketAddr) -> Option<&Target> {
    let position = targets.binary_search_by(|target| target.at.cmp(&at)).ok()?;
    targets.get(position)
}
