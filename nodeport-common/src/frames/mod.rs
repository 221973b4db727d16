//! Frames for tests: built, taken apart and checked by a library that is not ours, with every
//! checksum summed from scratch.

mod build;
mod cut;
mod net;
mod view;

use std::net::IpAddr;

pub use build::{Draft, Icmp, Transport, reset, tcp, udp};
pub use cut::{cut, join};
pub use net::{Net, key};
pub use view::{View, faults, quote_faults};

/// Source and destination of a packet.
type Pair = (IpAddr, IpAddr);

/// What comes of the addresses of a packet in its family.
fn by_family<T>(
    pair: Pair,
    v4: impl FnOnce([u8; 4], [u8; 4]) -> T,
    v6: impl FnOnce([u8; 16], [u8; 16]) -> T,
) -> T {
    match pair {
        (IpAddr::V4(src), IpAddr::V4(dst)) => v4(src.octets(), dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => v6(src.octets(), dst.octets()),
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
}

/// Ethernet address that a [`Draft`] is sent to if nothing else is said.
pub const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Ethernet address that a [`Draft`] comes from if nothing else is said.
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
