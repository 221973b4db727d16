//! Parties with addresses in both families, so that one test is two.

use std::net::{IpAddr, SocketAddr};

use crate::abi::{FlowKey, Ports};
use crate::core::family::{V4, V6};
use crate::core::host::OnHost;

/// A family's addresses of the same parties.
pub trait Net: OnHost {
    /// The address as a map has it.
    ///
    /// # Panics
    /// If it is of the other family.
    fn bytes(ip: IpAddr) -> Self::Addr;
    /// The address of party `number` of net `net`.
    fn party(net: u8, number: u8) -> IpAddr;
}

impl Net for V4 {
    fn bytes(ip: IpAddr) -> [u8; 4] {
        match ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(_) => panic!("{ip} in IPv4"),
        }
    }

    fn party(net: u8, number: u8) -> IpAddr {
        [10, 1, net, number].into()
    }
}

impl Net for V6 {
    fn bytes(ip: IpAddr) -> [u8; 16] {
        match ip {
            IpAddr::V6(ip) => ip.octets(),
            IpAddr::V4(_) => panic!("{ip} in IPv6"),
        }
    }

    fn party(net: u8, number: u8) -> IpAddr {
        [0xfd, 0, net, 7, 0xab, 0xcd, 1, 2, 3, 4, 5, 6, 7, 8, 9, number].into()
    }
}

/// The key of packets from `src` to `dst`.
pub fn key<F: Net>(protocol: u8, src: SocketAddr, dst: SocketAddr) -> FlowKey<F::Addr> {
    FlowKey {
        src: F::bytes(src.ip()),
        dst: F::bytes(dst.ip()),
        ports: Ports::new(src.port(), dst.port()),
        protocol,
        pad: [0; 3],
    }
}
