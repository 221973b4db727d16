//! Frames for tests: built, taken apart and checked by a library that is not ours, with every
//! checksum summed from scratch.

mod build;
mod net;
mod view;

pub use build::{Draft, Icmp, Transport, tcp, udp};
pub use net::{Net, key};
pub use view::{View, faults, quote_faults};

/// Ethernet address that a [`Draft`] is sent to if nothing else is said.
pub const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Ethernet address that a [`Draft`] comes from if nothing else is said.
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
