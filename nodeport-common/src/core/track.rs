//! Packets that are not routine: of young flows, of flows that begin, close or lost something.

use super::env::{Inserted, Packet, Step, Stepped, Window, World};
use super::family::Family;
use super::flow::{self, direction, is_met_at, next_state, partner, partner_key};
use super::icmp_reply;
use super::parse::Parsed;
use super::state::{ACK, Direction, RST, SYN, is_reusable, may_open};
use super::table::handle::Handle;
use super::verdict::Verdict;
use super::work::{Former, Work};
use super::{gone, open, walk};
use crate::abi::{
    FLOW_FAST, FLOW_LOCAL, FLOW_PROVED, FLOW_REPLY, Flow, FlowKey, FlowState, HOP_STACK,
    HOP_UNRESOLVED, IPPROTO_TCP, NextHop, Reason,
};

/// Decides on `work.parsed`, a packet whose port concerns us and that is not routine.
#[inline(never)]
pub fn track<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
) -> Verdict {
    work.key = work.parsed.key;
    if !find::<F, W>(world, work) {
        work.former = Former::NONE;
        return open::open::<F, P, W>(packet, world, work);
    }
    if !is_met_at(&work.flow, W::HOOK) {
        return Verdict::PASS;
    }
    let partner = find_partner::<F, W>(world, work);
    if partner != Partner::Another {
        match fate::<F, W>(world, work) {
            Fate::Lives => return follow::<F, P, W>(packet, world, work, partner),
            Fate::Gone => return gone::answer::<F, P, W>(packet, world, work, partner),
            Fate::Begins => {}
        }
    }
    forget::<F, W>(world, work, partner);
    work.former = Former::of(&work.flow);
    if may_open(work.parsed.key.protocol, work.parsed.tcp_flags) {
        return open::open::<F, P, W>(packet, world, work);
    }
    if partner == Partner::Another {
        walk::count_passed::<F, W>(world, Reason::NoFlow);
    }
    Verdict::PASS
}

/// What stands in the place of a half's partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partner {
    /// The partner.
    There,
    /// Nothing: it was lost.
    Lost,
    /// A half of another flow, that took its place after it was lost. There is nothing any more
    /// that this half could belong to.
    Another,
}

/// Reads the other half of `work.flow` into `work.other`.
#[inline(never)]
pub fn find_partner<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> Partner {
    work.other_key = partner_key(&work.key, &work.flow);
    read_partner::<F, W>(world, &work.key, &work.other_key, &mut work.other)
}

/// Reads what stands in the place `other_key` of the partner of the half of `key`.
#[inline(always)]
pub fn read_partner<F: Family, W: World<F>>(
    world: &W,
    key: &FlowKey<F::Addr>,
    other_key: &FlowKey<F::Addr>,
    other: &mut Flow<F::Addr>,
) -> Partner {
    if !world.read_flow(other_key, other) {
        return Partner::Lost;
    }
    let is_mutual = partner_key(other_key, other) == *key;
    if is_mutual { Partner::There } else { Partner::Another }
}

/// Reads the half of `work.key` into `work.flow`; false if there is none.
#[inline(never)]
pub fn find<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    world.read_flow(&work.key, &mut work.flow)
}

/// What becomes of a flow with a packet of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes on.
    Lives,
    /// Its backend is gone, and the packet opens no other flow.
    Gone,
    /// Its client begins anew on its ports.
    Begins,
}

#[inline(always)]
fn fate<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>) -> Fate {
    let (flow, flags) = (&work.flow, work.parsed.tcp_flags);
    let opens_another = direction(flow) == Direction::Forward && may_open(work.key.protocol, flags);
    if world.generation(flow.backend) != Some(flow.generation) {
        if !opens_another {
            return Fate::Gone;
        }
        world.count(Reason::StaleBackend);
        return Fate::Begins;
    }
    let begins = work.key.protocol == IPPROTO_TCP
        && opens_another
        && is_reusable(FlowState::from_u8(flow.state));
    if begins { Fate::Begins } else { Fate::Lives }
}

/// Removes both halves; one half if the other's place is another flow's. The other one first: its
/// packets come on another CPU, and one that found its half alone would make this one anew.
#[inline(never)]
fn forget<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>, partner: Partner) {
    if partner == Partner::There {
        world.remove_flow(&work.other_key, Handle::of(&work.other));
    }
    world.remove_flow(&work.key, Handle::of(&work.flow));
}

/// Takes the flow one step further and delivers the packet.
#[inline(never)]
fn follow<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
    partner: Partner,
) -> Verdict {
    let hop_changed = refresh_hop::<F, W>(world, work);
    let verdict = match way_on::<F, P, W>(packet, world, work) {
        Ok(verdict) => verdict,
        Err(verdict) => return verdict,
    };
    read_number::<F, P>(packet, work);
    let state_changed = step::<F, W>(world, work);
    let changed = Changed { hop: hop_changed, state: state_changed };
    if keep::<F, W>(world, work, changed) {
        keep_partner::<F, W>(world, work, partner, changed);
    }
    walk::deliver::<F, P, W>(packet, world, &work.parsed, &work.flow, verdict)
}

/// Counts the packet and puts the flow into its next state; true if that is another.
#[inline(always)]
fn step<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    let (now, flow) = (world.now(), &mut work.flow);
    let Parsed { tcp_flags, total, .. } = work.parsed;
    let (old, hz) = (flow.state, work.control.hz);
    let segment = (tcp_flags, work.acknowledges);
    let state = next_state(flow, work.key.protocol, segment, now, hz);
    flow::set_state(flow, state);
    flow.last_seen = now;
    flow.packets += 1;
    flow.bytes += total as u64;
    flow.state != old
}

/// Reads what a newcomer's segment acknowledges, or would be acknowledged by.
#[inline(never)]
fn read_number<F: Family, P: Packet>(packet: &mut P, work: &mut Work<F::Addr>) {
    work.acknowledges = 0;
    if work.key.protocol != IPPROTO_TCP || work.flow.flags & FLOW_PROVED != 0 {
        return;
    }
    let Some(header) = packet.window::<20>(work.parsed.l4 as usize) else { return };
    work.acknowledges = match direction(&work.flow) {
        Direction::Forward => u32::from_be(header.load::<u32, 8>()),
        Direction::Reply => u32::from_be(header.load::<u32, 4>()).wrapping_add(1),
    };
}

/// How the packet goes on; the verdict on it where something stands in its way: no route, no hop
/// left, a narrower path, or that XDP cannot deliver it.
#[inline(always)]
pub fn way_on<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
) -> Result<Verdict, Verdict> {
    let hop = &work.flow.hop;
    if hop.kind == HOP_UNRESOLVED {
        // To the stack it would be a packet of a connection that it does not know, and its RST
        // would end what a route that comes back can still save.
        world.count(Reason::HopUnresolved);
        return Err(Verdict::DROP);
    }
    let exit = walk::exit::<F, P, W>(packet, world, work.parsed.l3, hop).ok_or(Verdict::PASS)?;
    if hop.kind == HOP_STACK || walk::may_leave(packet, &work.parsed, &work.flow) {
        return Ok(exit);
    }
    Err(icmp_reply::answer::<F, P, W>(packet, world, work))
}

/// Looks the next hop up again if something on the node's paths has changed; true if it did.
#[inline(never)]
pub fn refresh_hop<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    let (flow, epoch) = (&mut work.flow, work.control.hop_epoch());
    if flow.hop.epoch == epoch {
        return false;
    }
    if flow.flags & (FLOW_LOCAL | FLOW_FAST) == FLOW_LOCAL {
        flow.hop = NextHop { kind: HOP_STACK, epoch, ..NextHop::UNRESOLVED };
        return true;
    }
    (work.way.from, work.way.to) = (flow.new_src, flow.new_dst);
    find_way::<F, W>(world, work);
    if work.way.hop.kind == HOP_STACK && work.flow.flags & FLOW_FAST != 0 {
        // The stack has never seen this flow.
        work.way.hop = NextHop::UNRESOLVED;
    }
    work.flow.hop = work.way.hop;
    true
}

/// Asks for the way; an answer that may be kept is good for this epoch.
#[inline(never)]
pub fn find_way<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) {
    world.route(&mut work.way, work.key.protocol);
    let hop = &mut work.way.hop;
    // The kernel says of its own addresses that it would not forward, and of all others that it
    // has no route to.
    if hop.kind == HOP_STACK && !world.is_node_address(&work.way.to) {
        *hop = NextHop::UNRESOLVED;
    }
    if hop.epoch != 0 {
        hop.epoch = work.control.hop_epoch();
    }
}

/// What a packet has changed about its half.
#[derive(Clone, Copy, Debug)]
struct Changed {
    hop: bool,
    state: bool,
}

/// Brings the half up to date. False if it is gone: another CPU has ended the flow since it was read,
/// and perhaps begun another one with its key.
#[inline(never)]
fn keep<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, changed: Changed) -> bool {
    let step = Step {
        now: work.flow.last_seen,
        bytes: work.parsed.total as u32,
        hop: changed.hop.then_some(&work.flow.hop),
        state: changed.state.then_some(FlowState::from_u8(work.flow.state)),
    };
    match world.step_flow(Handle::of(&work.flow), step) {
        Stepped::Gone => return false,
        Stepped::Done => {}
        Stepped::Merged(state) => flow::set_state(&mut work.flow, state),
    }
    true
}

/// Counts a flow that no table had room for.
#[inline(always)]
pub fn count_full<F: Family, W: World<F>>(world: &W, service: u32) {
    world.count(Reason::TableFull);
    world.service_stats(service, |stats| stats.table_full += 1);
}

/// Brings the partner to the same state; makes it anew if it is lost.
#[inline(never)]
fn keep_partner<F: Family, W: World<F>>(
    world: &W,
    work: &mut Work<F::Addr>,
    found: Partner,
    changed: Changed,
) {
    let answered = is_answer(work).then_some(work.acknowledges);
    if found == Partner::There {
        keep_found_partner::<F, W>(world, work, answered);
        return;
    }
    world.count(Reason::PartnerRebuilt);
    make_partner(work);
    work.other.answered = answered.unwrap_or(work.flow.answered);
    // Its place may have been taken a moment ago: the next packet sees that. What has no room is
    // told once, not with each packet.
    let stored = world.claim_flow(&work.other_key, &mut work.other);
    if stored == Inserted::Full && (changed.hop || changed.state) {
        count_full::<F, W>(world, work.flow.service);
    }
}

/// Whether the packet is the SYN-ACK of a flow that has not proved itself.
#[inline(always)]
fn is_answer<A>(work: &Work<A>) -> bool {
    work.flow.flags & (FLOW_REPLY | FLOW_PROVED) == FLOW_REPLY
        && work.flow.state == FlowState::Answered as u8
        && work.parsed.tcp_flags & (SYN | ACK | RST) == SYN | ACK
}

/// Brings the partner that is there to the same state. `answered` is the number by which the client
/// can prove itself from then on, if the packet is the SYN-ACK.
#[inline(always)]
fn keep_found_partner<F: Family, W: World<F>>(
    world: &W,
    work: &mut Work<F::Addr>,
    answered: Option<u32>,
) {
    if let Some(answered) = answered {
        // If the client has proved itself in this instant, that is not taken back.
        if work.other.flags & FLOW_PROVED != 0 {
            return;
        }
        // The number first: in that state, a segment is held against it.
        if work.other.answered != answered {
            world.note_answer(Handle::of(&work.other), answered);
        }
    }
    if work.other.state != work.flow.state {
        merge_partner::<F, W>(world, work);
    }
}

/// Makes the other half; in a function of its own, whose stack is free again afterwards.
#[inline(never)]
pub fn make_partner<A: Copy>(work: &mut Work<A>) {
    work.other = partner(&work.key, &work.flow);
}

/// Brings the partner to the half's state, and the half to what comes of it if another CPU has
/// changed the partner meanwhile.
#[inline(always)]
fn merge_partner<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) {
    let state = FlowState::from_u8(work.flow.state);
    if let Some(merged) = world.merge_flow(Handle::of(&work.other), state)
        && merged != state
    {
        world.merge_flow(Handle::of(&work.flow), merged);
    }
}
