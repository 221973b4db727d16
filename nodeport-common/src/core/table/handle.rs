//! Which half it was that was read.

use crate::abi::Flow;

/// Names a half as long as it lives: by the number of its entry and that entry's version, which rises
/// when the half ends. Whatever is opened later has another handle, also with the same key. So a half
/// that was read is changed or removed only where it still is itself: a client that begins anew on its
/// port has the keys of its old flow. (The same version comes again when 65,536 halves have lain in the
/// entry, between a packet's look at a half and its last change of it.)
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handle(u64);

impl Handle {
    /// Of no half.
    pub const NONE: Self = Self(0);

    /// Of the half in the entry `number`, while that has this version.
    #[inline(always)]
    pub const fn new(number: u32, version: u16) -> Self {
        Self(number.wrapping_add(1) as u64 | (version as u64) << 32)
    }

    /// Of a half that was read, or stored.
    #[inline(always)]
    pub const fn of<A>(half: &Flow<A>) -> Self {
        Self(half.entry as u64 | (half.version as u64) << 32)
    }

    /// Notes in a copy of the half which one it is.
    #[inline(always)]
    pub const fn note_in<A>(self, half: &mut Flow<A>) {
        half.entry = self.0 as u32;
        half.version = self.version();
    }

    /// Number of the entry; beyond the last of any table, if it is of none.
    #[inline(always)]
    pub const fn entry(self) -> u32 {
        (self.0 as u32).wrapping_sub(1)
    }

    /// The entry's version.
    #[inline(always)]
    pub const fn version(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// As one word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// From that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }
}
