//! The services of the clusters that are compared: the same for all candidates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest as _, Sha256};

use super::measure::Family;
use crate::lab::Pair;

/// The port that all endpoints listen on.
pub(super) const ENDPOINT_PORT: u16 = 8_080;
/// The port of all cluster addresses.
pub(super) const SERVICE_PORT: u16 = 80;
/// The first nodePort; each service takes the next one.
pub(super) const FIRST_NODE_PORT: u16 = 30_000;
/// The largest number of services: nodePorts above the ports that the agent translates to.
pub(super) const MOST_SERVICES: u32 = 30_000;

/// Where all pods are.
pub(super) const fn pod_net(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.0.0/16",
        Family::V6 => "fd00:244::/32",
    }
}

/// Where all cluster addresses are.
pub(super) const fn service_net(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.96.0.0/12",
        Family::V6 => "fd00:96::/108",
    }
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name in manifests.
    pub(super) const fn upper(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// Its name in rules.
    pub(super) const fn lower(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServicePort<'a> {
    /// The service that it is of.
    pub service: &'a Service,
    /// What it speaks.
    pub protocol: Protocol,
    /// Of which addresses.
    pub family: Family,
}

/// A service of two endpoints.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Its cluster addresses.
    pub cluster_ip: Pair,
    /// Its nodePort, for all protocols.
    pub node_port: u16,
    /// Its ports' protocols.
    pub protocols: &'static [Protocol],
    /// The addresses of its pods.
    pub endpoints: [Pair; 2],
}

/// The first cluster address, and the first of the pods that are not there.
const CLUSTER_IPS: Pair =
    Pair { v4: Ipv4Addr::new(10, 96, 1, 0), v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x100) };
const OTHER_PODS: Pair = Pair {
    v4: Ipv4Addr::new(10, 244, 16, 0),
    v6: Ipv6Addr::new(0xfd00, 0x244, 0x10, 0, 0, 0, 0, 0),
};

/// The addresses behind a pair by a number.
fn plus(pair: Pair, number: u32) -> Pair {
    Pair {
        v4: Ipv4Addr::from_bits(pair.v4.to_bits() + number),
        v6: Ipv6Addr::from_bits(pair.v6.to_bits() + u128::from(number)),
    }
}

/// A number of services. The middle one is the one that is measured: it has the backend's
/// addresses, for TCP and UDP. Where rules are met one after the other, the middle one is what a
/// service meets on average.
pub(super) fn services(count: u32, backend: [Pair; 2]) -> Vec<Service> {
    let measured = count / 2;
    (0..count.min(MOST_SERVICES))
        .map(|index| {
            let others = [OTHER_PODS, plus(OTHER_PODS, 1)].map(|first| plus(first, index * 2));
            Service {
                name: format!("svc-{index}"),
                cluster_ip: plus(CLUSTER_IPS, index),
                node_port: FIRST_NODE_PORT + index as u16,
                protocols: match index == measured {
                    true => &[Protocol::Tcp, Protocol::Udp],
                    false => &[Protocol::Tcp],
                },
                endpoints: if index == measured { backend } else { others },
            }
        })
        .collect()
}

/// The nodePort of the service that is measured.
pub(super) fn measured_port(count: u32) -> u16 {
    FIRST_NODE_PORT + (count / 2) as u16
}

/// Every port of every service.
pub(super) fn ports(services: &[Service], family: Family) -> impl Iterator<Item = ServicePort<'_>> {
    services.iter().flat_map(move |service| {
        let of = move |protocol: &Protocol| ServicePort { service, protocol: *protocol, family };
        service.protocols.iter().map(of)
    })
}

impl ServicePort<'_> {
    /// Its name as kube-proxy writes it into comments.
    pub(super) fn name(&self) -> String {
        format!("default/{}:{}", self.service.name, self.protocol.lower())
    }

    /// Its cluster address.
    pub(super) fn cluster_ip(&self) -> IpAddr {
        self.family.of(self.service.cluster_ip)
    }

    /// The addresses of its pods.
    pub(super) fn endpoints(&self) -> [IpAddr; 2] {
        self.service.endpoints.map(|pair| self.family.of(pair))
    }

    /// What names of its chains differ by.
    pub(super) fn id(&self, endpoint: Option<IpAddr>) -> String {
        let endpoint = endpoint.map(|address| address.to_string()).unwrap_or_default();
        short_hash(&format!("{}{}{endpoint}", self.name(), self.protocol.lower()))
    }
}

/// 16 characters of base 32, as kube-proxy's chains have.
fn short_hash(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(text);
    let bits = |index: usize| {
        let (byte, shift) = (index * 5 / 8, index * 5 % 8);
        let pair = u16::from(digest[byte]) << 8 | u16::from(digest[byte + 1]);
        usize::from(pair >> (11 - shift) & 31)
    };
    (0..16).map(|index| char::from(ALPHABET[bits(index)])).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The addresses of a backend.
    pub(in super::super) const BACKEND: [Pair; 2] = [backend(1), backend(2)];

    const fn backend(last: u8) -> Pair {
        Pair {
            v4: Ipv4Addr::new(10, 244, 2, last),
            v6: Ipv6Addr::new(0xfd00, 0x244, 2, 0, 0, 0, 0, last as u16),
        }
    }

    #[test]
    fn the_middle_service_has_the_backends_and_all_others_have_their_own() {
        for count in [1, 2, 1_000, 10_000] {
            let services = services(count, BACKEND);
            let ours: Vec<_> = services.iter().filter(|s| s.endpoints == BACKEND).collect();
            assert_eq!((services.len(), ours.len()), (count as usize, 1));
            assert_eq!(ours[0].node_port, measured_port(count));
            assert_eq!(ours[0].protocols.len(), 2);
            let all: HashSet<_> = services.iter().flat_map(|s| s.endpoints).collect();
            assert_eq!(all.len(), count as usize * 2);
            let all: HashSet<_> = all.iter().flat_map(|pair| pair.both()).collect();
            assert_eq!(all.len(), count as usize * 4);
        }
    }

    #[test]
    fn chains_of_ten_thousand_services_have_names_of_their_own() {
        let services = services(10_000, BACKEND);
        let ids: HashSet<_> = ports(&services, Family::V4).map(|port| port.id(None)).collect();
        assert_eq!(ids.len(), 10_001);
        assert!(ids.iter().all(|id| id.len() == 16));
    }

    #[test]
    fn a_short_hash_is_the_beginning_of_the_digest_in_base_32() {
        // The digest of the empty text begins with e3 b0 c4 42 98: 11100 01110 11000 01100 ...
        assert!(short_hash("").starts_with("4OYMI"));
    }
}
