//! What other commands shall know of the services: the plan's names beside the maps' numbers.

use std::sync::Arc;

use nodeport_common::abi::BACKEND_DRAINING;

use super::directory::Directory;
use crate::model::Name;
use crate::plan::{Desired, Group, GroupKey};
use crate::state_file::{Backend, Frontend, Service};
use crate::sync::{Member, Sync};

/// The service ports that have a place in the maps. Those that did not change are not told anew:
/// of ten thousand, a few do.
#[derive(Debug, Default)]
pub(super) struct Services {
    told: Arc<Directory>,
}

impl Services {
    /// Where they can be read.
    pub(super) const fn directory(&self) -> &Arc<Directory> {
        &self.told
    }

    /// The place of these groups may be another now.
    pub(super) fn renew(
        &self,
        groups: impl IntoIterator<Item = GroupKey>,
        desired: &Desired,
        sync: &Sync,
    ) {
        for key in groups {
            let group = desired.groups.get(&key);
            let now = group.and_then(|group| Some((service(&key, group, sync)?, group)));
            match now {
                Some((service, group)) => {
                    let no_local = group.drops && group.usable.is_empty();
                    self.told.put(key, service, no_local);
                }
                None => self.told.remove(&key),
            }
        }
    }

    /// The Service whose port has this id.
    pub(super) fn name(&self, id: u32) -> Option<Name> {
        self.told.find(id).map(|service| service.service.clone())
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Service>> {
        self.told.services()
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
