//! What shall be, in terms of meaning: which frontend leads to which endpoints. Indices of
//! backends and places of slots are not part of it; `sync` gives them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::health::HealthCheck;
use crate::model::{Algorithm, Family, Name, PortName, Protocol};

/// The desired state of the data path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// All groups.
    pub groups: BTreeMap<GroupKey, Arc<Group>>,
    /// Health checks of services.
    pub health_checks: BTreeMap<Name, HealthCheck>,
    /// Addresses of the node on which nodePorts are served. None while that is not known: then it stays
    /// as it is.
    pub node_addresses: Option<BTreeSet<IpAddr>>,
}

/// What names a group: the two families of a service port live apart, so that what fails in one
/// leaves the other alone, and so do traffic from outside and from inside the cluster, whose policies may admit other endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The service port.
    pub port: PortName,
    /// The family.
    pub family: Family,
    /// Whose policy its traffic follows.
    pub traffic: Traffic,
}

impl GroupKey {
    /// All groups of a service port.
    pub fn all(port: &PortName) -> impl Iterator<Item = Self> {
        let kinds = |family| Traffic::ALL.into_iter().map(move |traffic| (family, traffic));
        let of = |(family, traffic)| Self { port: port.clone(), family, traffic };
        Family::ALL.into_iter().flat_map(kinds).map(of)
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, family, traffic } = self;
        match traffic {
            Traffic::External => write!(f, "Service {port}, {family}"),
            Traffic::Internal => write!(f, "Service {port}, {family}, ClusterIP"),
        }
    }
}

/// Whose policy traffic follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// `externalTrafficPolicy`: nodePorts, addresses of load balancers, external ones.
    External,
    /// `internalTrafficPolicy`: ClusterIPs.
    Internal,
}

impl Traffic {
    /// Both.
    pub const ALL: [Self; 2] = [Self::External, Self::Internal];
}

/// Frontends that share one table, and the endpoints behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The service port's own number.
    pub port: u16,
    /// What clients address.
    pub frontends: BTreeSet<FrontendAt>,
    /// Those of them that only some may use: clients in `ranges`.
    pub guarded: BTreeSet<FrontendAt>,
    /// Networks of the group's family, sorted, without bits behind their prefixes.
    pub ranges: Vec<IpNet>,
    /// For how many seconds a client that opens no flow is known again; 0 for not at all.
    pub affinity: u32,
    /// Which endpoint a client gets that is not known.
    pub algorithm: Algorithm,
    /// Those of them that are left to a process of the node: they open no new flows.
    pub yields: BTreeSet<FrontendAt>,
    /// Endpoints that take new flows, sorted by address: the table is made of them.
    pub usable: Vec<Target>,
    /// Endpoints that keep the flows they have and take no new ones, sorted by address. One that
    /// never took a flow needs no place in the maps.
    pub lingering: Vec<Target>,
    /// Where no endpoint is usable, packets are dropped and not refused: there are endpoints, on nodes
    /// that the policy excludes.
    pub drops: bool,
}

impl Group {
    /// Whether a packet may open a flow by some frontend.
    #[must_use]
    pub fn opens_flows(&self) -> bool {
        self.frontends.iter().any(|at| !self.yields.contains(at))
    }
}

/// What a client addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendAt {
    /// The address; the unspecified one for any address of the node.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl FrontendAt {
    /// A nodePort: on any address of the node of that family.
    #[must_use]
    pub const fn node_port(family: Family, port: u16, protocol: Protocol) -> Self {
        let address = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self { address, port, protocol }
    }

    /// Its family.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for FrontendAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, port, protocol } = self;
        if address.is_unspecified() {
            return write!(f, "nodePort {port}/{protocol} ({})", self.family());
        }
        write!(f, "{}/{protocol}", SocketAddr::new(*address, *port))
    }
}

/// An endpoint of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Where it listens.
    pub at: SocketAddr,
    /// It is on this node.
    pub local: bool,
    /// The node it is on, if it is on one.
    pub node: Option<Arc<str>>,
    /// How much it takes beside the others; 0 for no new flows.
    pub weight: u32,
}
