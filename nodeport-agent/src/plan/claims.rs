//! Which Service has which nodePort, and which port of which address. Two may ask for one: then the
//! older Service has it, on every node alike, and the other gets it when the first goes.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::HashMap;

use crate::model::{Name, Protocol, Service, ServiceAddress};

/// A nodePort. The same number of two protocols is two of them.
pub type NodePort = (u16, Protocol);

/// What a Service may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Claim {
    /// The address; none for a nodePort.
    address: Option<IpAddr>,
    port: u16,
    protocol: Protocol,
}

impl Claim {
    pub(super) const fn node_port((port, protocol): NodePort) -> Self {
        Self { address: None, port, protocol }
    }

    pub(super) const fn at(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self { address: Some(address), port, protocol }
    }

    /// The nodePort, if it is one.
    pub(super) const fn as_node_port(self) -> Option<NodePort> {
        match self.address {
            None => Some((self.port, self.protocol)),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => self.port.fmt(f),
            Some(address) => {
                write!(f, "{}/{}", SocketAddr::new(address, self.port), self.protocol)
            }
        }
    }
}

/// Who asks for what.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claimants: HashMap<Claim, BTreeSet<Claimant>>,
    claimed: HashMap<Name, Vec<Claim>>,
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
    /// What came, went, or has another owner.
    pub(super) claims: Vec<Claim>,
    /// Services that ask for one of them.
    pub(super) services: BTreeSet<Name>,
}

impl Claims {
    /// The Service that has it.
    pub(super) fn owner(&self, claim: Claim) -> Option<&Name> {
        self.claimants.get(&claim)?.first().map(|claimant| &claimant.name)
    }

    /// Replaces what a Service asks for.
    pub(super) fn replace(&mut self, name: &Name, service: Option<&Service>) -> Moved {
        let old = self.claimed.remove(name).unwrap_or_default();
        let new: Vec<_> = service.iter().flat_map(|service| claims(service)).collect();
        let touched: BTreeSet<_> = old.iter().chain(&new).copied().collect();
        let before: Vec<_> = touched.iter().map(|claim| self.owner(*claim).cloned()).collect();
        self.remove(name, &old);
        if let Some(service) = service {
            self.insert(service, new);
        }
        self.moved(touched.into_iter().zip(before))
    }

    fn remove(&mut self, name: &Name, claims: &[Claim]) {
        for claim in claims {
            let Some(claimants) = self.claimants.get_mut(claim) else { continue };
            claimants.retain(|claimant| claimant.name != *name);
            if claimants.is_empty() {
                self.claimants.remove(claim);
            }
        }
    }

    fn insert(&mut self, service: &Service, claims: Vec<Claim>) {
        let claimant = Claimant {
            timeless: service.created.is_none(),
            created: service.created.unwrap_or_default(),
            uid: service.uid.clone(),
            name: service.name.clone(),
        };
        for claim in &claims {
            self.claimants.entry(*claim).or_default().insert(claimant.clone());
        }
        if !claims.is_empty() {
            self.claimed.insert(service.name.clone(), claims);
        }
    }

    fn moved(&self, before: impl Iterator<Item = (Claim, Option<Name>)>) -> Moved {
        let mut moved = Moved::default();
        for (claim, owner) in before {
            if self.owner(claim) != owner.as_ref() {
                moved.claims.push(claim);
                let claimants = self.claimants.get(&claim).into_iter().flatten();
                moved.services.extend(claimants.map(|claimant| claimant.name.clone()));
                moved.services.extend(owner);
            }
        }
        moved
    }
}

fn claims(service: &Service) -> impl Iterator<Item = Claim> {
    service.ports.iter().flat_map(|port| {
        let node_port = port.node_port.map(|number| Claim::node_port((number, port.protocol)));
        let at = |one: &ServiceAddress| Claim::at(one.address, port.port, port.protocol);
        node_port.into_iter().chain(service.addresses.iter().map(at))
    })
}
