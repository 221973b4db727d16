//! What the agent knows of the node's network interfaces.

use super::{Addr4, Addr6, Mac, plain};

/// Our programs are attached to it: packets that arrive there are seen.
pub const DEVICE_ATTACHED: u32 = 1;
/// XDP may send frames out of it (`XDP_REDIRECT` is known to work).
pub const DEVICE_REDIRECT: u32 = 2;

/// One interface.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `DEVICE_*` bits.
    pub flags: u32,
    /// Its primary IPv4 address, zero if none: the SNAT source where the kernel's route look-up
    /// does not give one (before 6.7).
    pub address4: Addr4,
    /// The same for IPv6.
    pub address6: Addr6,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Zero.
    pub pad: [u8; 2],
}
plain!(Device = 4, 4, 16, 6, 2);
