//! A slot of the index, and where those of a key are.

use crate::abi::SLOTS_OF_LINE;

/// A slot: which entry it names, and enough of its key to pass by most others. What becomes of the
/// half stands in the entry's status alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// Bits of an entry's number, plus one; the table may have one entry less than they count.
pub const ENTRY_BITS: u32 = 22;
/// Bits of a tag.
pub const TAG_BITS: u32 = 32 - TAG_AT;

const ENTRY_MASK: u32 = (1 << ENTRY_BITS) - 1;
const NEWCOMER_AT: u32 = ENTRY_BITS;
const NEWCOMER: u32 = 1 << NEWCOMER_AT;
const TAG_AT: u32 = NEWCOMER_AT + 1;
const TAG_MASK: u32 = (1 << TAG_BITS) - 1;

impl Slot {
    /// Names no entry.
    pub const EMPTY: Self = Self(0);

    /// Names the entry `number`, whose key has `tag`.
    #[inline(always)]
    pub const fn new(number: u32, tag: u32) -> Self {
        Self(number.wrapping_add(1) & ENTRY_MASK | tag << TAG_AT)
    }

    /// The same, of a half that may be pushed out.
    #[inline(always)]
    #[must_use]
    pub const fn newcomer(self) -> Self {
        Self(self.0 | NEWCOMER)
    }

    /// The same, of a half that has proved itself.
    #[inline(always)]
    #[must_use]
    pub const fn proved(self) -> Self {
        Self(self.0 & !NEWCOMER)
    }

    /// 1 if it was a newcomer's when it was set, and nobody has noted since that it has proved itself;
    /// else 0.
    #[inline(always)]
    pub const fn newcomers(self) -> u32 {
        self.0 >> NEWCOMER_AT & 1
    }

    /// The slot of that word.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// As it lies in the index.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// Whether it names no entry.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it names an entry whose key has this tag. No key has tag 0.
    #[inline(always)]
    pub const fn has_tag(self, tag: u32) -> bool {
        self.0 >> TAG_AT == tag
    }

    /// Number of the entry.
    #[inline(always)]
    pub const fn entry(self) -> u32 {
        (self.0 & ENTRY_MASK).wrapping_sub(1)
    }
}

/// Where a key may be: one of two lines, under its tag. One word, so that it is passed on in a
/// register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// Bits of a line's number.
const LINE_BITS: u32 = 20;
const LINE_MASK: u64 = (1 << LINE_BITS) - 1;
/// Where the tag begins in a place and in a hash, and where the home.
const PLACE_TAG_AT: u32 = 2 * LINE_BITS;
const HOME_AT: u32 = PLACE_TAG_AT + TAG_BITS;

/// Lines of an index at most.
pub const MOST_LINES: u32 = 1 << LINE_BITS;

impl Place {
    /// The place of a key with that hash, in an index with `mask` + 1 lines.
    #[inline(always)]
    pub const fn new(hash: u64, mask: u32) -> Self {
        // Lines are told by bits 0 to 19 and 20 to 39 of the hash, tag and home by those above.
        let (first, second) = (hash as u32 & mask, (hash >> LINE_BITS) as u32 & mask);
        let second = if second == first { (first ^ 1) & mask } else { second };
        // An empty slot has tag 0, and must not look like one of the key's.
        let above = hash >> PLACE_TAG_AT;
        let above = if above as u32 & TAG_MASK == 0 { above | 1 } else { above };
        Self::of(first, second, above)
    }

    const fn of(first: u32, second: u32, above: u64) -> Self {
        let (first, second) = (first as u64 & LINE_MASK, second as u64 & LINE_MASK);
        Self(first | second << LINE_BITS | above << PLACE_TAG_AT)
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
    pub const fn tag(self) -> u32 {
        (self.0 >> PLACE_TAG_AT) as u32 & TAG_MASK
    }

    /// The slot of its first line that the key takes if it is empty: where lines are seldom full, most
    /// are found at the first look, and the processor need not guess after how many.
    #[inline(always)]
    pub const fn home(self) -> u32 {
        (self.0 >> HOME_AT) as u32 & (SLOTS_OF_LINE as u32 - 1)
    }

    /// Another place; its lines may be too many for the index by `distance` of 1 and more.
    #[inline(always)]
    #[must_use]
    pub const fn nearby(self, distance: u32) -> Self {
        let bits = (1 << distance) >> 1;
        Self::of(self.first() ^ bits, self.second() ^ bits, self.0 >> PLACE_TAG_AT)
    }

    /// Slot `number` of the 32 that the key may be in: its line, and its place there.
    #[inline(always)]
    pub const fn slot(self, number: u32) -> (u32, usize) {
        // Without a branch: the verifier tries both sides of each.
        let second = (number / SLOTS_OF_LINE as u32) & 1;
        let line = self.0 >> (second * LINE_BITS) & LINE_MASK;
        (line as u32, number as usize % SLOTS_OF_LINE)
    }
}
