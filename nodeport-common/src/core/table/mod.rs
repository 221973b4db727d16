//! The table of flows.
//!
//! A key has sixteen slots where it may be, in two lines of the index (two choices keep lines from
//! filling up, Mitzenmacher 2001). A slot names an entry; entries come from a list of free ones,
//! so that few flows lie in few pages.
//!
//! CPUs share it without locks:
//! - A slot is set and cleared by compare-exchange alone. Whoever ends a half in its entry's status
//!   gives the entry back, and nobody else. A newcomer that is pushed out is ended there first, so
//!   that it cannot prove itself meanwhile.
//! - An entry is written before a slot names it, and its version rises before it is given to
//!   another half. A reader compares the version in the slot with that in the entry, after it has
//!   read: what was torn is told.
//! - A key is claimed in two steps. The slot is set, pending; then all others are looked at; then
//!   the slot is confirmed. Of two claims at the same time at least one sees the other, and ends
//!   it by clearing its slot. So no key is ever in two slots that can be found.
//! - Newcomers are pushed out where there is no room, the one that came first, first; those that
//!   have proved themselves never are.

mod claim;
pub mod half;
mod heap;
mod room;
pub mod slot;
pub mod status;

pub use claim::{claim, remove, remove_newcomer};
pub use heap::{allocate, retire, take_up};
pub use room::{NEARBY, age, evict, push_out};

use crate::abi::SLOTS_OF_LINE;
use slot::{Place, Slot};
use status::Status;

/// Slots in which a key may be.
const CHOICES: u32 = 2 * SLOTS_OF_LINE as u32;
/// No entry, no slot. (An `Option` would not be returned in one register.)
const NONE: u32 = u32::MAX;

/// A word that CPUs share.
pub trait Word {
    /// Reads it.
    fn load(&self) -> u64;
    /// Writes `new` if it is `old`; whether it was. Orders all that this CPU reads and writes
    /// before and after it.
    fn swap(&self, old: u64, new: u64) -> bool;
}

/// A line of the index where it lies.
pub trait Line: Copy {
    /// Slot `place` of it, below [`SLOTS_OF_LINE`].
    fn slot(self, place: usize) -> impl Word;
    /// The tag that stands in slot `place`, whatever else does.
    fn tag(self, place: usize) -> u16 {
        Slot::from_word(self.slot(place).load()).tag()
    }
}

/// An entry where it lies.
pub trait Entry {
    /// A key.
    type Key;
    /// What a half says, but for its status.
    type Body;

    /// Whether a half with this key lies in it.
    fn has_key(&self, key: &Self::Key) -> bool;
    /// Writes a half's key and body.
    fn write(&self, key: &Self::Key, body: &Self::Body);
    /// Its status.
    fn status(&self) -> impl Word;
    /// Of a free entry, how far it is from the one behind it to the next free one.
    fn link(&self) -> u32;
    /// Sets that.
    fn set_link(&self, link: u32);
}

/// The arrays that the table lies in.
pub trait Store: Copy {
    /// A key.
    type Key;
    /// What a half says, but for its status.
    type Body;

    /// Number of the first free entry, and a count above it; `None` if there is no table.
    fn heap(&self) -> Option<impl Word>;
    /// A line of the index.
    fn line(&self, number: u32) -> Option<impl Line>;
    /// The entry of that number; `None` beyond the last.
    fn entry(&self, number: u32) -> Option<impl Entry<Key = Self::Key, Body = Self::Body>>;

    /// [`names`]. This and what follows can be functions of their own, each verified once and not
    /// at every call: in the kernel's programs they are.
    fn names(self, slot: Slot, key: &Self::Key) -> bool {
        names(self, slot, key)
    }
    /// [`allocate`].
    fn allocate(self) -> u32 {
        allocate(self)
    }
    /// [`push_out`].
    fn push_out(self, place: Place, now: u32) -> u32 {
        push_out(self, place, now)
    }
    /// [`age`].
    fn age(self, place: Place, number: u32, now: u32) -> u32 {
        age(self, place, number, now)
    }
    /// [`evict`].
    fn evict(self, place: Place, number: u32) -> bool {
        evict(self, place, number)
    }
    /// [`retire`].
    fn retire(self, slot: Slot) {
        retire(self, slot);
    }
}

/// The slot where a key is likely: the first in its first line that has its tag. Whether the entry
/// is the key's, [`is_of`] tells.
#[inline(always)]
pub fn likely<S: Store>(store: S, place: Place) -> Option<Slot> {
    let line = store.line(place.first())?;
    let at = (0..SLOTS_OF_LINE).find(|at| line.tag(*at) == place.tag())?;
    let slot = Slot::from_word(line.slot(at).load());
    slot.is_found_by(place.tag()).then_some(slot)
}

/// Whether the entry that a slot names has this key, and is still the slot's.
#[inline(always)]
pub fn is_of<E: Entry>(entry: &E, slot: Slot, key: &E::Key) -> bool {
    if !entry.has_key(key) {
        return false;
    }
    let status = Status::from_word(entry.status().load());
    status.version == slot.version() && status.is_live()
}

/// Finds the slot of a key: which of its sixteen it is, and what is in it.
#[inline(always)]
pub fn find<S: Store>(store: S, key: &S::Key, place: Place) -> Option<(u32, Slot)> {
    let mut number = 0;
    while number < CHOICES {
        let slot = slot_at(store, place, number);
        if slot.is_found_by(place.tag()) && store.names(slot, key) {
            return Some((number, slot));
        }
        number += 1;
    }
    None
}

/// Slot `number` of a place; empty if the index is smaller.
#[inline(always)]
fn slot_at<S: Store>(store: S, place: Place, number: u32) -> Slot {
    let (line, at) = place.slot(number);
    store.line(line).map_or(Slot::EMPTY, |line| Slot::from_word(line.slot(at).load()))
}

/// Changes slot `number` of a place, if it is `old`.
#[inline(always)]
fn swap<S: Store>(store: S, place: Place, number: u32, old: Slot, new: Slot) -> bool {
    let (line, at) = place.slot(number);
    store.line(line).is_some_and(|line| line.slot(at).swap(old.word(), new.word()))
}

/// Whether the entry that a slot names has this key, and is still the slot's.
#[inline(always)]
pub fn names<S: Store>(store: S, slot: Slot, key: &S::Key) -> bool {
    store.entry(slot.entry()).is_some_and(|entry| is_of(&entry, slot, key))
}
