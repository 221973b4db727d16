//! An ICMP error about a packet that we rewrote: it is turned back into one about the packet that
//! was sent, and goes to whoever sent it (RFC 5508, section 4).
//!
//! The rule is one for both directions. The quoted packet turned round is a packet that the
//! error's receiver might have got: its flow, if there is one, says how addresses and ports change.
//! Errors neither make nor end a flow: they are easily forged.

use super::checksum;
use super::env::{Packet, Window, World};
use super::family::{Family, HeaderChange};
use super::flow::is_met_at;
use super::parse::{Parsed, icmp};
use super::rewrite;
use super::track::{find, refresh_hop};
use super::verdict::Verdict;
use super::walk::{self, concerns_us};
use super::work::Work;
use crate::abi::{Flow, HOP_STACK, HOP_UNRESOLVED, IPPROTO_UDP, Reason};

/// Offset of the checksum in an ICMP header.
const ICMP_CHECKSUM: usize = 2;

/// Where the checksum ends in a TCP header.
const TCP_CHECKSUM_END: usize = 18;

/// Sends the error whose header `work.outer` is along its flow; up the stack if it is about none.
#[inline(never)]
pub fn forward<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
    l3: usize,
) -> Verdict {
    let (l4, end) = (work.outer.l4 as usize, l3 + work.outer.total as usize);
    if !icmp::quoted::<F, P>(packet, l4, end, &mut work.quote, &mut work.parsed) {
        return Verdict::PASS;
    }
    work.key = work.parsed.key.reversed();
    match find_flow::<F, W>(world, work) {
        Some(()) => send_on::<F, P, W>(packet, world, work, l3),
        None => Verdict::PASS,
    }
}

/// Finds the live flow that the error is about, if its packets are met at this hook.
#[inline(always)]
fn find_flow<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> Option<()> {
    if !concerns_us::<F, W>(world, &work.key) {
        return None;
    }
    if !find::<F, W>(world, work) {
        return None;
    }
    (is_met_at(&work.flow, W::HOOK) && world.generation(work.flow.backend)? == work.flow.generation)
        .then_some(())
}

#[inline(always)]
fn send_on<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
    l3: usize,
) -> Verdict {
    refresh_hop::<F, W>(world, work);
    let exit = walk::exit::<F, P, W>(packet, world, l3 as u16, &work.flow.hop);
    let verdict = match work.flow.hop.kind {
        HOP_UNRESOLVED => return Verdict::PASS,
        HOP_STACK if packet.mark_done() => Verdict::STACK,
        HOP_STACK => return Verdict::PASS,
        _ if exit.is_none() => return Verdict::PASS,
        // An error about an error is never sent (RFC 1122, 3.2.2): this one ends here.
        _ if work.outer.ttl <= 1 => {
            world.count(Reason::TtlExceeded);
            return Verdict::DROP;
        }
        _ => exit.unwrap_or(Verdict::PASS),
    };
    if !translate::<F, P>(packet, work, l3) {
        world.count(Reason::Failed);
        return Verdict::DROP;
    }
    // All else in the message sums to the same as before, with its checksum.
    if rewrite::hop_diff::<F>(work.flow.hop.kind) != 0 {
        packet.add_to_sum(rewrite::hop_diff::<F>(work.flow.hop.kind));
    }
    world.count(Reason::IcmpTranslated);
    verdict
}

/// Rewrites the outer header, the quoted packet and the checksums of both.
#[inline(never)]
fn translate<F: Family, P: Packet>(packet: &mut P, work: &Work<F::Addr>, l3: usize) -> bool {
    let (flow, quote) = (&work.flow, &work.parsed);
    let inner = HeaderChange {
        src: flow.new_dst,
        dst: flow.new_src,
        address_diff: flow.address_diff,
        hop: false,
    };
    let end = l3 + work.outer.total as usize;
    let Some(quoted_diff) = quoted_transport::<F, P>(packet, quote, end, flow) else {
        return false;
    };
    let outer_diff = outer_diff::<F>(work);
    F::rewrite(packet, quote.l3 as usize, &inner)
        && outer_header::<F, P>(packet, work, l3, outer_diff)
        && icmp_checksum::<F, P>(packet, work, quoted_diff, outer_diff)
        && (!rewrite::has_addresses(flow.hop.kind)
            || rewrite::ethernet(packet, &flow.hop.dst_mac, &flow.hop.src_mac))
}

/// Source of the error as its receiver shall see it: who is in the middle of the path and reports
/// keeps its address, unless the flow hides that side.
#[inline(always)]
fn outer_src<A: Copy + PartialEq>(work: &Work<A>) -> A {
    if work.flow.new_src == work.key.src { work.outer.src } else { work.flow.new_src }
}

#[inline(always)]
fn outer_diff<F: Family>(work: &Work<F::Addr>) -> u16 {
    checksum::combine(
        F::address_diff(&work.outer.src, &outer_src(work)),
        F::address_diff(&work.outer.dst, &work.flow.new_dst),
    )
}

#[inline(always)]
fn outer_header<F: Family, P: Packet>(
    packet: &mut P,
    work: &Work<F::Addr>,
    l3: usize,
    address_diff: u16,
) -> bool {
    let hop = work.flow.hop.kind != HOP_STACK;
    let (src, dst) = (outer_src(work), work.flow.new_dst);
    F::rewrite(packet, l3, &HeaderChange { src, dst, address_diff, hop })
}

/// Rewrites ports and, where the quote reaches so far, the checksum of the quoted packet.
/// Returns the difference that both make to the sum of the quoted transport header.
#[inline(always)]
fn quoted_transport<F: Family, P: Packet>(
    packet: &mut P,
    quote: &Parsed<F::Addr>,
    end: usize,
    flow: &Flow<F::Addr>,
) -> Option<u16> {
    let l4 = quote.l4 as usize;
    let ports = flow.new_ports.swapped().word();
    packet.window::<8>(l4)?.store::<u32, 0>(ports);
    let diff = checksum::combine(flow.address_diff, flow.port_diff);
    let updated = if quote.key.protocol == IPPROTO_UDP {
        quoted_udp(packet, l4, diff)
    } else {
        l4 + TCP_CHECKSUM_END <= end && quoted_tcp(packet, l4, diff)
    };
    // The ports add their difference, the checksum takes away its own, which has that in it.
    let rest = if updated { checksum::inverse(flow.address_diff) } else { flow.port_diff };
    Some(rest)
}

#[inline(always)]
fn quoted_udp<P: Packet>(packet: &mut P, l4: usize, diff: u16) -> bool {
    let Some(mut header) = packet.window::<8>(l4) else { return false };
    let field = header.load::<u16, 6>();
    header.store::<u16, 6>(checksum::update_udp(field, diff));
    field != 0
}

#[inline(always)]
fn quoted_tcp<P: Packet>(packet: &mut P, l4: usize, diff: u16) -> bool {
    let Some(mut header) = packet.window::<TCP_CHECKSUM_END>(l4) else { return false };
    let field = header.load::<u16, 16>();
    header.store::<u16, 16>(checksum::update(field, diff));
    true
}

/// Brings the ICMP checksum up to date. An IPv4 header sums to the same with its own checksum, so
/// only what stands behind it counts; IPv6 has none, and ICMPv6 covers the outer addresses as well.
#[inline(always)]
fn icmp_checksum<F: Family, P: Packet>(
    packet: &mut P,
    work: &Work<F::Addr>,
    quoted_diff: u16,
    outer_diff: u16,
) -> bool {
    let Some(mut header) = packet.window::<8>(work.outer.l4 as usize) else { return false };
    let diff = match F::VERSION {
        4 => quoted_diff,
        _ => {
            let addresses = checksum::combine(outer_diff, work.flow.address_diff);
            checksum::combine(addresses, quoted_diff)
        }
    };
    let field = header.load::<u16, ICMP_CHECKSUM>();
    header.store::<u16, ICMP_CHECKSUM>(checksum::update(field, diff));
    true
}
