//! What is measured, and what shall be reached.

use std::fmt;
use std::net::IpAddr;

use clap::ValueEnum;
use serde::Serialize;

use super::super::chart::thousands;
use super::super::goal::Bound;
use crate::lab::{Pair, Place};

/// A figure of a way to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Measure {
    /// Connections per second: connect, request, answer, close.
    NewConnections,
    /// Requests per second on connections that stay.
    KeptRequests,
    /// UDP packets per second, from one processor to another.
    UdpRate,
    /// Nanoseconds for the first packet of a flow, all on one processor.
    FirstPacket,
    /// The same for later packets.
    LaterPacket,
    /// Nanoseconds there and back of first packets: the middle one.
    FirstP50,
    /// 99 of 100 took no longer.
    FirstP99,
    /// 999 of 1,000 took no longer.
    FirstP999,
    /// Nanoseconds there and back of later packets.
    LaterP50,
    /// 99 of 100 took no longer.
    LaterP99,
    /// 999 of 1,000 took no longer.
    LaterP999,
    /// Nanoseconds of processors for a connection, client, node and server.
    CpuPerConnection,
    /// Nanoseconds of processors for a request.
    CpuPerRequest,
}

impl Measure {
    /// All of them, in the order of tables.
    pub(super) const ALL: [Self; 13] = [
        Self::FirstPacket,
        Self::LaterPacket,
        Self::NewConnections,
        Self::KeptRequests,
        Self::UdpRate,
        Self::CpuPerConnection,
        Self::CpuPerRequest,
        Self::FirstP50,
        Self::FirstP99,
        Self::FirstP999,
        Self::LaterP50,
        Self::LaterP99,
        Self::LaterP999,
    ];

    /// A heading.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::NewConnections => "new connections/s",
            Self::KeptRequests => "requests/s, kept",
            Self::UdpRate => "UDP packets/s",
            Self::FirstPacket => "first packet, one CPU",
            Self::LaterPacket => "later packets, one CPU",
            Self::FirstP50 => "first, p50",
            Self::FirstP99 => "first, p99",
            Self::FirstP999 => "first, p99.9",
            Self::LaterP50 => "later, p50",
            Self::LaterP99 => "later, p99",
            Self::LaterP999 => "later, p99.9",
            Self::CpuPerConnection => "CPU/connection",
            Self::CpuPerRequest => "CPU/request",
        }
    }

    /// Its name in files.
    pub(super) const fn slug(self) -> &'static str {
        match self {
            Self::NewConnections => "new-connections",
            Self::KeptRequests => "kept-requests",
            Self::UdpRate => "udp-rate",
            Self::FirstPacket => "first-packet",
            Self::LaterPacket => "later-packet",
            Self::FirstP50 => "first-p50",
            Self::FirstP99 => "first-p99",
            Self::FirstP999 => "first-p999",
            Self::LaterP50 => "later-p50",
            Self::LaterP99 => "later-p99",
            Self::LaterP999 => "later-p999",
            Self::CpuPerConnection => "cpu-per-connection",
            Self::CpuPerRequest => "cpu-per-request",
        }
    }

    /// Whether it is a rate, of which more is better; else it is a time.
    pub(super) const fn is_rate(self) -> bool {
        matches!(self, Self::NewConnections | Self::KeptRequests | Self::UdpRate)
    }
}

impl Measure {
    /// At least so much of a rate, at most so much of a time.
    const fn no_worse_than(self, value: f64) -> Bound {
        if self.is_rate() { Bound::AtLeast(value) } else { Bound::AtMost(value) }
    }
}

/// How packets get from the client to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Setup {
    /// Sent to the backend's own address, and routed; no conntrack.
    Routing,
    /// Sent to the nodePort, by our agent's programs in TC.
    Nodeport,
    /// Sent to the nodePort, by rules as kube-proxy's nftables mode makes them.
    Nftables,
    /// Sent to the nodePort, by rules as kube-proxy's iptables mode makes them.
    Iptables,
    /// Sent to the nodePort, by kube-proxy itself in its iptables mode.
    KubeProxy,
}

impl Setup {
    /// Its name in tables and charts.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Nodeport => "nodeport",
            Self::Nftables => "nftables rules",
            Self::Iptables => "iptables rules",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(into = "u8")]
pub enum Family {
    /// IPv4.
    #[value(name = "ipv4")]
    V4,
    /// IPv6.
    #[value(name = "ipv6")]
    V6,
}

impl From<Family> for u8 {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }
}

impl Family {
    /// Its name, as Kubernetes and people write it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The address of this family.
    pub(super) fn of(self, pair: Pair) -> IpAddr {
        match self {
            Self::V4 => pair.v4.into(),
            Self::V6 => pair.v6.into(),
        }
    }
}

/// A way that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Way {
    /// Who brings packets to the backend.
    pub setup: Setup,
    /// Where that is.
    #[serde(serialize_with = "place_name")]
    pub place: Place,
    /// Number of services.
    pub services: u32,
    /// Of what the packets are.
    pub family: Family,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn place_name<S: serde::Serializer>(place: &Place, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(self::place(*place))
}

/// The name of a place.
pub(super) const fn place(place: Place) -> &'static str {
    match place {
        Place::Remote => "remote",
        Place::Local => "local",
    }
}

impl Way {
    /// At most 15 letters, as threads' names may have.
    pub(super) fn short(self) -> String {
        let Self { setup, place: at, services, family } = self;
        format!("{:.5}-{:.1}{}-{services}", setup.name(), place(at), u8::from(family))
    }

    /// What it is held against.
    pub(super) const fn reference(self) -> Self {
        Self { setup: Setup::Routing, services: 0, ..self }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_way(f, self.setup, self.services, self.place)?;
        write!(f, ", {}", self.family.name())
    }
}

fn write_way(f: &mut fmt::Formatter<'_>, setup: Setup, services: u32, at: Place) -> fmt::Result {
    let services = match services {
        0 => String::new(),
        1 => ", 1 service".to_owned(),
        more => format!(", {} services", thousands(more)),
    };
    write!(f, "{}{services}, {} backend", setup.name(), place(at))
}

/// Ways that differ in the family alone: they share their namespaces and what runs there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    /// Who brings packets to the backend.
    pub setup: Setup,
    /// Where that is.
    pub place: Place,
    /// Number of services.
    pub services: u32,
    /// The families; there is one at least.
    pub families: Vec<Family>,
}

impl Stand {
    /// All of them.
    pub(super) fn ways(&self) -> impl Iterator<Item = Way> {
        let Self { setup, place, services, ref families } = *self;
        families.iter().map(move |family| Way { setup, place, services, family: *family })
    }
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_way(f, self.setup, self.services, self.place)
    }
}

/// A bound on the ratio of a measure of ours to that of plain routing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// What is bound.
    pub measure: Measure,
    /// Where the backend is.
    pub place: Place,
    /// With how many services.
    pub services: u32,
    /// For rates the least, for times the most.
    pub ratio: f64,
}

/// What IPv6 may take of what IPv4 takes.
const IPV6: f64 = 1.25;

/// All goals, of IPv4; IPv6 is held against it.
pub(super) const GOALS: [Goal; 9] = [
    goal(Measure::LaterPacket, Place::Remote, 1, 0.95),
    goal(Measure::LaterPacket, Place::Remote, 10_000, 0.95),
    goal(Measure::FirstPacket, Place::Remote, 1, 1.1),
    goal(Measure::FirstPacket, Place::Remote, 10_000, 1.1),
    goal(Measure::NewConnections, Place::Remote, 1, 1.02),
    goal(Measure::NewConnections, Place::Remote, 10_000, 1.02),
    goal(Measure::KeptRequests, Place::Remote, 1, 1.0),
    goal(Measure::KeptRequests, Place::Remote, 10_000, 1.0),
    goal(Measure::LaterPacket, Place::Local, 1, 0.88),
];

const fn goal(measure: Measure, place: Place, services: u32, ratio: f64) -> Goal {
    Goal { measure, place, services, ratio }
}

impl Goal {
    /// Where the ratio must lie.
    pub(super) const fn bound(&self) -> Bound {
        self.measure.no_worse_than(self.ratio)
    }

    /// Where IPv6 must lie beside IPv4.
    pub(super) const fn bound_of_ipv6(&self) -> Bound {
        self.measure.no_worse_than(if self.measure.is_rate() { 1.0 / IPV6 } else { IPV6 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_threads_are_short_and_differ() {
        let way = |setup, place, family| Way { setup, place, services: 10_000, family }.short();
        assert_eq!(way(Setup::Nodeport, Place::Remote, Family::V4), "nodep-r4-10000");
        assert_eq!(way(Setup::KubeProxy, Place::Local, Family::V6), "kube--l6-10000");
    }

    #[test]
    fn rates_must_not_be_lower_and_times_not_longer() {
        let rate = goal(Measure::NewConnections, Place::Remote, 1, 1.02);
        assert_eq!(rate.bound(), Bound::AtLeast(1.02));
        assert_eq!(rate.bound_of_ipv6(), Bound::AtLeast(0.8));
        let time = goal(Measure::LaterPacket, Place::Remote, 1, 0.95);
        assert_eq!(time.bound(), Bound::AtMost(0.95));
        assert_eq!(time.bound_of_ipv6(), Bound::AtMost(1.25));
    }
}
