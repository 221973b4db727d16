//! From the bytes of a frame to its flow key: offsets are found once, later stages use them.

pub mod icmp;
pub mod ipv4;
pub mod ipv6;

use super::env::{Packet, Window};
use super::family::Family;
use crate::abi::{FlowKey, IPPROTO_TCP, IPPROTO_UDP, Ports, TAG_MASK, Tags};

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET: usize = 14;

/// What an IP header and its options or extensions say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Protocol of what follows.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the whole IP packet in bytes, as the header says; 0 if it says none, as that of
    /// an IPv6 jumbogram.
    pub total: u16,
    /// Offset of the transport header in the frame.
    pub l4: u16,
    /// Which part of a packet it is.
    pub fragment: Fragment,
}

/// Which part of a packet an IP packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, in the host's order.
    pub id: u32,
    /// Offset in units of 8 bytes, and [`Fragment::MORE`] if others follow; 0 of a whole packet.
    pub place: u16,
}

impl Fragment {
    /// The bit of `place` that says that others follow.
    pub const MORE: u16 = 0x2000;
    /// The bits of `place` that are the offset.
    pub const OFFSET: u16 = 0x1fff;

    /// Whether it is a part and not a whole.
    #[inline(always)]
    pub const fn is_part(self) -> bool {
        self.place != 0
    }

    /// Whether it is the first part, which has the transport header.
    #[inline(always)]
    pub const fn is_first(self) -> bool {
        self.place == Self::MORE
    }
}

/// Why there is no transport header to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// A fragment behind the first: it has no ports.
    Fragment,
    /// A header is cut short, contradicts itself or is not known.
    Unparsed,
}

/// A packet that may belong to a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed<A> {
    /// Its 5-tuple.
    pub key: FlowKey<A>,
    /// Offset of the IP header.
    pub l3: u16,
    /// Offset of the transport header.
    pub l4: u16,
    /// Length of the IP packet in bytes.
    pub total: u16,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// What a frame is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP.
    Transport,
    /// An ICMP error, whose quoted packet may belong to a flow.
    IcmpError,
    /// Nothing that we look at.
    Other,
}

/// EtherType of the frame, as it lies in memory, and offset of what follows, behind at most two
/// VLAN tags (IEEE 802.1Q, 802.1ad).
#[inline(always)]
pub fn ethernet<P: Packet>(packet: &mut P) -> Option<(u16, usize)> {
    let kind = packet.window::<ETHERNET>(0)?.load::<u16, 12>();
    if !is_tag(kind) {
        return Some((kind, ETHERNET));
    }
    let kind = packet.window::<4>(ETHERNET)?.load::<u16, 2>();
    if !is_tag(kind) {
        return Some((kind, ETHERNET + 4));
    }
    let kind = packet.window::<4>(ETHERNET + 4)?.load::<u16, 2>();
    Some((kind, ETHERNET + 8))
}

/// The tags of a frame whose IP header is at `l3`.
#[inline(always)]
pub fn tags<P: Packet>(packet: &mut P, l3: usize) -> Tags {
    let Some(header) = packet.window::<20>(0) else { return Tags::default() };
    match l3 {
        ETHERNET => Tags::default(),
        l3 if l3 == ETHERNET + 4 => [header.load::<u32, 12>() & TAG_MASK, 0],
        _ => [header.load::<u32, 12>() & TAG_MASK, header.load::<u32, 16>() & TAG_MASK],
    }
}

/// Whether an EtherType is that of a VLAN tag.
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == 0x8100_u16.to_be() || ethertype == 0x88a8_u16.to_be()
}

/// What a packet of this protocol is to us; of ICMP, only errors are something.
#[inline(always)]
pub fn kind<F: Family, P: Packet>(packet: &mut P, network: &Network<F::Addr>) -> Kind {
    match network.protocol {
        IPPROTO_TCP | IPPROTO_UDP => Kind::Transport,
        protocol if protocol == F::ICMP => icmp::kind::<F, P>(packet, network.l4 as usize),
        _ => Kind::Other,
    }
}

/// Reads ports and flags behind an IP header, if the packet reaches so far.
#[inline(always)]
pub fn transport<A: Copy, P: Packet>(
    packet: &mut P,
    l3: usize,
    network: &Network<A>,
) -> Option<Parsed<A>> {
    let l4 = network.l4 as usize;
    let length = if network.protocol == IPPROTO_TCP { 20 } else { 8 };
    if l3 + (network.total as usize) < l4 + length && !is_joined(packet, network) {
        return None;
    }
    let (ports, tcp_flags) = if network.protocol == IPPROTO_TCP {
        let header = packet.window::<20>(l4)?;
        (header.load::<u32, 0>(), header.load::<u8, 13>())
    } else {
        (packet.window::<8>(l4)?.load::<u32, 0>(), 0)
    };
    Some(Parsed::new(network, l3, Ports::from_word(ports), tcp_flags))
}

/// Whether the header says no length because the kernel has joined more segments than it can say
/// ("BIG TCP").
#[inline(always)]
fn is_joined<A, P: Packet>(packet: &P, network: &Network<A>) -> bool {
    network.total == 0 && packet.gso_size() != 0
}

impl<A: Copy> Parsed<A> {
    #[inline(always)]
    fn new(network: &Network<A>, l3: usize, ports: Ports, tcp_flags: u8) -> Self {
        let Network { src, dst, protocol, ttl, total, l4, fragment: _ } = *network;
        let key = FlowKey::new(src, dst, ports, protocol);
        Self { key, l3: l3 as u16, l4, total, tcp_flags, ttl }
    }
}
