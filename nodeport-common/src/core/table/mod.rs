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

pub mod half;
pub mod slot;
pub mod status;

use super::env::Inserted;
use crate::abi::{FLOW_PROVED, SLOTS_OF_LINE};
use slot::{Place, Slot, following};
use status::{STRAY, Status};

/// Slots in which a key may be.
const CHOICES: u32 = 2 * SLOTS_OF_LINE as u32;
/// How often a word that others change as well is tried to be changed.
const TRIES: u32 = 16;

/// How often one that another CPU changes in the same instant is looked for again.
const PICKS: u32 = 3;
/// Places where a newcomer is looked for when no entry is free. If newcomers have a tenth of a
/// table that is half full of slots, all these are without one in 1 of 60 cases.
const NEARBY: u32 = 5;

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
    /// [`allocate`].
    fn allocate(self) -> u32 {
        allocate(self)
    }
    /// [`retire`].
    fn retire(self, slot: Slot) {
        retire(self, slot);
    }
}

/// No entry, no slot. (An `Option` would not be returned in one register.)
const NONE: u32 = u32::MAX;

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

/// Puts a half into the table, if its key is free. `status` is that of the half, without version.
#[inline(always)]
pub fn claim<S: Store>(
    store: S,
    key: &S::Key,
    body: &S::Body,
    place: Place,
    status: Status,
    now: u32,
) -> Inserted {
    if find(store, key, place).is_some() {
        return Inserted::Taken;
    }
    let mut number = store.allocate();
    if number == NONE {
        number = make_room(store, place, now);
    }
    let Some(entry) = store.entry(number) else { return Inserted::Full };
    entry.write(key, body);
    let free = entry.status().load();
    let version = Status::from_word(free).version;
    let slot = Slot::new(number, place.tag(), version);
    let slot = if status.flags & FLOW_PROVED == 0 { slot.newcomer(now) } else { slot };
    if !entry.status().swap(free, Status { version, ..status }.word()) {
        return Inserted::Full;
    }
    let at = publish(store, place, slot.pending(), now);
    if at == NONE {
        store.retire(slot);
        return Inserted::Full;
    }
    if is_alone(store, key, place, slot.pending()) && swap(store, place, at, slot.pending(), slot) {
        return Inserted::Done;
    }
    // A rival may have cleared the slot; the entry is ours to give back.
    swap(store, place, at, slot.pending(), Slot::EMPTY);
    store.retire(slot);
    Inserted::Taken
}

/// Puts a slot into one of its key's places; which of the sixteen it is.
#[inline(always)]
fn publish<S: Store>(store: S, place: Place, slot: Slot, now: u32) -> u32 {
    let mut number = 0;
    while number < CHOICES {
        if slot_at(store, place, number).is_empty() && swap(store, place, number, Slot::EMPTY, slot)
        {
            return number;
        }
        number += 1;
    }
    let number = store.push_out(place, now);
    if number != NONE && swap(store, place, number, Slot::EMPTY, slot) { number } else { NONE }
}

/// Whether no other slot names this key. Those that are being claimed as well are ended.
#[inline(always)]
fn is_alone<S: Store>(store: S, key: &S::Key, place: Place, own: Slot) -> bool {
    let mut number = 0;
    while number < CHOICES {
        let slot = slot_at(store, place, number);
        let is_rival = slot.has_tag(place.tag()) && slot != own && store.names(slot, key);
        // A rival that was confirmed meanwhile cannot be ended.
        if is_rival && (!slot.is_pending() || !swap(store, place, number, slot, Slot::EMPTY)) {
            return false;
        }
        number += 1;
    }
    true
}

/// Takes the half of a key out; whether it was there.
#[inline(always)]
pub fn remove<S: Store>(store: S, key: &S::Key, place: Place) -> bool {
    let mut tries = 0;
    while tries < PICKS {
        let Some((number, slot)) = find(store, key, place) else { return false };
        if swap(store, place, number, slot, Slot::EMPTY) {
            store.retire(slot);
            return true;
        }
        // Another CPU has removed it, or noted in its slot that it has proved itself.
        tries += 1;
    }
    false
}

/// Pushes the newcomer out that came first; which of the sixteen slots it had.
#[inline(always)]
pub fn push_out<S: Store>(store: S, place: Place, now: u32) -> u32 {
    let mut tries = 0;
    while tries < PICKS {
        let number = oldest(store, place, now);
        if number == NONE {
            return NONE;
        }
        if store.evict(place, number) {
            return number;
        }
        tries += 1;
    }
    NONE
}

/// The slot of the newcomer that came first.
#[inline(always)]
fn oldest<S: Store>(store: S, place: Place, now: u32) -> u32 {
    // Its age, and below that its number: one word to compare and to keep.
    let mut oldest = 0;
    let mut number = 0;
    while number < CHOICES {
        let age = store.age(place, number, now);
        let candidate = age << 8 | number;
        if age != 0 && candidate > oldest {
            oldest = candidate;
        }
        number += 1;
    }
    if oldest == 0 { NONE } else { oldest & (CHOICES - 1) }
}

/// How old the newcomer in slot `number` of a place is (see [`Slot::age_of_newcomer`]).
#[inline(always)]
pub fn age<S: Store>(store: S, place: Place, number: u32, now: u32) -> u32 {
    slot_at(store, place, number).age_of_newcomer(now)
}

/// Ends the newcomer in slot `number` of a place; whether it was one. Of one that has proved
/// itself since it came, that is noted in its slot.
#[inline(always)]
pub fn evict<S: Store>(store: S, place: Place, number: u32) -> bool {
    let slot = slot_at(store, place, number);
    if slot.age_of_newcomer(0) == 0 {
        return false;
    }
    let Some(entry) = store.entry(slot.entry()) else { return false };
    let old = entry.status().load();
    let status = Status::from_word(old);
    if status.version != slot.version() || !status.is_live() {
        return false;
    }
    if status.flags & FLOW_PROVED != 0 {
        swap(store, place, number, slot, slot.proved());
        return false;
    }
    // The status first: from then on it can prove itself no more.
    if !entry.status().swap(old, ended(status).word()) {
        return false;
    }
    swap(store, place, number, slot, Slot::EMPTY);
    take_up(store, slot.entry());
    true
}

/// The status of an entry whose half has ended, and that no list holds yet.
#[inline(always)]
const fn ended(status: Status) -> Status {
    Status { epoch: 0, mtu: 0, version: following(status.version), state: STRAY, flags: 0 }
}

/// Frees an entry where there is none, and takes it: that of a newcomer here, or nearby.
#[inline(always)]
fn make_room<S: Store>(store: S, place: Place, now: u32) -> u32 {
    let mut distance = 0;
    while distance < NEARBY {
        if store.push_out(place.nearby(distance), now) != NONE {
            return store.allocate();
        }
        distance += 1;
    }
    NONE
}

/// Takes a free entry.
#[inline(always)]
pub fn allocate<S: Store>(store: S) -> u32 {
    let Some(heap) = store.heap() else { return NONE };
    let mut tries = 0;
    while tries < TRIES {
        let head = heap.load();
        let number = head as u32;
        let Some(entry) = store.entry(number) else { return NONE };
        let next = number.wrapping_add(1).wrapping_add(entry.link());
        if heap.swap(head, counted(head, next)) {
            return number;
        }
        tries += 1;
    }
    NONE
}

/// The begin of the list, changed once more.
#[inline(always)]
const fn counted(head: u64, first: u32) -> u64 {
    ((head >> 32) + 1) << 32 | first as u64
}

/// Gives the entry back that a slot named. Readers that have it still are told by its version; so is
/// whoever comes here after another has given it back, and it may have another half since.
#[inline(always)]
pub fn retire<S: Store>(store: S, slot: Slot) {
    let Some(entry) = store.entry(slot.entry()) else { return };
    let mut tries = 0;
    while tries < TRIES {
        let old = entry.status().load();
        let status = Status::from_word(old);
        if status.version != slot.version() || !status.is_live() {
            return;
        }
        if entry.status().swap(old, ended(status).word()) {
            take_up(store, slot.entry());
            return;
        }
        tries += 1;
    }
}

/// Puts an entry that nobody has into the list of free ones; if the list's begin is too contended,
/// the sweep tries again.
#[inline(always)]
pub fn take_up<S: Store>(store: S, number: u32) {
    let (Some(entry), Some(heap)) = (store.entry(number), store.heap()) else { return };
    let stray = Status::from_word(entry.status().load());
    if stray.state != STRAY
        || !entry.status().swap(stray.word(), Status { state: 0, ..stray }.word())
    {
        return;
    }
    let mut tries = 0;
    while tries < TRIES {
        let head = heap.load();
        entry.set_link((head as u32).wrapping_sub(number).wrapping_sub(1));
        if heap.swap(head, counted(head, number)) {
            return;
        }
        tries += 1;
    }
    entry.status().swap(Status { state: 0, ..stray }.word(), stray.word());
}
