//! Who has which address. The same in every topology, so that tests need not ask.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address in both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// Both, IPv4 first.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.v4, self.v6)
    }
}

/// A subnet in both families.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net {
    pub base: Pair,
    pub bits4: u8,
    pub bits6: u8,
}

impl Net {
    /// The subnet as `ip` takes it, one for each family.
    pub(super) fn both(self) -> [String; 2] {
        [format!("{}/{}", self.base.v4, self.bits4), format!("{}/{}", self.base.v6, self.bits6)]
    }
}

/// Where all nodes are.
pub(super) const NODES: Net = net(pair(10, 0, 0, 0), 24, 64);
/// Where all clients are.
pub(super) const CLIENTS: Net = net(pair(20, 0, 0, 0), 16, 32);
/// The router, seen from nodes.
pub(super) const ROUTER_AT_NODES: Pair = pair(10, 0, 0, 254);
/// The router, seen from clients.
pub(super) const ROUTER_AT_CLIENTS: Pair = pair(20, 0, 255, 254);

/// The node of a line, on its link to a remote backend.
pub(super) const UPLINK_HERE: Pair = pair(11, 0, 0, 1);
/// The other end of that link.
pub(super) const UPLINK_THERE: Pair = pair(11, 0, 0, 2);

/// Node `number`, from 1.
pub(super) const fn node(number: u8) -> Pair {
    pair(10, 0, 0, number)
}

/// Address `index` of client `number`, both from 1.
pub(super) const fn client(number: u8, index: u8) -> Pair {
    pair(20, number as u16, number, index)
}

/// Pod `index` of node `number`, both from 1.
pub(super) const fn pod(number: u8, index: u8) -> Pair {
    pair(244, number as u16, number, index)
}

/// All pods of node `number`.
pub(super) const fn pod_net(number: u8) -> Net {
    net(pod(number, 0), 24, 64)
}

/// The pods' next hop on node `number`.
pub(super) const fn pod_gateway(number: u8) -> Pair {
    pod(number, 254)
}

/// The VXLAN device of node `number`.
pub(super) const fn tunnel(number: u8) -> Pair {
    pod(number, 253)
}

/// `10.A.C.D` and `fd00:A:B::D`, where A is written with the same digits in both.
const fn pair(a: u8, b: u16, c: u8, d: u8) -> Pair {
    // 244 as 0x244: read by people.
    let group = (a as u16 / 100) << 8 | (a as u16 / 10 % 10) << 4 | (a as u16 % 10);
    Pair {
        v4: Ipv4Addr::new(10, a, c, d),
        v6: Ipv6Addr::new(0xfd00, group, b, 0, 0, 0, 0, d as u16),
    }
}

const fn net(base: Pair, bits4: u8, bits6: u8) -> Net {
    Net { base, bits4, bits6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_alike_in_both_families() {
        assert_eq!(pod(2, 1).to_string(), "10.244.2.1 fd00:244:2::1");
        assert_eq!(client(1, 8).to_string(), "10.20.1.8 fd00:20:1::8");
        assert_eq!(node(2).to_string(), "10.10.0.2 fd00:10::2");
        assert_eq!(pod_net(3).both(), ["10.244.3.0/24", "fd00:244:3::/64"]);
    }
}
