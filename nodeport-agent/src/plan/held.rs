//! NodePorts at which processes of the node listen, and that are left to them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use foldhash::HashMap;

use super::claims::NodePort;
use super::desired::FrontendAt;

/// Ports that are left to processes, with the addresses that these listen on; the unspecified one for
/// all of its family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(HashMap<NodePort, BTreeSet<IpAddr>>);

impl Held {
    /// Ports that are not held alike in both.
    pub(super) fn difference(&self, other: &Self) -> BTreeSet<NodePort> {
        let ports = self.0.keys().chain(other.0.keys());
        ports.filter(|port| self.0.get(port) != other.0.get(port)).copied().collect()
    }

    /// Addresses at which the port is held.
    pub(super) fn addresses(&self, port: NodePort) -> impl Iterator<Item = IpAddr> {
        self.0.get(&port).into_iter().flatten().copied()
    }

    /// Those of a service port's frontends that are left to a process. Where a nodePort is, at some of
    /// the node's addresses, `frontends` gets one for each of these.
    pub(super) fn take(
        &self,
        frontends: &mut BTreeSet<FrontendAt>,
        is_node_address: impl Fn(IpAddr) -> bool,
    ) -> BTreeSet<FrontendAt> {
        if self.0.is_empty() {
            return BTreeSet::new();
        }
        let taken: BTreeSet<_> =
            frontends.iter().flat_map(|at| self.taken(*at, &is_node_address)).collect();
        frontends.extend(&taken);
        taken
    }

    /// What of a frontend is left to a process: all of it, or the addresses in it.
    fn taken(&self, at: FrontendAt, is_node_address: impl Fn(IpAddr) -> bool) -> Vec<FrontendAt> {
        let Some(held) = self.0.get(&(at.port, at.protocol)) else { return Vec::new() };
        let any = FrontendAt::node_port(at.family(), at.port, at.protocol);
        let is_all_held = held.contains(&any.address);
        let own = |address: &&IpAddr| is_node_address(**address);
        if at != any {
            let is_held = held.contains(&at.address) || (is_all_held && own(&&at.address));
            return if is_held { vec![at] } else { Vec::new() };
        }
        if is_all_held {
            return vec![at];
        }
        let single = held.iter().filter(own).map(|address| FrontendAt { address: *address, ..at });
        single.filter(|one| one.family() == at.family()).collect()
    }
}

impl FromIterator<(NodePort, IpAddr)> for Held {
    fn from_iter<I: IntoIterator<Item = (NodePort, IpAddr)>>(held: I) -> Self {
        let mut all = Self::default();
        for (port, address) in held {
            all.0.entry(port).or_default().insert(address);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, Protocol};

    const PORT: u16 = 30_007;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn held(addresses: &[&str]) -> Held {
        addresses.iter().map(|text| ((PORT, Protocol::Tcp), address(text))).collect()
    }

    fn at(text: &str) -> FrontendAt {
        FrontendAt { address: address(text), port: PORT, protocol: Protocol::Tcp }
    }

    /// What is left to processes, of these frontends; and what all of them are then.
    fn taken(held: &Held, frontends: &[FrontendAt]) -> (Vec<String>, usize) {
        let mut all: BTreeSet<_> = frontends.iter().copied().collect();
        let own = [address("10.0.0.1"), address("10.0.0.2"), address("fd00::1")];
        let taken = held.take(&mut all, |address| own.contains(&address));
        assert!(taken.is_subset(&all));
        (taken.iter().map(|at| at.address.to_string()).collect(), all.len())
    }

    #[test]
    fn a_node_port_is_left_as_far_as_a_process_listens() {
        let (four, six) = (
            FrontendAt::node_port(Family::V4, PORT, Protocol::Tcp),
            FrontendAt::node_port(Family::V6, PORT, Protocol::Tcp),
        );
        for (addresses, of4, of6) in [
            (&[][..], &[][..], &[][..]),
            (&["0.0.0.0"], &["0.0.0.0"], &[]),
            (&["0.0.0.0", "::"], &["0.0.0.0"], &["::"]),
            (&["10.0.0.2"], &["10.0.0.2"], &[]),
            (&["10.0.0.1", "10.0.0.2", "0.0.0.0"], &["0.0.0.0"], &[]),
            (&["fd00::1"], &[], &["fd00::1"]),
            // Not an address at which nodePorts are served.
            (&["127.0.0.1", "192.0.2.9", "::1"], &[], &[]),
        ] {
            let held = held(addresses);
            assert_eq!(taken(&held, &[four]).0, of4, "{addresses:?}");
            assert_eq!(taken(&held, &[six]).0, of6, "{addresses:?}");
        }
        assert_eq!(taken(&held(&["10.0.0.2"]), &[four]).1, 2, "all others are served on");
    }

    #[test]
    fn other_ports_and_protocols_are_not_touched() {
        let udp = FrontendAt::node_port(Family::V4, PORT, Protocol::Udp);
        let other = FrontendAt::node_port(Family::V4, PORT + 1, Protocol::Tcp);
        assert_eq!(taken(&held(&["0.0.0.0"]), &[udp, other]), (vec![], 2));
    }

    /// Whoever listens on all addresses of the node does not listen on one that it has not.
    #[test]
    fn an_exact_frontend_is_left_where_its_very_address_is_listened_on() {
        let (foreign, own) = (at("192.0.2.9"), at("10.0.0.1"));
        assert_eq!(taken(&held(&["0.0.0.0"]), &[foreign, own]).0, ["10.0.0.1"]);
        assert_eq!(taken(&held(&["192.0.2.9"]), &[foreign, own]).0, ["192.0.2.9"]);
    }

    #[test]
    fn what_differs_is_told_by_port() {
        let (one, two) = (held(&["0.0.0.0"]), held(&["10.0.0.1"]));
        assert_eq!(one.difference(&two), [(PORT, Protocol::Tcp)].into());
        assert_eq!(one.difference(&one), BTreeSet::new());
        assert_eq!(Held::default().difference(&one).len(), 1);
        assert_eq!(one.difference(&Held::default()).len(), 1);
    }
}
