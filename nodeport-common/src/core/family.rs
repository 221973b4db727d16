//! What differs between IPv4 and IPv6: the addresses, and the shape of the header.

use super::checksum;
use super::env::{Packet, Room, Window};
use super::parse::{L4, Network, Parsed};
use crate::abi::{Addr4, Addr6, FlowKey, IPPROTO_ICMP, IPPROTO_ICMPV6};

mod private {
    pub trait Sealed {}
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;
/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl private::Sealed for V4 {}
impl private::Sealed for V6 {}

/// EtherType of IPv4, as it lies in memory.
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6, as it lies in memory.
pub const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();

#[inline(always)]
fn words4(address: &Addr4) -> [u32; 1] {
    [u32::from_ne_bytes(*address)]
}

#[inline(always)]
fn words6(address: &Addr6) -> [u32; 4] {
    zerocopy::transmute!(*address)
}

/// TTL or hop limit of packets that we make.
const OWN_TTL: u8 = 64;

/// An address family.
pub trait Family: private::Sealed + Copy + Sized + 'static {
    /// An address, as on the wire.
    type Addr: Copy + PartialEq + Eq + Ord + Default + core::fmt::Debug + 'static;

    /// 4 or 6.
    const VERSION: u8;
    /// Length of the header without options or extensions, in bytes.
    const HEADER: usize;
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// The headers of an ICMP error of ours.
    const ERROR_ROOM: Room;

    /// Reads the header at `l3` if it is the plain one: no options, no extensions, no fragment.
    fn parse_plain<P: Packet>(packet: &mut P, l3: usize) -> Option<Network<Self::Addr>>;
    /// Reads the header at `l3` with all that may follow it before the transport header.
    fn parse<P: Packet>(
        packet: &mut P,
        l3: usize,
        network: &mut Network<Self::Addr>,
    ) -> Result<(), L4>;
    /// Writes the addresses, brings the header checksum up to date, and takes one from the TTL or
    /// hop limit if `hop` says so. False if the header is not there.
    fn rewrite<P: Packet>(packet: &mut P, l3: usize, change: &HeaderChange<Self::Addr>) -> bool;
    /// The difference that replacing one address by another makes to a checksum.
    fn address_diff(old: &Self::Addr, new: &Self::Addr) -> u16;
    /// Words to hash an address by.
    fn fold_address(address: &Self::Addr) -> u32;
    /// The share of two addresses in a hash (see [`hash::share64`](super::hash::share64)).
    fn fold_pair(a: &Self::Addr, b: &Self::Addr, seed: u64) -> u64;
    /// An address that no client can have: unspecified, loopback, multicast, broadcast.
    fn is_martian(address: &Self::Addr) -> bool;
    /// The address of an interface.
    fn device_address(device: &crate::abi::Device) -> Self::Addr;
    /// Writes the header of an answer of ours at `l3`, with `length` bytes behind it: from the
    /// address that the packet was sent to, to the one that it came from.
    fn write_header<P: Packet>(
        packet: &mut P,
        l3: usize,
        parsed: &Parsed<Self::Addr>,
        content: Content,
        length: usize,
    ) -> bool;
    /// Sum of the pseudo-header of such an answer.
    fn pseudo_sum(key: &FlowKey<Self::Addr>, protocol: u8, length: usize) -> u64;
}

/// What an answer of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Protocol number.
    pub protocol: u8,
    /// IPv4's type of service.
    pub service: u8,
}

/// New addresses for a packet's header.
#[derive(Clone, Copy, Debug)]
pub struct HeaderChange<A> {
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// Difference that the addresses make to a checksum.
    pub address_diff: u16,
    /// Take one from the TTL or hop limit.
    pub hop: bool,
}

impl Family for V4 {
    type Addr = Addr4;
    const VERSION: u8 = 4;
    const HEADER: usize = 20;
    const ICMP: u8 = IPPROTO_ICMP;
    const ERROR_ROOM: Room = Room::V4;

    #[inline(always)]
    fn parse_plain<P: Packet>(packet: &mut P, l3: usize) -> Option<Network<Addr4>> {
        super::parse::ipv4::plain(packet, l3)
    }

    #[inline(always)]
    fn parse<P: Packet>(packet: &mut P, l3: usize, network: &mut Network<Addr4>) -> Result<(), L4> {
        super::parse::ipv4::full(packet, l3, network)
    }

    #[inline(always)]
    fn rewrite<P: Packet>(packet: &mut P, l3: usize, change: &HeaderChange<Addr4>) -> bool {
        let Some(mut header) = packet.window::<20>(l3) else { return false };
        let field = header.load::<u16, 10>();
        let mut diff = change.address_diff;
        if change.hop {
            diff = checksum::combine(diff, checksum::TTL_DECREMENT);
            let ttl = header.load::<u8, 8>();
            header.store::<u8, 8>(ttl.wrapping_sub(1));
        }
        header.store::<u16, 10>(checksum::update(field, diff));
        header.store::<[u8; 4], 12>(change.src);
        header.store::<[u8; 4], 16>(change.dst);
        true
    }

    #[inline(always)]
    fn address_diff(old: &Addr4, new: &Addr4) -> u16 {
        checksum::difference(&words4(old), &words4(new))
    }

    #[inline(always)]
    fn fold_address(address: &Addr4) -> u32 {
        u32::from_ne_bytes(*address)
    }

    #[inline(always)]
    fn fold_pair(a: &Addr4, b: &Addr4, seed: u64) -> u64 {
        let (a, b) = (u32::from_ne_bytes(*a) as u64, u32::from_ne_bytes(*b) as u64);
        super::hash::share64(a | b << 32, seed, 0)
    }

    #[inline(always)]
    fn is_martian(address: &Addr4) -> bool {
        // 0/8, 127/8, 224/4 and 240/4 with broadcast in it (RFC 1122, 3.2.1.3; RFC 1112).
        matches!(address[0], 0 | 127 | 224..)
    }

    #[inline(always)]
    fn device_address(device: &crate::abi::Device) -> Addr4 {
        device.address4
    }

    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        l3: usize,
        parsed: &Parsed<Addr4>,
        content: Content,
        length: usize,
    ) -> bool {
        let Some(mut header) = packet.window::<20>(l3) else { return false };
        // No fragment.
        header.store::<[u8; 2], 0>([0x45, content.service]);
        header.store::<u16, 2>(((length + 20) as u16).to_be());
        header.store::<u32, 4>(0);
        header.store::<[u8; 2], 8>([OWN_TTL, content.protocol]);
        header.store::<u16, 10>(0);
        header.store::<[u8; 4], 12>(parsed.key.dst);
        header.store::<[u8; 4], 16>(parsed.key.src);
        let first = u16::from_ne_bytes([0x45, content.service]) as u64
            + ((length + 20) as u16).to_be() as u64
            + u16::from_ne_bytes([OWN_TTL, content.protocol]) as u64;
        let addresses =
            checksum::sum(&words4(&parsed.key.dst)) + checksum::sum(&words4(&parsed.key.src));
        header.store::<u16, 10>(!checksum::fold_wide(first + addresses));
        true
    }

    #[inline(always)]
    fn pseudo_sum(key: &FlowKey<Addr4>, protocol: u8, length: usize) -> u64 {
        // RFC 9293, 3.1: addresses, protocol and length.
        checksum::sum(&words4(&key.src))
            + checksum::sum(&words4(&key.dst))
            + u16::from_ne_bytes([0, protocol]) as u64
            + (length as u16).to_be() as u64
    }
}

impl Family for V6 {
    type Addr = Addr6;
    const VERSION: u8 = 6;
    const HEADER: usize = 40;
    const ICMP: u8 = IPPROTO_ICMPV6;
    const ERROR_ROOM: Room = Room::V6;

    #[inline(always)]
    fn parse_plain<P: Packet>(packet: &mut P, l3: usize) -> Option<Network<Addr6>> {
        super::parse::ipv6::plain(packet, l3)
    }

    #[inline(always)]
    fn parse<P: Packet>(packet: &mut P, l3: usize, network: &mut Network<Addr6>) -> Result<(), L4> {
        super::parse::ipv6::full(packet, l3, network)
    }

    #[inline(always)]
    fn rewrite<P: Packet>(packet: &mut P, l3: usize, change: &HeaderChange<Addr6>) -> bool {
        let Some(mut header) = packet.window::<40>(l3) else { return false };
        if change.hop {
            let limit = header.load::<u8, 7>();
            header.store::<u8, 7>(limit.wrapping_sub(1));
        }
        header.store::<[u8; 16], 8>(change.src);
        header.store::<[u8; 16], 24>(change.dst);
        true
    }

    #[inline(always)]
    fn address_diff(old: &Addr6, new: &Addr6) -> u16 {
        checksum::difference(&words6(old), &words6(new))
    }

    #[inline(always)]
    fn fold_address(address: &Addr6) -> u32 {
        let mut hash = 0;
        for word in words6(address) {
            hash = super::hash::mix(hash, word);
        }
        hash
    }

    #[inline(always)]
    fn fold_pair(a: &Addr6, b: &Addr6, seed: u64) -> u64 {
        use super::hash::share64;
        let [a0, a1]: [u64; 2] = zerocopy::transmute!(*a);
        let [b0, b1]: [u64; 2] = zerocopy::transmute!(*b);
        share64(a0, seed, 0)
            .wrapping_add(share64(a1, seed, 1))
            .wrapping_add(share64(b0, seed, 2))
            .wrapping_add(share64(b1, seed, 3))
    }

    #[inline(always)]
    fn is_martian(address: &Addr6) -> bool {
        // Multicast, or ::/127: unspecified and loopback (RFC 4291, 2.5.2, 2.5.3, 2.7).
        // Link-local addresses mean something on their own link alone, and are never forwarded
        // (2.5.6).
        let [a, b, c, last] = words6(address);
        let link_local = address[0] == 0xfe && address[1] & 0xc0 == 0x80;
        address[0] == 0xff || link_local || (a | b | c == 0 && u32::from_be(last) <= 1)
    }

    #[inline(always)]
    fn device_address(device: &crate::abi::Device) -> Addr6 {
        device.address6
    }

    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        l3: usize,
        parsed: &Parsed<Addr6>,
        content: Content,
        length: usize,
    ) -> bool {
        let Some(mut header) = packet.window::<40>(l3) else { return false };
        header.store::<[u8; 4], 0>([0x60, 0, 0, 0]);
        header.store::<u16, 4>((length as u16).to_be());
        header.store::<[u8; 2], 6>([content.protocol, OWN_TTL]);
        header.store::<[u8; 16], 8>(parsed.key.dst);
        header.store::<[u8; 16], 24>(parsed.key.src);
        true
    }

    #[inline(always)]
    fn pseudo_sum(key: &FlowKey<Addr6>, protocol: u8, length: usize) -> u64 {
        // RFC 8200, 8.1: addresses, length and next header.
        checksum::sum(&words6(&key.src))
            + checksum::sum(&words6(&key.dst))
            + (length as u16).to_be() as u64
            + u16::from_ne_bytes([0, protocol]) as u64
    }
}
