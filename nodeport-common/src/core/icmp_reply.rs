//! ICMP errors of our own: what the kernel would answer, had it seen the packet.

use super::checksum;
use super::env::{Packet, Window, World};
use super::family::{Content, Family};
use super::parse::{Parsed, icmp};
use super::rewrite;
use super::verdict::Verdict;
use super::work::Work;
use crate::abi::{IPPROTO_TCP, Reason};

/// Words of 4 bytes of the message, at most: the bound of the loop that sums them.
const MAX_WORDS: usize = 32;

/// Bytes of the packet that are quoted, at most.
const MAX_QUOTE: usize = MAX_WORDS * 4 - icmp::HEADER;

/// Why a packet cannot go on; in one word, so that it is passed in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem(u32);

impl Problem {
    /// Its TTL or hop limit ended.
    pub const EXPIRED: Self = Self(1 << 16);
    /// Nobody is there to take it.
    pub const UNREACHABLE: Self = Self(2 << 16);

    /// The path takes at most so many bytes.
    #[inline(always)]
    pub const fn too_big(mtu: u16) -> Self {
        Self(mtu as u32)
    }

    #[inline(always)]
    const fn reason(self) -> Reason {
        match self {
            Self::EXPIRED => Reason::TtlExceeded,
            Self::UNREACHABLE => Reason::NoBackend,
            _ => Reason::TooBig,
        }
    }

    /// Of so many errors a second, those that it leaves to others: refusals must not keep a live flow
    /// from being told how large its packets may be.
    #[inline(always)]
    const fn spared(self, per_second: u32) -> u32 {
        match self {
            Self::UNREACHABLE => per_second / 2,
            _ => 0,
        }
    }

    /// Type, code and the word behind the checksum, as on the wire.
    #[inline(always)]
    const fn message<F: Family>(self) -> ([u8; 2], [u8; 4]) {
        let [_, _, a, b] = self.0.to_be_bytes();
        match (self, F::VERSION) {
            (Self::EXPIRED, 4) => ([11, 0], [0; 4]),
            (Self::EXPIRED, _) => ([3, 0], [0; 4]),
            (Self::UNREACHABLE, 4) => ([3, 3], [0; 4]),
            (Self::UNREACHABLE, _) => ([1, 4], [0; 4]),
            (_, 4) => ([3, 4], [0, 0, a, b]),
            (_, _) => ([2, 0], [0, 0, a, b]),
        }
    }
}

/// Answers a packet that cannot be forwarded as it is.
#[inline(always)]
pub fn answer<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
) -> Verdict {
    let problem = match work.parsed.ttl {
        0 | 1 => Problem::EXPIRED,
        _ => Problem::too_big(work.flow.hop.mtu),
    };
    send::<F, P, W>(packet, world, work, problem)
}

/// Turns the packet into an ICMP error to its sender, from the address that it was sent to, and
/// sends it back the way it came.
#[inline(never)]
pub fn send<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
    problem: Problem,
) -> Verdict {
    if !is_in_budget::<F, W>(world, work, problem) {
        return Verdict::DROP;
    }
    world.count(problem.reason());
    if build::<F, P>(packet, &work.parsed, problem) {
        return Verdict::back(world.ifindex());
    }
    world.count(Reason::Failed);
    Verdict::DROP
}

/// Whether one more answer of that kind may be sent in this second; counts it if not.
#[inline(always)]
pub fn is_in_budget<F: Family, W: World<F>>(
    world: &W,
    work: &Work<F::Addr>,
    problem: Problem,
) -> bool {
    let may = world.may_send_error(problem.spared(work.control.errors_per_second));
    if !may {
        world.count(Reason::ErrorLimit);
    }
    may
}

#[inline(always)]
fn build<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F::Addr>, problem: Problem) -> bool {
    let l3 = parsed.l3 as usize;
    // All of TCP's header, so that a card that finishes checksums finds its field.
    let transport = if parsed.key.protocol == IPPROTO_TCP { 20 } else { 8 };
    let quoted = (parsed.l4 as usize + transport).saturating_sub(l3).min(MAX_QUOTE);
    let keep = l3 + quoted;
    if !packet.open_room(l3, F::ERROR_ROOM, keep) || !rewrite::turn_round(packet) {
        return false;
    }
    let icmp = l3 + F::HEADER;
    // Precedence 6 (internetwork control), as RFC 1812, 4.3.2.5 asks.
    let content = Content { protocol: F::ICMP, service: 0xc0 };
    F::write_header(packet, l3, parsed, content, quoted + icmp::HEADER)
        && write_message::<F, P>(packet, icmp, problem)
        && finish::<F, P>(packet, icmp, quoted, parsed)
}

#[inline(always)]
fn write_message<F: Family, P: Packet>(packet: &mut P, icmp: usize, problem: Problem) -> bool {
    let Some(mut header) = packet.window::<8>(icmp) else { return false };
    let (kind, word) = problem.message::<F>();
    header.store::<[u8; 2], 0>(kind);
    header.store::<u16, 2>(0);
    header.store::<[u8; 4], 4>(word);
    true
}

/// Sums the message and writes its checksum.
#[inline(always)]
fn finish<F: Family, P: Packet>(
    packet: &mut P,
    icmp: usize,
    quoted: usize,
    parsed: &Parsed<F::Addr>,
) -> bool {
    let words = (quoted + icmp::HEADER) / 4;
    // ICMP has no pseudo-header.
    let mut total = match F::VERSION {
        4 => 0,
        _ => F::pseudo_sum(&parsed.key, F::ICMP, quoted + icmp::HEADER),
    };
    if words > MAX_WORDS {
        return false;
    }
    for index in 0..MAX_WORDS {
        if index >= words {
            break;
        }
        let Some(word) = packet.window::<4>(icmp + index * 4) else { return false };
        total += word.load::<u32, 0>() as u64;
    }
    let Some(mut header) = packet.window::<8>(icmp) else { return false };
    header.store::<u16, 2>(!checksum::fold_wide(total));
    true
}
