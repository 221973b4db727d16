//! The walk of a packet: parse, find its flow, rewrite, send.
//!
//! What millions of packets need is one straight line, `routine`. Whatever is not routine
//! leaves it for functions of their own, which may look again at what the straight line saw.

use super::env::{FlowRef, Hook, Packet, Window, World};
use super::family::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Family, V4, V6};
use super::flow::{INTERVAL, is_met_at};
use super::parse::{self, ETHERNET, Kind, L4, Parsed};
use super::state::{FIN, RST, SYN};
use super::verdict::Verdict;
use super::work::Work;
use super::{icmp_error, open, own, rewrite, track};
use crate::abi::{
    FLOW_FAST, FLOW_SETTLED, Flow, FlowKey, HOP_POD, HOP_SEND, HOP_STACK, HOP_TAGGED, IPPROTO_TCP,
    IPPROTO_UDP, NextHop, PORT_BACKEND, PORT_FRONTEND, PORT_SNAT, Reason,
};

/// Bytes of a frame that uncommon packets are parsed in: tags, options, extensions, and the
/// headers that an ICMP error quotes.
const MAX_HEADERS: u32 = 256;

/// Decides on a frame; a fragment of TCP or UDP in TC is left to [`fragment::walk`](super::fragment::walk).
pub fn walk<P: Packet, W: World<V4> + World<V6>>(packet: &mut P, world: &W) -> Verdict {
    quick(packet, world).unwrap_or_else(|| thorough(packet, world))
}

/// Decides on what is routine or none of our business: the straight line. `None`, and the frame as
/// it came, for all else, which [`thorough`] decides on.
///
/// It calls nothing, but for packets that the kernel has joined: where it guards returns against
/// speculation, each costs as much as a tenth of all this.
#[inline(always)]
pub fn quick<P: Packet, W: World<V4> + World<V6>>(packet: &mut P, world: &W) -> Option<Verdict> {
    let kind = match packet.window::<ETHERNET>(0) {
        Some(header) => header.load::<u16, 12>(),
        None => return Some(Verdict::PASS),
    };
    match kind {
        ETHERTYPE_IPV4 => common::<V4, P, W>(packet, world),
        ETHERTYPE_IPV6 => common::<V6, P, W>(packet, world),
        kind if parse::is_tag(kind) => None,
        _ => Some(Verdict::PASS),
    }
}

/// Decides on any frame.
#[inline(always)]
pub fn thorough<P: Packet, W: World<V4> + World<V6>>(packet: &mut P, world: &W) -> Verdict {
    let Some((ethertype, l3)) = parse::ethernet(packet) else { return Verdict::PASS };
    match ethertype {
        ETHERTYPE_IPV4 => any::<V4, P, W>(packet, world, l3),
        ETHERTYPE_IPV6 => any::<V6, P, W>(packet, world, l3),
        _ => Verdict::PASS,
    }
}

/// The common frame: no tags, options or extensions, so that every offset is a constant. The
/// verdict, if it is routine or none of our business.
#[inline(always)]
fn common<F: Family, P: Packet, W: World<F>>(packet: &mut P, world: &W) -> Option<Verdict> {
    let network = F::parse_plain(packet, ETHERNET)?;
    if !matches!(network.protocol, IPPROTO_TCP | IPPROTO_UDP) {
        return None;
    }
    let parsed = parse::transport(packet, ETHERNET, &network)?;
    if !concerns_us::<F, W>(world, &parsed.key) {
        return Some(Verdict::PASS);
    }
    routine::<F, P, W>(packet, world, &parsed)
}

/// Any frame of the family.
#[inline(never)]
fn any<F: Family, P: Packet, W: World<F>>(packet: &mut P, world: &W, l3: usize) -> Verdict {
    packet.make_linear(MAX_HEADERS);
    let verdict = world.with_work(|work| {
        let is_later = match F::parse(packet, l3, &mut work.outer) {
            Ok(()) => false,
            Err(L4::Fragment) => true,
            Err(L4::Unparsed) => {
                count_passed::<F, W>(world, Reason::Unparsed);
                return None;
            }
        };
        let is_part = work.outer.fragment.is_part();
        if is_part && W::HOOK == Hook::Xdp {
            return None;
        }
        if is_later {
            return Some(Verdict::FRAGMENT);
        }
        let kind = parse::kind::<F, P>(packet, &work.outer);
        if kind == Kind::Other || is_part && kind != Kind::Transport {
            return None;
        }
        work.control = world.control()?;
        match kind {
            Kind::Other => None,
            Kind::IcmpError => Some(icmp_error::forward::<F, P, W>(packet, world, work, l3)),
            Kind::Transport => {
                let verdict = transport::<F, P, W>(packet, world, work, l3)
                    .unwrap_or_else(|| track::track::<F, P, W>(packet, world, work));
                work.part.verdict = Some(verdict);
                Some(if work.outer.fragment.is_part() { Verdict::FRAGMENT } else { verdict })
            }
        }
    });
    verdict.flatten().unwrap_or(Verdict::PASS)
}

/// A TCP or UDP packet behind tags, options or extensions: into `work.parsed`. The verdict, if it
/// is routine or none of our business.
#[inline(never)]
fn transport<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
    l3: usize,
) -> Option<Verdict> {
    let Some(parsed) = parse::transport(packet, l3, &work.outer) else {
        count_passed::<F, W>(world, Reason::Unparsed);
        return Some(Verdict::PASS);
    };
    if !concerns_us::<F, W>(world, &parsed.key) {
        return Some(Verdict::PASS);
    }
    work.parsed = parsed;
    routine::<F, P, W>(packet, world, &parsed)
}

/// Counts a packet that is passed: once, where the last of our programs passes it. Behind XDP sits
/// TC, which sees it again, as it sees a pod's packet that leaves the node.
#[inline(always)]
pub fn count_passed<F: Family, W: World<F>>(world: &W, reason: Reason) {
    if !matches!(W::HOOK, Hook::Xdp | Hook::Pod) {
        world.count(reason);
    }
}

/// Whether a packet with this key may be ours, told by its port alone.
#[inline(always)]
pub fn concerns_us<F: Family, W: World<F>>(world: &W, key: &FlowKey<F::Addr>) -> bool {
    let bits = |port| world.port_bits(u16::from_be_bytes(port));
    match W::HOOK {
        Hook::Xdp | Hook::Ingress => bits(key.ports.dst) & (PORT_FRONTEND | PORT_SNAT) != 0,
        Hook::Pod => bits(key.ports.src) & PORT_BACKEND != 0,
        // Of the node's own connections from SNAT ports also those to a port that no backend has any more.
        Hook::Egress => bits(key.ports.src) & (PORT_BACKEND | PORT_SNAT) != 0,
    }
}

/// A packet of an established flow that changes nothing about it. `None` if it is not that.
#[inline(always)]
fn routine<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    parsed: &Parsed<F::Addr>,
) -> Option<Verdict> {
    let epoch = world.control()?.hop_epoch();
    let now = world.now();
    let Some(mut entry) = world.flow(&parsed.key) else {
        return is_nobodys::<F, W>(world, &parsed.key).then_some(Verdict::PASS);
    };
    let flow = entry.read()?;
    if W::HOOK == Hook::Pod && flow.flags & FLOW_FAST == 0 {
        // It goes through the stack, and is met where it leaves the node.
        return Some(Verdict::PASS);
    }
    if !is_routine::<F, P, W>(packet, parsed, &flow, now, epoch)
        || world.generation(flow.backend)? != flow.generation
    {
        return None;
    }
    let Some(verdict) = exit::<F, P, W>(packet, world, parsed.l3, &flow.hop) else {
        return Some(Verdict::PASS);
    };
    entry.touch(now, parsed.total as u32);
    Some(deliver::<F, P, W>(packet, world, parsed, &flow, verdict))
}

/// Whether a packet with that key surely belongs to no flow, and opens none. Where answers are met none
/// begins, but for the node's own. Where packets arrive, one with the port of a frontend and another address is as common: a
/// load balancer's address has port 443, and so have others.
#[inline(always)]
fn is_nobodys<F: Family, W: World<F>>(world: &W, key: &FlowKey<F::Addr>) -> bool {
    let may_open = match W::HOOK {
        Hook::Pod => false,
        Hook::Egress => own::may_be::<F, W>(world, key),
        Hook::Xdp | Hook::Ingress => {
            world.serves_node_ports(&key.dst) || world.frontend(&open::exact(key)).is_some()
        }
    };
    !may_open && world.lacks(key)
}

#[inline(always)]
fn is_routine<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
    now: u32,
    epoch: u16,
) -> bool {
    flow.flags & FLOW_SETTLED != 0
        && parsed.tcp_flags & (SYN | FIN | RST) == 0
        && flow.hop.epoch == epoch
        && (now ^ flow.last_seen) & !INTERVAL == 0
        && is_met_at(flow, W::HOOK)
        && (flow.hop.kind == HOP_STACK || may_leave(packet, parsed, flow))
}

/// Whether the packet may be forwarded as it is: it has hops left, and fits the path.
#[inline(always)]
pub fn may_leave<A, P: Packet>(packet: &mut P, parsed: &Parsed<A>, flow: &Flow<A>) -> bool {
    let mtu = flow.hop.mtu;
    // A length of 0 says nothing; it wraps to one that fits no path.
    parsed.ttl > 1 && (parsed.total.wrapping_sub(1) < mtu || segments_fit(packet, parsed, mtu))
}

/// Whether the segments fit into which the kernel will cut the packet.
#[inline(never)]
fn segments_fit<A, P: Packet>(packet: &mut P, parsed: &Parsed<A>, mtu: u16) -> bool {
    let payload = packet.gso_size();
    if payload == 0 {
        return false;
    }
    let transport = match packet.window::<20>(parsed.l4 as usize) {
        Some(tcp) if parsed.key.protocol == IPPROTO_TCP => tcp.load::<u8, 12>() >> 4 << 2,
        _ => 8,
    };
    let headers = parsed.l4.saturating_sub(parsed.l3).saturating_add(transport as u16);
    headers.saturating_add(payload) <= mtu
}

/// How a frame whose IP header is at `l3` leaves for its next hop. `None`: only TC can deliver
/// it, and XDP hands it up as it came.
///
/// XDP sends frames with the VLAN tags that they came with, so it sends those alone that need
/// just these; TC takes tags off, and VLAN devices put theirs on.
#[inline(always)]
pub fn exit<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    l3: u16,
    hop: &NextHop,
) -> Option<Verdict> {
    match (W::HOOK, hop.kind) {
        (_, HOP_STACK) => Some(Verdict::STACK),
        (Hook::Xdp, HOP_SEND) if l3 as usize == ETHERNET => Some(Verdict::send(hop.ifindex)),
        (Hook::Xdp, HOP_TAGGED) if l3 as usize != ETHERNET => {
            tagged::<P, W, F>(packet, world, l3, hop)
        }
        (Hook::Xdp, _) => None,
        (_, HOP_SEND) => Some(Verdict::send(hop.ifindex)),
        // The kernel puts packets into the far end of a veth from where they arrive, and drops them
        // elsewhere.
        (Hook::Egress, HOP_POD) => Some(Verdict::send(hop.ifindex)),
        (_, HOP_POD) => Some(Verdict::pod(hop.ifindex)),
        (_, _) => Some(Verdict::neighbour(hop.ifindex)),
    }
}

/// Out of the interface below the VLAN device, if the frame has the right tags.
#[inline(never)]
fn tagged<P: Packet, W: World<F>, F: Family>(
    packet: &mut P,
    world: &W,
    l3: u16,
    hop: &NextHop,
) -> Option<Verdict> {
    let (lower, tags) = world.below(hop.ifindex)?;
    (parse::tags(packet, l3 as usize) == tags).then(|| Verdict::send(lower))
}

/// Rewrites the packet, which goes where `verdict` says.
#[inline(always)]
pub fn deliver<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
    verdict: Verdict,
) -> Verdict {
    if flow.hop.kind == HOP_STACK && !packet.mark_done() {
        return Verdict::PASS;
    }
    if !rewrite::rewrite::<F, P>(packet, parsed, flow) {
        world.count(Reason::Failed);
        return Verdict::DROP;
    }
    verdict
}
