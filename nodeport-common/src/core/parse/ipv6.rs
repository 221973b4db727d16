//! The IPv6 header and the extension headers that may stand before the transport header
//! (RFC 8200).

use super::{Fragment, L4, Network};
use crate::abi::{Addr6, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use crate::core::env::{Packet, Window};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
/// Length of a fragment header in bytes.
const FRAGMENT_HEADER: usize = 8;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Extension headers that are walked before we give up: more than the six that RFC 8200
/// recommends at most once each.
pub const MAX_EXTENSIONS: usize = 8;

/// The common header: TCP or UDP follows at once.
#[inline(always)]
pub fn plain<P: Packet>(packet: &mut P, l3: usize) -> Option<Network<Addr6>> {
    let header = packet.window::<40>(l3)?;
    let protocol = header.load::<u8, 6>();
    if header.load::<u8, 0>() >> 4 != 6 || !matches!(protocol, IPPROTO_TCP | IPPROTO_UDP) {
        return None;
    }
    Some(read::<P>(&header, protocol, l3 + 40))
}

/// Any header, with its extensions.
#[inline(always)]
pub fn full<P: Packet>(packet: &mut P, l3: usize, network: &mut Network<Addr6>) -> Result<(), L4> {
    {
        let header = packet.window::<40>(l3).ok_or(L4::Unparsed)?;
        if header.load::<u8, 0>() >> 4 != 6 {
            return Err(L4::Unparsed);
        }
        *network = read::<P>(&header, header.load::<u8, 6>(), l3 + 40);
    }
    skip_extensions(packet, network, l3 + 40)
}

#[inline(always)]
fn skip_extensions<P: Packet>(
    packet: &mut P,
    network: &mut Network<Addr6>,
    mut offset: usize,
) -> Result<(), L4> {
    let mut protocol = network.protocol;
    for _ in 0..=MAX_EXTENSIONS {
        let unit = match protocol {
            IPPROTO_TCP | IPPROTO_UDP | IPPROTO_ICMPV6 => return found(network, protocol, offset),
            FRAGMENT => {
                let header = packet.window::<FRAGMENT_HEADER>(offset).ok_or(L4::Unparsed)?;
                network.fragment = fragment::<P>(&header);
                protocol = header.load::<u8, 0>();
                offset += FRAGMENT_HEADER;
                if network.fragment.place & Fragment::OFFSET != 0 {
                    found(network, protocol, offset)?;
                    return Err(L4::Fragment);
                }
                continue;
            }
            HOP_BY_HOP | DESTINATION => 8,
            // Segments left: the header's destination is not the last one, which the transport
            // checksum covers. That is the kernel's business.
            ROUTING if packet.window::<4>(offset).is_none_or(|h| h.load::<u8, 3>() != 0) => {
                return Err(L4::Unparsed);
            }
            ROUTING => 8,
            // RFC 4302 counts in 4-byte units, less two of them.
            AUTHENTICATION => 4,
            _ => return found(network, protocol, offset),
        };
        let header = packet.window::<2>(offset).ok_or(L4::Unparsed)?;
        let length = header.load::<u8, 1>() as usize * unit + 8;
        protocol = header.load::<u8, 0>();
        offset += length;
    }
    Err(L4::Unparsed)
}

/// Notes what follows the extension headers, and where.
#[inline(always)]
fn found(network: &mut Network<Addr6>, protocol: u8, l4: usize) -> Result<(), L4> {
    (network.protocol, network.l4) = (protocol, l4 as u16);
    Ok(())
}

/// What a fragment header says (RFC 8200, 4.5). One that says that it is all of a packet is of a
/// whole one (RFC 6946).
#[inline(always)]
fn fragment<P: Packet>(header: &P::Window<'_, FRAGMENT_HEADER>) -> Fragment {
    let field = u16::from_be(header.load::<u16, 2>());
    let more = if field & 1 != 0 { Fragment::MORE } else { 0 };
    Fragment { id: u32::from_be(header.load::<u32, 4>()), place: field >> 3 | more }
}

#[inline(always)]
fn read<P: Packet>(header: &P::Window<'_, 40>, protocol: u8, l4: usize) -> Network<Addr6> {
    let payload = u16::from_be(header.load::<u16, 4>());
    Network {
        src: header.load::<[u8; 16], 8>(),
        dst: header.load::<[u8; 16], 24>(),
        protocol,
        ttl: header.load::<u8, 7>(),
        total: if payload == 0 { 0 } else { payload.saturating_add(40) },
        l4: l4 as u16,
        fragment: Fragment { id: 0, place: 0 },
    }
}
