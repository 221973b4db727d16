//! The two halves of a flow as values: what each says, and how one follows from the other.

use super::checksum;
use super::env::Hook;
use super::family::Family;
use super::{proof, state};
use crate::abi::{
    FLOW_FAST, FLOW_HOST, FLOW_LOCAL, FLOW_PROVED, FLOW_REPLY, FLOW_SETTLED, Flow, FlowKey,
    FlowState, IPPROTO_TCP, IPPROTO_UDP, NextHop, Ports,
};
use state::Direction;

/// Bits of the clock that count within one interval: a flow is looked at closely once in every
/// 1,024 jiffies (1 to 10 seconds), whatever its packets are.
pub const INTERVAL: u32 = 0x3ff;

/// UDP packets of one direction after which a flow without an answer counts as proved, if they
/// came over some time ([`ONE_WAY_SECONDS`]).
pub const ONE_WAY_PACKETS: u64 = 8;
/// Seconds over which they must have come.
pub const ONE_WAY_SECONDS: u32 = 3;

/// Which way the packets of this half go.
#[inline(always)]
pub const fn direction<A>(flow: &Flow<A>) -> Direction {
    if flow.flags & FLOW_REPLY == 0 { Direction::Forward } else { Direction::Reply }
}

/// Whether packets of this half are met where they leave the node.
#[inline(always)]
pub const fn is_met_leaving<A>(flow: &Flow<A>) -> bool {
    let kind = flow.flags & (FLOW_LOCAL | FLOW_REPLY | FLOW_HOST);
    kind == FLOW_LOCAL | FLOW_REPLY || kind == FLOW_LOCAL | FLOW_HOST
}

/// Whether packets of this half are met at that hook. Those of a pod in fast mode that come to where
/// packets leave the node have missed the program at the pod's veth; they are met nevertheless.
#[inline(always)]
pub const fn is_met_at<A>(flow: &Flow<A>, hook: Hook) -> bool {
    match hook {
        Hook::Xdp | Hook::Ingress => !is_met_leaving(flow),
        Hook::Egress => is_met_leaving(flow),
        Hook::Pod => is_met_leaving(flow) && flow.flags & FLOW_FAST != 0,
    }
}

/// What a flow is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Opening<A> {
    /// Source address that the backend sees.
    pub new_src: A,
    /// The backend's address.
    pub new_dst: A,
    /// Ports that the backend sees.
    pub new_ports: Ports,
    /// The backend's index and generation.
    pub backend: (u32, u32),
    /// The service port's index.
    pub service: u32,
    /// `FLOW_LOCAL`, perhaps with `FLOW_FAST`, or 0.
    pub flags: u8,
}

/// Makes the forward half of a new flow of the packet `key` at `now`; its next hop is to be found.
#[inline(always)]
pub fn open<F: Family>(
    key: &FlowKey<F::Addr>,
    to: &Opening<F::Addr>,
    now: u32,
    flow: &mut Flow<F::Addr>,
) {
    *flow = Flow {
        new_src: to.new_src,
        new_dst: to.new_dst,
        new_ports: to.new_ports,
        address_diff: checksum::combine(
            F::address_diff(&key.src, &to.new_src),
            F::address_diff(&key.dst, &to.new_dst),
        ),
        port_diff: port_diff(key.ports, to.new_ports),
        hop: NextHop::UNRESOLVED,
        backend: to.backend.0,
        generation: to.backend.1,
        service: to.service,
        last_seen: now,
        created: now,
        answered: 0,
        state: FlowState::Opening as u8,
        flags: to.flags,
        version: 0,
        entry: 0,
        packets: 1,
        bytes: 0,
    };
}

#[inline(always)]
fn port_diff(old: Ports, new: Ports) -> u16 {
    checksum::difference(&[old.word()], &[new.word()])
}

/// The key of the other half.
#[inline(always)]
pub fn partner_key<A: Copy>(key: &FlowKey<A>, flow: &Flow<A>) -> FlowKey<A> {
    FlowKey::new(flow.new_dst, flow.new_src, flow.new_ports.swapped(), key.protocol)
}

/// The other half, made anew: its next hop is to be found, its counters are zero.
#[inline(always)]
pub fn partner<A: Copy>(key: &FlowKey<A>, flow: &Flow<A>) -> Flow<A> {
    Flow {
        new_src: key.dst,
        new_dst: key.src,
        new_ports: key.ports.swapped(),
        address_diff: checksum::inverse(flow.address_diff),
        port_diff: checksum::inverse(flow.port_diff),
        hop: NextHop::UNRESOLVED,
        flags: flow.flags ^ FLOW_REPLY,
        version: 0,
        entry: 0,
        packets: 0,
        bytes: 0,
        ..*flow
    }
}

/// Puts a flow into a state.
#[inline(always)]
pub fn set_state<A>(flow: &mut Flow<A>, to: FlowState) {
    flow.state = to as u8;
    if state::is_settled(to) {
        flow.flags |= FLOW_SETTLED | FLOW_PROVED;
    } else {
        flow.flags &= !FLOW_SETTLED;
    }
}

/// Puts a flow into a state, merged with the one that it is in; the state that comes of it.
#[inline(always)]
pub fn merge_state<A>(flow: &mut Flow<A>, to: FlowState) -> FlowState {
    let merged = state::merge(FlowState::from_u8(flow.state), to);
    set_state(flow, merged);
    merged
}

/// The state after a packet of this half, with the rules for UDP that is never answered and for a
/// TCP client that has not proved itself. `acknowledges` is its acknowledgment number.
#[inline(always)]
pub fn next_state<A>(
    flow: &Flow<A>,
    protocol: u8,
    (flags, acknowledges): (u8, u32),
    now: u32,
    hz: u32,
) -> FlowState {
    let current = FlowState::from_u8(flow.state);
    if protocol == IPPROTO_TCP
        && proof::is_wanted(flow)
        && (flags & state::ACK == 0 || !proof::is_proof(flow.answered, acknowledges))
    {
        return current;
    }
    let age = now.wrapping_sub(flow.created);
    // The node's own prove themselves by answers alone: nobody who sends one way only shall fill the table.
    if protocol == IPPROTO_UDP
        && flow.flags & FLOW_HOST == 0
        && flow.packets >= ONE_WAY_PACKETS
        && age >= hz.wrapping_mul(ONE_WAY_SECONDS)
    {
        return FlowState::Established;
    }
    state::next(current, protocol, flags, direction(flow))
}
