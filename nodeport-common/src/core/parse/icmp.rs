//! ICMP and ICMPv6: which messages are errors, and whose packet they quote (RFC 792, RFC 4443).

use super::{Kind, Parsed};
use crate::abi::{FlowKey, IPPROTO_TCP, IPPROTO_UDP, Ports};
use crate::core::env::{Packet, Window};
use crate::core::family::Family;

/// Length of an ICMP error's header, before the quoted packet, in bytes.
pub const HEADER: usize = 8;

/// Whether the message at `l4` is an error.
#[inline(always)]
pub fn kind<F: Family, P: Packet>(packet: &mut P, l4: usize) -> Kind {
    match packet.window::<HEADER>(l4) {
        Some(header) if is_error::<F>(header.load::<u8, 0>()) => Kind::IcmpError,
        _ => Kind::Other,
    }
}

#[inline(always)]
const fn is_error<F: Family>(kind: u8) -> bool {
    match F::VERSION {
        // Destination unreachable, time exceeded, parameter problem.
        4 => matches!(kind, 3 | 11 | 12),
        // ICMPv6 types below 128 are errors; those that exist are 1 to 4.
        _ => matches!(kind, 1..=4),
    }
}

/// Reads the packet that the error at `l4` quotes. Of the quoted transport header only the ports
/// need to be there: 8 bytes are all that RFC 792 asks for.
#[inline(always)]
pub fn quoted<F: Family, P: Packet>(packet: &mut P, l4: usize) -> Option<Parsed<F::Addr>> {
    let l3 = l4 + HEADER;
    let network = F::parse(packet, l3).ok()?;
    if !matches!(network.protocol, IPPROTO_TCP | IPPROTO_UDP) {
        return None;
    }
    let ports = packet.window::<8>(network.l4 as usize)?.load::<u32, 0>();
    let key = FlowKey {
        src: network.src,
        dst: network.dst,
        ports: Ports::from_word(ports),
        protocol: network.protocol,
        pad: [0; 3],
    };
    let (l4, total, ttl) = (network.l4, network.total, network.ttl);
    Some(Parsed { key, l3: l3 as u16, l4, total, tcp_flags: 0, ttl })
}
