//! Writes a flow's addresses, ports and next hop into a packet.

use super::checksum;
use super::env::{ChecksumChange, Packet, Window};
use super::family::{Family, HeaderChange};
use super::parse::Parsed;
use crate::abi::{Flow, HOP_NEIGHBOUR, HOP_POD, HOP_SEND, HOP_STACK, HOP_TAGGED, IPPROTO_UDP, Mac};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: usize = 6;

/// Rewrites the packet as its flow says. False if a header is not where it was.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
) -> bool {
    let header = HeaderChange {
        src: flow.new_src,
        dst: flow.new_dst,
        address_diff: flow.address_diff,
        // What the stack forwards, it counts down itself.
        hop: flow.hop.kind != HOP_STACK,
    };
    F::rewrite(packet, parsed.l3 as usize, &header)
        && transport::<F, P>(packet, parsed, flow)
        && (!has_addresses(flow.hop.kind) || ethernet(packet, &flow.hop.dst_mac, &flow.hop.src_mac))
}

/// Rewrites a fragment behind the first, which has neither ports nor a transport checksum. False if a
/// header is not where it was.
#[inline(always)]
pub fn fragment<F: Family, P: Packet>(packet: &mut P, l3: usize, flow: &Flow<F::Addr>) -> bool {
    let header = HeaderChange {
        src: flow.new_src,
        dst: flow.new_dst,
        address_diff: flow.address_diff,
        hop: flow.hop.kind != HOP_STACK,
    };
    if !F::rewrite(packet, l3, &header) {
        return false;
    }
    // No checksum in it makes up for the addresses, as IPv4's header does.
    if F::VERSION == 6 && is_summed_again(flow.hop.kind) {
        packet.add_to_sum(checksum::combine(flow.address_diff, hop_diff::<F>(flow.hop.kind)));
    }
    !has_addresses(flow.hop.kind) || ethernet(packet, &flow.hop.dst_mac, &flow.hop.src_mac)
}

/// Whether a next hop of this kind names Ethernet addresses.
#[inline(always)]
pub const fn has_addresses(kind: u8) -> bool {
    matches!(kind, HOP_SEND | HOP_TAGGED | HOP_POD)
}

/// Writes the Ethernet addresses.
#[inline(always)]
pub fn ethernet<P: Packet>(packet: &mut P, dst: &Mac, src: &Mac) -> bool {
    let Some(mut header) = packet.window::<12>(0) else { return false };
    header.store::<[u8; 6], 0>(*dst);
    header.store::<[u8; 6], 6>(*src);
    true
}

/// Exchanges the Ethernet addresses: back to where it came from.
#[inline(always)]
pub fn turn_round<P: Packet>(packet: &mut P) -> bool {
    let Some(mut header) = packet.window::<12>(0) else { return false };
    let (dst, src) = (header.load::<[u8; 6], 0>(), header.load::<[u8; 6], 6>());
    header.store::<[u8; 6], 0>(src);
    header.store::<[u8; 6], 6>(dst);
    true
}

/// Ports and checksum behind the IP header.
#[inline(always)]
fn transport<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
) -> bool {
    let l4 = parsed.l4 as usize;
    let udp = parsed.key.protocol == IPPROTO_UDP;
    if P::OWN_CHECKSUM {
        let diff = checksum::combine(flow.address_diff, flow.port_diff);
        return if udp {
            udp_header(packet, l4, flow.new_ports.word(), diff)
        } else {
            tcp_header(packet, l4, flow.new_ports.word(), diff)
        };
    }
    match packet.window::<8>(l4) {
        Some(mut header) => header.store::<u32, 0>(flow.new_ports.word()),
        None => return false,
    }
    let offset = l4 + if udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
    let (address_diff, port_diff) = (flow.address_diff, flow.port_diff);
    if !packet.replace_checksum(offset, ChecksumChange { address_diff, port_diff, udp }) {
        return false;
    }
    // The kernel took the addresses from the frame's sum, as if an IPv4 header's checksum made up
    // for them.
    if F::VERSION == 6 && is_summed_again(flow.hop.kind) {
        packet.add_to_sum(checksum::combine(address_diff, hop_diff::<F>(flow.hop.kind)));
    }
    true
}

/// Whether a next hop of this kind may be a stack on this machine, which relies on the sum that a
/// network card has made of the frame.
#[inline(always)]
const fn is_summed_again(kind: u8) -> bool {
    matches!(kind, HOP_STACK | HOP_POD | HOP_NEIGHBOUR)
}

/// What it makes to the sum of a frame that its IP header is rewritten for a next hop of this
/// kind, beside the addresses: IPv4's has a checksum that makes up for all, IPv6's hop limit is one
/// less where it is not the stack that forwards.
#[inline(always)]
pub const fn hop_diff<F: Family>(kind: u8) -> u16 {
    match F::VERSION == 6 && matches!(kind, HOP_POD | HOP_NEIGHBOUR) {
        true => !u16::from_ne_bytes([0, 1]),
        false => 0,
    }
}

#[inline(always)]
fn tcp_header<P: Packet>(packet: &mut P, l4: usize, ports: u32, diff: u16) -> bool {
    let Some(mut header) = packet.window::<20>(l4) else { return false };
    let field = header.load::<u16, TCP_CHECKSUM>();
    header.store::<u32, 0>(ports);
    header.store::<u16, TCP_CHECKSUM>(checksum::update(field, diff));
    true
}

#[inline(always)]
fn udp_header<P: Packet>(packet: &mut P, l4: usize, ports: u32, diff: u16) -> bool {
    let Some(mut header) = packet.window::<8>(l4) else { return false };
    let field = header.load::<u16, UDP_CHECKSUM>();
    header.store::<u32, 0>(ports);
    header.store::<u16, UDP_CHECKSUM>(checksum::update_udp(field, diff));
    true
}
