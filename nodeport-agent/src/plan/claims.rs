//! Which service port has which nodePort. Two may ask for one: then the older Service has it,
//! on every node alike, and the other gets it when the first goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;

use crate::model::{Name, Protocol, Service};

/// A nodePort. The same number of two protocols is two of them.
pub type NodePort = (u16, Protocol);

/// Who asks for which nodePort.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claimants: HashMap<NodePort, BTreeSet<Claimant>>,
    claimed: HashMap<Name, Vec<NodePort>>,
}

/// One that asks; the least has it. A Service without a time of creation, from a manifest,
/// counts as younger than any with one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claimant {
    timeless: bool,
    created: i64,
    uid: Arc<str>,
    name: Name,
}

/// What a change of claims touches.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// NodePorts that came, went, or have another owner.
    pub(super) ports: Vec<NodePort>,
    /// Services that ask for one of them.
    pub(super) services: BTreeSet<Name>,
}

impl Claims {
    /// The Service that has the nodePort.
    pub(super) fn owner(&self, port: NodePort) -> Option<&Name> {
        self.claimants.get(&port)?.first().map(|claimant| &claimant.name)
    }

    /// Replaces what a Service asks for.
    pub(super) fn replace(&mut self, name: &Name, service: Option<&Service>) -> Moved {
        let old = self.claimed.remove(name).unwrap_or_default();
        let new: Vec<_> = service.iter().flat_map(|service| node_ports(service)).collect();
        let touched: BTreeSet<_> = old.iter().chain(&new).copied().collect();
        let before: Vec<_> = touched.iter().map(|port| self.owner(*port).cloned()).collect();
        self.remove(name, &old);
        if let Some(service) = service {
            self.insert(service, new);
        }
        self.moved(touched.into_iter().zip(before))
    }

    fn remove(&mut self, name: &Name, ports: &[NodePort]) {
        for port in ports {
            let Some(claimants) = self.claimants.get_mut(port) else { continue };
            claimants.retain(|claimant| claimant.name != *name);
            if claimants.is_empty() {
                self.claimants.remove(port);
            }
        }
    }

    fn insert(&mut self, service: &Service, ports: Vec<NodePort>) {
        let claimant = Claimant {
            timeless: service.created.is_none(),
            created: service.created.unwrap_or_default(),
            uid: service.uid.clone(),
            name: service.name.clone(),
        };
        for port in &ports {
            self.claimants.entry(*port).or_default().insert(claimant.clone());
        }
        if !ports.is_empty() {
            self.claimed.insert(service.name.clone(), ports);
        }
    }

    fn moved(&self, before: impl Iterator<Item = (NodePort, Option<Name>)>) -> Moved {
        let mut moved = Moved::default();
        for (port, owner) in before {
            if self.owner(port) != owner.as_ref() {
                moved.ports.push(port);
                let claimants = self.claimants.get(&port).into_iter().flatten();
                moved.services.extend(claimants.map(|claimant| claimant.name.clone()));
                moved.services.extend(owner);
            }
        }
        moved
    }
}

fn node_ports(service: &Service) -> impl Iterator<Item = NodePort> {
    service.ports.iter().map(|port| (port.node_port, port.protocol))
}
