//! Packets that are not routine: of young flows, of flows that begin, close or lost something.

use super::env::{FlowRef, Hook, Insert, Inserted, Packet, Table, World};
use super::family::Family;
use super::flow::{self, direction, is_met_leaving, next_state, partner, partner_key};
use super::icmp_reply;
use super::parse::Parsed;
use super::state::{Direction, is_reusable, is_settled, may_open, opens};
use super::verdict::Verdict;
use super::work::Work;
use super::{open, walk};
use crate::abi::{FLOW_LOCAL, FlowState, HOP_STACK, HOP_UNRESOLVED, IPPROTO_TCP, NextHop, Reason};

/// Decides on `work.parsed`, a packet whose port concerns us and that is not routine.
#[inline(never)]
pub fn track<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
) -> Verdict {
    work.key = work.parsed.key;
    let Some(table) = find::<F, W>(world, work) else {
        return open::open::<F, P, W>(packet, world, work);
    };
    if is_met_leaving(&work.flow) != (W::HOOK == Hook::Egress) {
        return Verdict::PASS;
    }
    let partner = find_partner::<F, W>(world, work);
    if partner != Partner::Another && !is_over::<F, W>(world, work) {
        return follow::<F, P, W>(packet, world, work, Place { table, partner });
    }
    forget::<F, W>(world, work, partner);
    if may_open(work.parsed.key.protocol, work.parsed.tcp_flags) {
        return open::open::<F, P, W>(packet, world, work);
    }
    if partner == Partner::Another {
        world.count(Reason::NoFlow);
    }
    Verdict::PASS
}

/// What stands in the place of a half's partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Partner {
    /// The partner, in that table.
    In(Table),
    /// Nothing: it was lost.
    Lost,
    /// A half of another flow, that took its place after it was lost. There is nothing any more
    /// that this half could belong to.
    Another,
}

/// Where both halves of a flow are.
#[derive(Clone, Copy, Debug)]
struct Place {
    table: Table,
    partner: Partner,
}

/// Reads the other half into `work.other`.
#[inline(never)]
fn find_partner<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> Partner {
    work.other_key = partner_key(&work.key, &work.flow);
    for table in [Table::Flows, Table::Nursery] {
        if let Some(entry) = world.flow(table, &work.other_key) {
            entry.read_into(&mut work.other);
            let mutual = partner_key(&work.other_key, &work.other) == work.key;
            return if mutual { Partner::In(table) } else { Partner::Another };
        }
    }
    Partner::Lost
}

/// Reads the half of `work.key` into `work.flow`, and says in which table it is.
///
/// The established are looked at again at the end: another CPU may have moved the flow from the
/// nursery between the first look and the second, and a packet of a live connection that went to
/// the stack would be answered with a reset.
#[inline(always)]
pub fn find<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> Option<Table> {
    for table in [Table::Flows, Table::Nursery, Table::Flows] {
        if let Some(entry) = world.flow(table, &work.key) {
            entry.read_into(&mut work.flow);
            return Some(table);
        }
    }
    None
}

/// Whether the flow has ended: its backend is gone, or its client begins anew on its ports.
#[inline(always)]
fn is_over<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>) -> bool {
    let flow = &work.flow;
    if world.generation(flow.backend) != Some(flow.generation) {
        world.count(Reason::StaleBackend);
        return true;
    }
    work.key.protocol == IPPROTO_TCP
        && opens(work.parsed.tcp_flags)
        && direction(flow) == Direction::Forward
        && is_reusable(FlowState::from_u8(flow.state))
}

/// Removes both halves from both tables; one half if the other's place is another flow's.
#[inline(never)]
fn forget<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>, partner: Partner) {
    for table in [Table::Flows, Table::Nursery] {
        world.remove_flow(table, &work.key);
        if partner != Partner::Another {
            world.remove_flow(table, &work.other_key);
        }
    }
}

/// Takes the flow one step further and delivers the packet.
#[inline(never)]
fn follow<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
    place: Place,
) -> Verdict {
    let hop_changed = refresh_hop::<F, W>(world, work);
    let verdict = match way_on::<F, P, W>(packet, world, work) {
        Ok(verdict) => verdict,
        Err(verdict) => return verdict,
    };
    let state_changed = step::<F, W>(world, work);
    store::<F, W>(world, work, place, Changed { hop: hop_changed, state: state_changed });
    walk::deliver::<F, P, W>(packet, world, &work.parsed, &work.flow, verdict)
}

/// Counts the packet and puts the flow into its next state; true if that is another.
#[inline(always)]
fn step<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    let (now, flow) = (world.now(), &mut work.flow);
    let Parsed { tcp_flags, total, .. } = work.parsed;
    let (old, hz) = (flow.state, work.control.hz);
    let state = next_state(flow, work.key.protocol, tcp_flags, now, hz);
    flow::set_state(flow, state);
    flow.last_seen = now;
    flow.packets += 1;
    flow.bytes += total as u64;
    flow.state != old
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
    let (flow, epoch) = (&mut work.flow, work.control.epoch);
    if flow.hop.epoch == epoch {
        return false;
    }
    let by_stack = is_met_leaving(flow) || direction(flow) == Direction::Forward;
    if flow.flags & FLOW_LOCAL != 0 && by_stack {
        flow.hop = NextHop { kind: HOP_STACK, epoch, ..NextHop::UNRESOLVED };
        return true;
    }
    (work.way.from, work.way.to) = (flow.new_src, flow.new_dst);
    find_way::<F, W>(world, work);
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
        hop.epoch = work.control.epoch;
    }
}

/// What a packet has changed about its half.
#[derive(Clone, Copy, Debug)]
struct Changed {
    hop: bool,
    state: bool,
}

/// Writes the half back, its partner beside it: among the established once they have proved
/// themselves, or one of them is there already.
#[inline(never)]
fn store<F: Family, W: World<F>>(
    world: &W,
    work: &mut Work<F::Addr>,
    place: Place,
    changed: Changed,
) {
    let Place { table, partner } = place;
    let moves = match table {
        Table::Flows => partner == Partner::In(Table::Nursery),
        Table::Nursery => {
            partner == Partner::In(Table::Flows) || is_settled(FlowState::from_u8(work.flow.state))
        }
    };
    if moves && move_on::<F, W>(world, work, place) {
        return;
    }
    if !keep::<F, W>(world, work, table, changed) {
        return;
    }
    let to = if let Partner::In(place) = partner { place } else { table };
    let stored = put_partner::<F, W>(world, work, partner, to);
    // What has no room among the established is told once, not with each packet.
    if (changed.hop || changed.state) && (moves || !stored) {
        count_full::<F, W>(world, work.flow.service);
    }
}

/// Brings the half up to date where it is. False if it is gone: another CPU has ended the flow
/// since, and perhaps begun another one with its key, which must not find the old one in its way.
#[inline(always)]
fn keep<F: Family, W: World<F>>(
    world: &W,
    work: &mut Work<F::Addr>,
    table: Table,
    changed: Changed,
) -> bool {
    if changed.hop {
        return world.insert_flow(table, &work.key, &work.flow, Insert::Update) == Inserted::Done;
    }
    let Some(mut entry) = world.flow(table, &work.key) else { return false };
    entry.touch(work.flow.last_seen, work.parsed.total as u32);
    if changed.state {
        let merged = entry.merge_state(FlowState::from_u8(work.flow.state));
        flow::set_state(&mut work.flow, merged);
    }
    true
}

/// Moves both halves to the established. False if there is no room for both: then they are where
/// they were.
#[inline(never)]
fn move_on<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, place: Place) -> bool {
    let from_nursery = place.table == Table::Nursery;
    let how = if from_nursery { Insert::Replace } else { Insert::Update };
    match world.insert_flow(Table::Flows, &work.key, &work.flow, how) {
        Inserted::Done => {}
        // As in `keep`: there is nothing to move.
        Inserted::Gone => return true,
        _ => return false,
    }
    if !put_partner::<F, W>(world, work, place.partner, Table::Flows) {
        if from_nursery {
            world.remove_flow(Table::Flows, &work.key);
        }
        return false;
    }
    if from_nursery {
        world.remove_flow(Table::Nursery, &work.key);
    }
    if place.partner == Partner::In(Table::Nursery) {
        world.remove_flow(Table::Nursery, &work.other_key);
    }
    true
}

/// Counts a flow that no table had room for.
#[inline(always)]
pub fn count_full<F: Family, W: World<F>>(world: &W, service: u32) {
    world.count(Reason::TableFull);
    world.service_stats(service, |stats| stats.table_full += 1);
}

/// Brings the partner to the same state and table; makes it anew if it is lost.
#[inline(never)]
fn put_partner<F: Family, W: World<F>>(
    world: &W,
    work: &mut Work<F::Addr>,
    found: Partner,
    to: Table,
) -> bool {
    if found == Partner::In(to) {
        if work.other.state != work.flow.state {
            merge_partner::<F, W>(world, work, to);
        }
        return true;
    }
    if found == Partner::Lost {
        world.count(Reason::PartnerRebuilt);
        work.other = partner(&work.key, &work.flow);
    }
    let before = FlowState::from_u8(work.other.state);
    flow::set_state(&mut work.other, FlowState::from_u8(work.flow.state));
    // A lost one's place may have been taken a moment ago: the next packet sees that.
    let how = if found == Partner::Lost { Insert::Claim } else { Insert::Replace };
    let stored = world.insert_flow(to, &work.other_key, &work.other, how) != Inserted::Full;
    if !stored {
        // What is in `work` stays what is in the table.
        flow::set_state(&mut work.other, before);
    }
    stored
}

/// Brings the partner to the half's state where it is, and the half to what comes of it if another
/// CPU has changed the partner meanwhile.
#[inline(always)]
fn merge_partner<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, table: Table) {
    let state = FlowState::from_u8(work.flow.state);
    let Some(mut entry) = world.flow(table, &work.other_key) else { return };
    let merged = entry.merge_state(state);
    if merged == state {
        return;
    }
    if let Some(mut entry) = world.flow(table, &work.key) {
        entry.merge_state(merged);
    }
}
