//! The word of an entry that changes as a whole: whose next hop it has, whose it is, how its flow
//! stands.

use crate::abi::{FLOW_PROVED, FLOW_SETTLED, FlowEntry, FlowState};
use crate::core::state;

/// `epoch`, `mtu`, `version`, `state` and `flags` of an entry, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Low bits of the epoch of its next hop; 0 if that is to be looked up.
    pub epoch: u16,
    /// Largest IP packet on the path, in bytes.
    pub mtu: u16,
    /// Version of the entry.
    pub version: u16,
    /// 0 if the entry is free, else a [`FlowState`] plus one.
    pub state: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
}

/// [`Status::state`] of an entry that no list holds: it was to be free, but the list's begin was
/// too contended. The sweep takes it up.
pub const STRAY: u8 = 0xff;

impl Status {
    /// That of a copy of an entry.
    pub const fn of<A, P>(entry: &FlowEntry<A, P>) -> Self {
        let FlowEntry { epoch, mtu, version, state, flags, .. } = *entry;
        Self { epoch, mtu, version, state, flags }
    }

    /// From the word that lies in the entry.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            epoch: word as u16,
            mtu: (word >> 16) as u16,
            version: (word >> 32) as u16,
            state: (word >> 48) as u8,
            flags: (word >> 56) as u8,
        }
    }

    /// As it lies in the entry, on little-endian machines.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.epoch as u64
            | (self.mtu as u64) << 16
            | (self.version as u64) << 32
            | (self.state as u64) << 48
            | (self.flags as u64) << 56
    }

    /// Whether a half lies in the entry.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.state != 0 && self.state != STRAY
    }

    /// The state of the half's flow.
    #[inline(always)]
    pub const fn flow_state(self) -> FlowState {
        FlowState::from_u8(self.state.wrapping_sub(1))
    }

    /// The same in another state; who has once proved itself stays so.
    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, to: FlowState) -> Self {
        let settled = if state::is_settled(to) { FLOW_SETTLED | FLOW_PROVED } else { 0 };
        Self { state: to as u8 + 1, flags: self.flags & !FLOW_SETTLED | settled, ..self }
    }
}
