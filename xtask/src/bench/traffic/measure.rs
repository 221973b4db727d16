//! What is measured, and what shall be reached.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::super::goal::Bound;
use crate::lab::Place;

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
        let (setup, at) = (self.setup.name(), place(self.place));
        format!("{:.5}-{at:.3}-{}", setup, self.services)
    }

    /// What it is held against.
    pub(super) const fn reference(self) -> Self {
        Self { setup: Setup::Routing, services: 0, ..self }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setup, place: at, services } = self;
        match services {
            0 => write!(f, "{}, {} backend", setup.name(), place(*at)),
            1 => write!(f, "{}, 1 service, {} backend", setup.name(), place(*at)),
            more => write!(f, "{}, {more} services, {} backend", setup.name(), place(*at)),
        }
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

/// All goals.
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
        if self.measure.is_rate() { Bound::AtLeast(self.ratio) } else { Bound::AtMost(self.ratio) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_threads_are_short_and_differ() {
        let way = |setup, place| Way { setup, place, services: 10_000 }.short();
        assert_eq!(way(Setup::Nodeport, Place::Remote), "nodep-rem-10000");
        assert_eq!(way(Setup::KubeProxy, Place::Local), "kube--loc-10000");
    }

    #[test]
    fn rates_must_not_be_lower_and_times_not_longer() {
        let rate = goal(Measure::NewConnections, Place::Remote, 1, 1.02);
        assert_eq!(rate.bound(), Bound::AtLeast(1.02));
        let time = goal(Measure::LaterPacket, Place::Remote, 1, 0.95);
        assert_eq!(time.bound(), Bound::AtMost(0.95));
    }
}
