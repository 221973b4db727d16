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
    /// Version of the entry: raised when a half in it ends.
    pub version: u16,
    /// A [`FlowState`] plus one, or [`FREE`], [`PENDING`], [`ENDED`], [`STRAY`].
    pub state: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
}

/// [`Status::mtu`], beside epoch 0, of a half that a CPU holds while it writes its next hop. No path has
/// this MTU (RFC 791: 68 at least).
const HELD_MTU: u16 = 1;

/// [`Status::state`] of an entry that no slot names: in the list of free ones, or somebody's who
/// takes it out or puts it in.
pub const FREE: u8 = 0;
/// That of one whose key is being claimed: a slot may name it, and nobody finds it.
pub const PENDING: u8 = 0xfd;
/// That of one whose half has ended: who ended it clears its slot, and gives it back.
pub const ENDED: u8 = 0xfe;
/// That of one that no slot names and no list holds: the list's begin was too contended. The sweep
/// takes it up.
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

    /// Whether a half lies in the entry that can be found.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.state.wrapping_sub(1) < PENDING - 1
    }

    /// Whether a key is being claimed for it.
    #[inline(always)]
    pub const fn is_pending(self) -> bool {
        self.state == PENDING
    }

    /// The same while its key is being claimed.
    #[inline(always)]
    #[must_use]
    pub const fn pending(self) -> Self {
        Self { state: PENDING, ..self }
    }

    /// Whether a CPU writes the half's next hop. Until it has, nobody ends the half.
    #[inline(always)]
    pub const fn is_held(self) -> bool {
        self.epoch == 0 && self.mtu == HELD_MTU
    }

    /// The same while a CPU writes its next hop.
    #[inline(always)]
    #[must_use]
    pub const fn held(self) -> Self {
        Self { epoch: 0, mtu: HELD_MTU, ..self }
    }

    /// A path's MTU, or 0 in the place of one that says something else here.
    #[inline(always)]
    pub const fn usable(mtu: u16) -> u16 {
        if mtu == HELD_MTU { 0 } else { mtu }
    }

    /// What comes of it when its half ends.
    #[inline(always)]
    #[must_use]
    pub const fn ended(self) -> Self {
        let version = self.version.wrapping_add(1);
        Self { epoch: 0, mtu: 0, version, state: ENDED, flags: 0 }
    }

    /// What comes of it when its entry is free, of a version that no claim for it had.
    #[inline(always)]
    #[must_use]
    pub const fn freed(self) -> Self {
        Self { state: FREE, ..if self.state == ENDED { self } else { self.ended() } }
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
