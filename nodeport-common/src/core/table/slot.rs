//! A slot of the index.

use crate::abi::SLOTS_OF_LINE;

/// A slot: which entry it names, and enough of its key to pass by most others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u64);

/// Bits of an entry's number, plus one; the table may have one entry less than they count.
pub const ENTRY_BITS: u32 = 24;
/// Versions are so many bits wide.
pub const VERSION_BITS: u32 = 14;
/// Ages are counted in units of so many jiffies: a power of two, about a second.
const AGE_SHIFT: u32 = 8;

const ENTRY_MASK: u64 = (1 << ENTRY_BITS) - 1;
const VERSION_MASK: u16 = (1 << VERSION_BITS) - 1;
const BIRTH_AT: u32 = ENTRY_BITS;
const TAG_AT: u32 = 32;
const VERSION_AT: u32 = 48;
const NEWCOMER: u64 = 1 << 62;
const PENDING: u64 = 1 << 63;

/// The version after this one.
#[inline(always)]
pub const fn following(version: u16) -> u16 {
    version.wrapping_add(1) & VERSION_MASK
}

impl Slot {
    /// Names no entry.
    pub const EMPTY: Self = Self(0);

    /// Names the entry `number` of `version`, whose key has `tag`.
    #[inline(always)]
    pub const fn new(number: u32, tag: u16, version: u16) -> Self {
        let number = number.wrapping_add(1) as u64 & ENTRY_MASK;
        let version = (version & VERSION_MASK) as u64;
        Self(number | (tag as u64) << TAG_AT | version << VERSION_AT)
    }

    /// The same, of a half that may be pushed out, born at `now`.
    #[inline(always)]
    #[must_use]
    pub const fn newcomer(self, now: u32) -> Self {
        Self(self.0 | NEWCOMER | ((now >> AGE_SHIFT) as u8 as u64) << BIRTH_AT)
    }

    /// The same, of a half that has proved itself.
    #[inline(always)]
    #[must_use]
    pub const fn proved(self) -> Self {
        Self(self.0 & !NEWCOMER)
    }

    /// How old a newcomer is at `now`, in units, plus one; it counts as young again after 256 of
    /// them. 0 if it is none, or is still being claimed.
    #[inline(always)]
    pub const fn age_of_newcomer(self, now: u32) -> u32 {
        if self.0 & (NEWCOMER | PENDING) != NEWCOMER {
            return 0;
        }
        let born = (self.0 >> BIRTH_AT) as u8;
        ((now >> AGE_SHIFT) as u8).wrapping_sub(born) as u32 + 1
    }

    /// The slot of that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As it lies in the index.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The same, not yet to be found: the key is being claimed.
    #[inline(always)]
    pub const fn pending(self) -> Self {
        Self(self.0 | PENDING)
    }

    /// Whether the key is still being claimed.
    #[inline(always)]
    pub const fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// Whether it names no entry.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it names an entry whose key has this tag, claimed or being claimed. No key has tag 0.
    #[inline(always)]
    pub const fn has_tag(self, tag: u16) -> bool {
        self.tag() == tag
    }

    /// The tag of the entry's key; 0 if it names none.
    #[inline(always)]
    pub const fn tag(self) -> u16 {
        (self.0 >> TAG_AT) as u16
    }

    /// Whether a key with this tag may be found by it.
    #[inline(always)]
    pub const fn is_found_by(self, tag: u16) -> bool {
        self.has_tag(tag) && !self.is_pending()
    }

    /// Number of the entry.
    #[inline(always)]
    pub const fn entry(self) -> u32 {
        ((self.0 & ENTRY_MASK) as u32).wrapping_sub(1)
    }

    /// Version of the entry.
    #[inline(always)]
    pub const fn version(self) -> u16 {
        (self.0 >> VERSION_AT) as u16 & VERSION_MASK
    }
}

/// Where a key may be: one of two lines, under its tag. One word, so that it is passed on in a
/// register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// Bits of a line's number.
const LINE_BITS: u32 = 24;
const LINE_MASK: u64 = (1 << LINE_BITS) - 1;

/// Lines of an index at most.
pub const MOST_LINES: u32 = 1 << LINE_BITS;

impl Place {
    /// The place of a key with that hash, in an index with `mask` + 1 lines.
    #[inline(always)]
    pub const fn new(hash: u64, mask: u32) -> Self {
        // Lines are told by bits 0 to 23 and 24 to 47 of the hash, the tag by the others.
        let (first, second) = (hash as u32 & mask, (hash >> LINE_BITS) as u32 & mask);
        let second = if second == first { (first ^ 1) & mask } else { second };
        // An empty slot has tag 0, and must not look like one of the key's.
        let tag = (hash >> (2 * LINE_BITS)) as u16;
        Self::of(first, second, if tag == 0 { 1 } else { tag })
    }

    const fn of(first: u32, second: u32, tag: u16) -> Self {
        let (first, second) = (first as u64 & LINE_MASK, second as u64 & LINE_MASK);
        Self(first | second << LINE_BITS | (tag as u64) << (2 * LINE_BITS))
    }

    /// The place of that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The place as a word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The line in which the key is, unless that was full.
    #[inline(always)]
    pub const fn first(self) -> u32 {
        (self.0 & LINE_MASK) as u32
    }

    /// The line in which it is else.
    #[inline(always)]
    pub const fn second(self) -> u32 {
        (self.0 >> LINE_BITS & LINE_MASK) as u32
    }

    /// Some bits of its hash.
    #[inline(always)]
    pub const fn tag(self) -> u16 {
        (self.0 >> (2 * LINE_BITS)) as u16
    }

    /// Another place; its lines may be too many for the index by `distance` of 1 and more.
    #[inline(always)]
    #[must_use]
    pub const fn nearby(self, distance: u32) -> Self {
        let bits = (1 << distance) >> 1;
        Self::of(self.first() ^ bits, self.second() ^ bits, self.tag())
    }

    /// Slot `number` of the 16 that the key may be in: its line, and its place there.
    #[inline(always)]
    pub const fn slot(self, number: u32) -> (u32, usize) {
        let line = if number < SLOTS_OF_LINE as u32 { self.first() } else { self.second() };
        (line, number as usize % SLOTS_OF_LINE)
    }
}
