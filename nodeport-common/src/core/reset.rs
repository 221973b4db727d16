//! A TCP reset of our own, in answer to a segment (RFC 9293, 3.10.7.1).
//!
//! It takes the place of the segment, which is never shorter, and goes back the way that came: from the
//! address and port that the client sent to.

use super::checksum;
use super::env::{ChecksumChange, Packet, Window, World};
use super::family::{Content, Family};
use super::parse::Parsed;
use super::rewrite;
use super::state::{ACK, FIN, RST, SYN};
use super::verdict::Verdict;
use super::work::Work;
use crate::abi::{IPPROTO_TCP, Reason};

/// Length of a TCP header without options, in bytes.
const HEADER: usize = 20;
/// Offset of the checksum in it.
const CHECKSUM: usize = 16;

/// Sends the reset for the segment at hand. The caller counts why, and sees to it that a reset is
/// never answered.
#[inline(never)]
pub fn send<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
) -> Verdict {
    if build::<F, P>(packet, &work.parsed) {
        return Verdict::back(world.ifindex());
    }
    world.count(Reason::Failed);
    Verdict::DROP
}

/// What a reset says: numbers as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reset {
    sequence: u32,
    acknowledges: u32,
    flags: u8,
}

impl Reset {
    /// The one that whoever sent the segment takes for an answer to it.
    #[inline(always)]
    fn of<P: Packet, A>(packet: &mut P, parsed: &Parsed<A>) -> Option<Self> {
        let header = packet.window::<HEADER>(parsed.l4 as usize)?;
        if parsed.tcp_flags & ACK != 0 {
            return Some(Self { sequence: header.load::<u32, 8>(), acknowledges: 0, flags: RST });
        }
        let headers = (parsed.l4 - parsed.l3) + (header.load::<u8, 12>() >> 4 << 2) as u16;
        let payload = parsed.total.saturating_sub(headers) as u32;
        let controls = (parsed.tcp_flags & SYN != 0) as u32 + (parsed.tcp_flags & FIN != 0) as u32;
        let end = u32::from_be(header.load::<u32, 4>()).wrapping_add(payload + controls);
        Some(Self { sequence: 0, acknowledges: end.to_be(), flags: RST | ACK })
    }
}

#[inline(always)]
fn build<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F::Addr>) -> bool {
    let Some(reset) = Reset::of(packet, parsed) else { return false };
    let l3 = parsed.l3 as usize;
    // Options and extension headers of the segment are not answered.
    let l4 = l3 + F::HEADER;
    let content = Content { protocol: IPPROTO_TCP, service: 0 };
    packet.cut(l4 + HEADER)
        && rewrite::turn_round(packet)
        && F::write_header(packet, l3, parsed, content, HEADER)
        && write::<F, P>(packet, l4, parsed, reset)
}

#[inline(always)]
fn write<F: Family, P: Packet>(
    packet: &mut P,
    l4: usize,
    parsed: &Parsed<F::Addr>,
    reset: Reset,
) -> bool {
    let Reset { sequence, acknowledges, flags } = reset;
    let ports = parsed.key.ports.swapped().word();
    let control = u32::from_ne_bytes([(HEADER as u8 / 4) << 4, flags, 0, 0]);
    match packet.window::<HEADER>(l4) {
        Some(mut header) => {
            header.store::<u32, 0>(ports);
            header.store::<u32, 4>(sequence);
            header.store::<u32, 8>(acknowledges);
            header.store::<u32, 12>(control);
            // Nothing is urgent.
            header.store::<u16, 18>(0);
        }
        None => return false,
    }
    let pseudo = F::pseudo_sum(&parsed.key, IPPROTO_TCP, HEADER);
    let content = checksum::sum(&[ports, sequence, acknowledges, control]);
    finish(packet, l4 + CHECKSUM, checksum::fold_wide(pseudo), checksum::fold_wide(content))
}

/// Writes the checksum at `offset`. Where a network card finishes it, that is the sum of the
/// pseudo-header: so the kernel is asked to take both into the checksum of nothing.
#[inline(always)]
fn finish<P: Packet>(packet: &mut P, offset: usize, pseudo: u16, content: u16) -> bool {
    let Some(mut field) = packet.window::<2>(offset) else { return false };
    if P::OWN_CHECKSUM {
        field.store::<u16, 0>(!checksum::combine(pseudo, content));
        return true;
    }
    field.store::<u16, 0>(!0);
    drop(field);
    packet.replace_checksum(
        offset,
        ChecksumChange { address_diff: pseudo, port_diff: content, udp: false },
    )
}
