//! ICMP and ICMPv6: which messages are errors, and whose packet they quote (RFC 792, RFC 4443).

use super::{Kind, Network, Parsed};
use crate::abi::{IPPROTO_TCP, IPPROTO_UDP, Ports};
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

/// Reads the packet that the error at `l4` quotes; the error ends at `end`. Of the quoted
/// transport header only the ports need to be there: 8 bytes are all that RFC 792 asks for.
#[inline(never)]
pub fn quoted<F: Family, P: Packet>(
    packet: &mut P,
    l4: usize,
    end: usize,
    quote: &mut Network<F::Addr>,
    parsed: &mut Parsed<F::Addr>,
) -> bool {
    let l3 = l4 + HEADER;
    if F::parse(packet, l3, quote).is_err() || !matches!(quote.protocol, IPPROTO_TCP | IPPROTO_UDP)
    {
        return false;
    }
    let ports = quote.l4 as usize;
    // What stands behind the end, padding for instance, is no part of the quote.
    if ports + 8 > end {
        return false;
    }
    let Some(header) = packet.window::<8>(ports) else { return false };
    *parsed = Parsed::new(quote, l3, Ports::from_word(header.load::<u32, 0>()), 0);
    true
}
