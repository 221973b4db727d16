//! Has a flow been silent for too long?
//!
//! A program that the agent calls goes through the table. What looks over there is decided on once
//! more with its partner ([`end`]), in the instant in which it is removed. The agent itself could
//! not: between a look of its own and a removal lie system calls, and on a busy machine
//! milliseconds: time enough for a client to open a new connection on the same ports.

use super::env::World;
use super::family::Family;
use super::state::merge;
use super::table::handle::Handle;
use super::track::{self, Partner};
use super::work::Work;
use crate::abi::{Flow, FlowState, IPPROTO_TCP};

/// How long flows may be silent, in jiffies; at most half of the clock's range.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// TCP, both sides spoke; one may have closed, since data may still come the other way.
    pub tcp: u32,
    /// TCP, the backend answered.
    pub tcp_answered: u32,
    /// TCP, only the client spoke.
    pub tcp_opening: u32,
    /// TCP, both sides have closed, or one has reset.
    pub tcp_closed: u32,
    /// TCP, one side has reset, and packets followed.
    pub tcp_doubted: u32,
    /// UDP, both sides spoke.
    pub udp: u32,
    /// UDP, only the client spoke.
    pub udp_opening: u32,
}

impl Limits {
    /// The limit for a flow in this state.
    #[inline(always)]
    pub const fn of(&self, state: FlowState, protocol: u8) -> u32 {
        use FlowState::{
            Answered, BackendClosed, ClientClosed, Closed, Doubted, Established, Opening, Reset,
        };
        if protocol != IPPROTO_TCP {
            return if matches!(state, Opening) { self.udp_opening } else { self.udp };
        }
        match state {
            Opening => self.tcp_opening,
            Answered => self.tcp_answered,
            Established | ClientClosed | BackendClosed => self.tcp,
            Closed | Reset => self.tcp_closed,
            Doubted => self.tcp_doubted,
        }
    }

    /// Whether a half alone looks as if its flow were over.
    #[inline(always)]
    pub fn is_over<A>(&self, half: &Flow<A>, protocol: u8, now: u32) -> bool {
        self.allows(half, protocol, age(half.last_seen, now))
    }

    /// Whether both halves of a flow say that it is over: a packet of either keeps both.
    #[inline(always)]
    pub fn are_over<A>(&self, half: &Flow<A>, partner: &Flow<A>, protocol: u8, now: u32) -> bool {
        let (age, other) = (age(half.last_seen, now), age(partner.last_seen, now));
        let younger = if other < age { other } else { age };
        if have_closed(FlowState::from_u8(half.state), FlowState::from_u8(partner.state)) {
            return younger > self.of(FlowState::Closed, protocol);
        }
        self.allows(half, protocol, younger) && self.allows(partner, protocol, younger)
    }

    #[inline(always)]
    fn allows<A>(&self, half: &Flow<A>, protocol: u8, age: u32) -> bool {
        age > self.of(FlowState::from_u8(half.state), protocol)
    }
}

/// Whether both ends have closed, if two CPUs have seen one of them each.
#[inline(always)]
const fn have_closed(half: FlowState, partner: FlowState) -> bool {
    matches!(merge(half, partner), FlowState::Closed)
        && matches!(merge(partner, half), FlowState::Closed)
}

/// Ticks since `seen`. A packet may have come since `now` was read: that is no age at all.
#[inline(always)]
pub const fn age(seen: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(seen);
    if age > i32::MAX as u32 { 0 } else { age }
}

/// Whether the flow is over because its backend is gone. A TCP connection is not: its client is to get
/// a reset with its next packet, whenever that comes ([`gone`](super::gone)).
#[inline(always)]
pub fn ends_with_backend<F: Family, W: World<F>>(
    world: &W,
    half: &Flow<F::Addr>,
    protocol: u8,
) -> bool {
    protocol != IPPROTO_TCP && world.generation(half.backend) != Some(half.generation)
}

/// Removes both halves of the flow of `work.key`, if it is over now; true if it was.
#[inline(never)]
pub fn end<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, limits: &Limits) -> bool {
    if !track::find::<F, W>(world, work) {
        return false;
    }
    let has_partner = track::find_partner::<F, W>(world, work) == Partner::There;
    let (now, protocol) = (world.now(), work.key.protocol);
    let over = if has_partner {
        limits.are_over(&work.flow, &work.other, protocol, now)
    } else {
        limits.is_over(&work.flow, protocol, now)
    };
    if !over && !ends_with_backend::<F, W>(world, &work.flow, protocol) {
        return false;
    }
    world.remove_flow(&work.key, Handle::of(&work.flow));
    if has_partner {
        world.remove_flow(&work.other_key, Handle::of(&work.other));
    }
    true
}
