//! The IPv4 header (RFC 791).

use super::{Fragment, L4, Network};
use crate::abi::Addr4;
use crate::core::env::{Packet, Window};

/// More-fragments bit and fragment offset, as they lie in memory.
const FRAGMENT: u16 = u16::from_ne_bytes([0x3f, 0xff]);

/// The common header: no options, no fragment.
#[inline(always)]
pub fn plain<P: Packet>(packet: &mut P, l3: usize) -> Option<Network<Addr4>> {
    let header = packet.window::<20>(l3)?;
    if header.load::<u8, 0>() != 0x45 || header.load::<u16, 6>() & FRAGMENT != 0 {
        return None;
    }
    Some(read::<P>(&header, l3 + 20))
}

/// Any header.
#[inline(always)]
pub fn full<P: Packet>(packet: &mut P, l3: usize, network: &mut Network<Addr4>) -> Result<(), L4> {
    let header = packet.window::<20>(l3).ok_or(L4::Unparsed)?;
    let first = header.load::<u8, 0>();
    let length = ((first & 0x0f) as usize) * 4;
    if first >> 4 != 4 || length < 20 {
        return Err(L4::Unparsed);
    }
    *network = read::<P>(&header, l3 + length);
    let place = u16::from_be(header.load::<u16, 6>() & FRAGMENT);
    network.fragment = Fragment { id: u16::from_be(header.load::<u16, 4>()) as u32, place };
    // 0 says no length; whether it may is for the transport header to tell.
    let short = network.total != 0 && (network.total as usize) < length;
    match place & Fragment::OFFSET {
        _ if short => Err(L4::Unparsed),
        0 => Ok(()),
        _ => Err(L4::Fragment),
    }
}

#[inline(always)]
fn read<P: Packet>(header: &P::Window<'_, 20>, l4: usize) -> Network<Addr4> {
    Network {
        src: header.load::<[u8; 4], 12>(),
        dst: header.load::<[u8; 4], 16>(),
        protocol: header.load::<u8, 9>(),
        ttl: header.load::<u8, 8>(),
        total: u16::from_be(header.load::<u16, 2>()),
        l4: l4 as u16,
        fragment: Fragment { id: 0, place: 0 },
    }
}
