//! The table of flows.
//!
//! A key has 32 slots where it may be, in two lines of the index (two choices keep lines from
//! filling up, Mitzenmacher 2001). A slot names an entry; entries come from a list of free ones,
//! so that few flows lie in few pages.
//!
//! CPUs share it without locks. An entry's status alone says what is in it, and goes round in this
//! order, each step a compare-exchange:
//!
//! free → pending (its key is being claimed) → live → ended → free
//!
//! - Whoever takes it from live to ended clears the slot that names it, and then gives it back, and
//!   nobody else does. Whoever claims a key does both if that fails, whoever has ended it.
//! - So no slot names a free entry, and one slot at most names any other. While an entry is what it
//!   was, the slot that names it stays where it is, but for the note that it has proved itself: what
//!   was seen to name a live entry, after its status was read, names it until somebody ends it.
//! - A half that is live is held by whoever gives it another next hop, and is not ended meanwhile. So
//!   nobody writes late into an entry that is another's by then, but for counters.
//! - An entry is written before it is pending. Its version rises when it is ended, before another
//!   half gets it: a reader compares the version before it has read with that behind it, and what
//!   was torn, or another's, is told.
//! - A key is claimed in two steps. A slot is made to name the pending entry; then all others are
//!   looked at, and pending ones of the same key are ended; then the own one becomes live, unless
//!   it was ended. Of two claims at the same time at least one sees the other, since each sets its slot
//!   before it looks. So no key ever has two entries that can be found.
//! - Newcomers are pushed out where there is no room: of a few, the one that was silent longest.
//!   Those that have proved themselves never are: both are told by the same word.

mod claim;
pub mod half;
pub mod handle;
mod heap;
mod hop;
mod room;
pub mod slot;
pub mod status;

pub use claim::{Whose, claim, remove, yields};
pub use heap::{allocate, give_back, take_up};
pub use hop::set_hop;
pub use room::{CANDIDATES, Evicted, NEARBY, compare, evict, push_out};

use crate::abi::SLOTS_OF_LINE;
use core::sync::atomic::{Ordering, compiler_fence};

use handle::Handle;
use slot::{Place, Slot};
use status::Status;

/// Slots in which a key may be.
const CHOICES: u32 = 2 * SLOTS_OF_LINE as u32;
/// No entry, no slot. (An `Option` would not be returned in one register.)
const NONE: u32 = u32::MAX;

/// A word that CPUs share.
pub trait Word<T = u64> {
    /// Reads it.
    fn load(&self) -> T;
    /// Writes `new` if it is `old`; whether it was. Orders all that this CPU reads and writes
    /// before and after it.
    fn swap(&self, old: T, new: T) -> bool;
}

/// A line of the index where it lies.
pub trait Line: Copy {
    /// Slot `at` of it, below [`SLOTS_OF_LINE`].
    fn slot(self, at: usize) -> impl Word<u32>;

    /// What is in that slot.
    #[inline(always)]
    fn load(self, at: usize) -> Slot {
        Slot::from_word(self.slot(at).load())
    }
}

/// An entry where it lies.
pub trait Entry {
    /// A key.
    type Key;
    /// What a half says, but for its status.
    type Body;
    /// Where its packets go next.
    type Hop;

    /// Whether a half with this key lies in it.
    fn has_key(&self, key: &Self::Key) -> bool;
    /// Writes a half's key and body; it will be the half of this version.
    fn write(&self, key: &Self::Key, body: &Self::Body, version: u16);
    /// Writes the half's next hop.
    fn write_hop(&self, hop: &Self::Hop);
    /// Sets epoch and MTU of its status, whatever else that says by now: whoever holds the half lets it
    /// go. Who sees that sees all that this CPU has written before.
    fn let_go(&self, epoch: u16, mtu: u16);
    /// Jiffies (low 32 bits) of the half's last packet.
    fn last_seen(&self) -> u32;
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

    /// [`named`]. This and what follows can be functions of their own, each verified once and not
    /// at every call: in the kernel's programs they are.
    fn named(self, slot: Slot, key: &Self::Key) -> u64 {
        named(self, slot, key)
    }
    /// [`yields`].
    fn yields(self, slot: Slot, key: &Self::Key) -> bool {
        yields(self, slot, key)
    }
    /// [`allocate`].
    fn allocate(self) -> u32 {
        allocate(self)
    }
    /// [`push_out`].
    fn push_out(self, place: Place, now: u32, instead: Slot) -> Evicted {
        push_out(self, place, now, instead)
    }
    /// [`evict`].
    fn evict(self, place: Place, candidate: u32, instead: Slot) -> u32 {
        evict(self, place, candidate, instead)
    }
    /// [`compare`].
    fn compare(self, place: Place, number: u32, now: u32, found: u64) -> u64 {
        compare(self, place, number, now, found)
    }
    /// [`give_back`].
    fn give_back(self, number: u32) {
        give_back(self, number);
    }
}

/// A half that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Which of its key's slots names it.
    pub number: u32,
    /// What was in that slot.
    pub slot: Slot,
    /// The status of its entry.
    pub status: Status,
}

impl Found {
    /// Which half it is.
    #[inline(always)]
    pub const fn handle(&self) -> Handle {
        Handle::new(self.slot.entry(), self.status.version)
    }
}

/// The slot where a key is likely: the first in its first line that has its tag. Whether the entry
/// is the key's, [`holds`] tells.
#[inline(always)]
pub fn likely<S: Store>(store: S, place: Place) -> Option<Slot> {
    let line = store.line(place.first())?;
    let home = line.load(place.home() as usize);
    if home.has_tag(place.tag()) {
        return Some(home);
    }
    (0..SLOTS_OF_LINE).map(|at| line.load(at)).find(|slot| slot.has_tag(place.tag()))
}

/// Whether a key is surely in none of its slots: none has its tag. A slot gets its tag with the entry that
/// it names, and keeps it as long as it names that.
#[inline(always)]
pub fn lacks<S: Store>(store: S, place: Place) -> bool {
    let lacks = |number| {
        let line = store.line(number);
        line.is_some_and(|line| (0..SLOTS_OF_LINE).all(|at| !line.load(at).has_tag(place.tag())))
    };
    lacks(place.first()) && lacks(place.second())
}

/// The status of an entry, if a half with this key lies in it and can be found. Whoever reads on
/// compares the version afterwards.
#[inline(always)]
pub fn holds<E: Entry>(entry: &E, key: &E::Key) -> Option<Status> {
    let status = Status::from_word(load_first(entry));
    (status.is_live() && entry.has_key(key)).then_some(status)
}

/// Loads the word of the status before whatever is read of the entry after it.
#[inline(always)]
fn load_first<E: Entry>(entry: &E) -> u64 {
    let word = entry.status().load();
    // Processors keep loads in order (see ARCHITECTURE.md), the compiler would not.
    compiler_fence(Ordering::SeqCst);
    word
}

/// Finds the half of a key.
#[inline(always)]
pub fn find<S: Store>(store: S, key: &S::Key, place: Place) -> Option<Found> {
    find_in(store, key, place, 0).or_else(|| find_in(store, key, place, SLOTS_OF_LINE as u32))
}

/// Finds the half of a key in the line whose first slot is `first` of the key's.
#[inline(always)]
fn find_in<S: Store>(store: S, key: &S::Key, place: Place, first: u32) -> Option<Found> {
    let line = store.line(place.slot(first).0)?;
    let mut at = 0;
    while at < SLOTS_OF_LINE {
        let slot = line.load(at);
        if slot.has_tag(place.tag()) {
            let status = Status::from_word(store.named(slot, key));
            if status.is_live() {
                return Some(Found { number: first + at as u32, slot, status });
            }
        }
        at += 1;
    }
    None
}

/// Slot `number` of a place; empty if the index is smaller.
#[inline(always)]
fn slot_at<S: Store>(store: S, place: Place, number: u32) -> Slot {
    let (line, at) = place.slot(number);
    store.line(line).map_or(Slot::EMPTY, |line| line.load(at))
}

/// Changes slot `number` of a place, if it is `old`.
#[inline(always)]
fn swap<S: Store>(store: S, place: Place, number: u32, old: Slot, new: Slot) -> bool {
    let (line, at) = place.slot(number);
    store.line(line).is_some_and(|line| line.slot(at).swap(old.word(), new.word()))
}

/// The word of the status of the entry that a slot names, if a half with this key lies there, live or
/// pending; else 0.
#[inline(always)]
pub fn named<S: Store>(store: S, slot: Slot, key: &S::Key) -> u64 {
    let Some(entry) = store.entry(slot.entry()) else { return 0 };
    let before = Status::from_word(load_first(&entry));
    if !(before.is_live() || before.is_pending()) || !entry.has_key(key) {
        return 0;
    }
    // If it ended meanwhile, the key may be that of another half, which another slot names: one that
    // was set after this one's, and so sees it.
    let word = entry.status().load();
    if Status::from_word(word).version == before.version { word } else { 0 }
}
