//! What the agent knows of the node's network interfaces.

use super::{Addr4, Addr6, Mac, plain};

/// Our programs are attached to it: packets that arrive there are seen.
pub const DEVICE_ATTACHED: u32 = 1;
/// XDP may send frames out of it (`XDP_REDIRECT` is known to work).
pub const DEVICE_REDIRECT: u32 = 2;
/// The near end of a veth whose far end is a pod's, with our program where the pod's packets come out
/// of it: flows to that pod can be opened in fast mode.
pub const DEVICE_POD: u32 = 4;

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
    /// Its index in `exits`.
    pub exit: u16,
    /// Of a VLAN device: the interface below it that XDP may send tagged frames out of. Zero if
    /// it is none, or there is no such.
    pub lower: u32,
    /// The tags that its frames have on that interface, from the outer one on, each as in the
    /// frame: protocol (IEEE 802.1Q or 802.1ad) and VLAN, without priority. Zero: no tag.
    pub tags: Tags,
}
plain!(Device = 4, 4, 16, 6, 2, 4, 8);

/// Up to two VLAN tags, from the outer one on, as they lie in a frame; zero where there is none.
pub type Tags = [u32; 2];

/// The bits of a tag that name its protocol and VLAN; the others are priority and drop
/// eligibility (IEEE 802.1Q, 9.6).
pub const TAG_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0x0f, 0xff]);
