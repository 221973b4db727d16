//! Addresses and ports as they are on the wire.

use super::plain;

/// An IPv4 address, as on the wire.
pub type Addr4 = [u8; 4];
/// An IPv6 address, as on the wire.
pub type Addr6 = [u8; 16];
/// An Ethernet address.
pub type Mac = [u8; 6];
/// A TCP or UDP port, big-endian as on the wire; `u16::from_be_bytes` gives the number.
pub type Port = [u8; 2];

/// Protocol number of ICMP (RFC 792).
pub const IPPROTO_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// Protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;
/// Protocol number of ICMPv6 (RFC 4443).
pub const IPPROTO_ICMPV6: u8 = 58;

/// Source and destination port, side by side as in a TCP or UDP header, so that both are one
/// 32-bit word for the packet path.
#[repr(C, align(4))]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
pub struct Ports {
    /// Source port.
    pub src: Port,
    /// Destination port.
    pub dst: Port,
}
plain!(Ports = 2, 2);

impl Ports {
    /// Ports from numbers in host order.
    pub const fn new(src: u16, dst: u16) -> Self {
        Self { src: src.to_be_bytes(), dst: dst.to_be_bytes() }
    }

    /// The two ports as the 32-bit word that lies in the packet.
    #[inline(always)]
    pub fn word(self) -> u32 {
        zerocopy::transmute!(self)
    }

    /// The two ports from the 32-bit word that lies in the packet.
    #[inline(always)]
    pub fn from_word(word: u32) -> Self {
        zerocopy::transmute!(word)
    }

    /// Source and destination exchanged.
    #[inline(always)]
    pub const fn swapped(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }
}
