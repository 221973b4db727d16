//! What other commands shall know of the services: the plan's names beside the maps' numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nodeport_common::abi::BACKEND_DRAINING;

use crate::model::Name;
use crate::plan::{Desired, Group, GroupKey};
use crate::state_file::{Backend, Frontend, Service};
use crate::sync::{Member, Sync};

/// The service ports that have a place in the maps. Those that did not change are not told anew:
/// of ten thousand, a few do.
#[derive(Debug, Default)]
pub(super) struct Services {
    told: BTreeMap<GroupKey, Arc<Service>>,
    /// Groups whose place may be another than was told.
    outdated: BTreeSet<GroupKey>,
}

impl Services {
    /// The place of these groups may be another now.
    pub(super) fn outdate(&mut self, groups: impl IntoIterator<Item = GroupKey>) {
        self.outdated.extend(groups);
    }

    /// The Service whose port has this id.
    pub(super) fn name(&mut self, id: u32, desired: &Desired, sync: &Sync) -> Option<Name> {
        self.renew(desired, sync);
        let found = self.told.values().find(|service| service.id == id);
        found.map(|service| service.service.clone())
    }

    /// All of them.
    pub(super) fn all(&mut self, desired: &Desired, sync: &Sync) -> Vec<Arc<Service>> {
        self.renew(desired, sync);
        self.told.values().cloned().collect()
    }

    fn renew(&mut self, desired: &Desired, sync: &Sync) {
        for key in std::mem::take(&mut self.outdated) {
            let now = desired.groups.get(&key).and_then(|group| service(&key, group, sync));
            match now {
                Some(service) => self.told.insert(key, Arc::new(service)),
                None => self.told.remove(&key),
            };
        }
    }
}

fn service(key: &GroupKey, group: &Group, sync: &Sync) -> Option<Service> {
    let (id, members) = sync.place(key)?;
    let frontends = group.frontends.iter().map(|at| Frontend {
        address: (!at.address.is_unspecified()).then_some(at.address),
        port: at.port,
    });
    Some(Service {
        id,
        service: key.port.service.clone(),
        port_name: key.port.port.to_string(),
        port: group.port,
        protocol: key.port.protocol,
        family: key.family,
        frontends: frontends.collect(),
        backends: members.into_iter().map(|member| backend(group, member)).collect(),
    })
}

fn backend(group: &Group, member: Member) -> Backend {
    let Member { index, at, generation, state, local } = member;
    let mut targets = group.usable.iter().chain(&group.lingering);
    let node = targets.find(|target| target.at == at).and_then(|target| target.node.as_deref());
    Backend {
        index,
        generation,
        address: at.ip(),
        port: at.port(),
        node: node.map(str::to_owned),
        local,
        draining: state == BACKEND_DRAINING,
    }
}
