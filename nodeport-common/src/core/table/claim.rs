//! How a half comes into the table, and goes.

use super::handle::Handle;
use super::room::make_room;
use super::slot::{Place, Slot};
use super::status::Status;
use super::{CHOICES, Entry, Evicted, Found, NONE, Store, Word as _, find, named, slot_at, swap};
use crate::abi::FLOW_PROVED;
use crate::core::env::Inserted;

/// How often a word that others change as well is tried to be changed.
const TRIES: u32 = 4;
/// How often a half is tried to be removed. Another CPU may hold it while it writes a word.
const REMOVALS: u32 = 16;

/// Puts a half into the table, if its key is free; which one it is then. `status` is that of the half,
/// without version.
#[inline(always)]
pub fn claim<S: Store>(
    store: S,
    key: &S::Key,
    body: &S::Body,
    place: Place,
    status: Status,
    now: u32,
) -> (Inserted, Handle) {
    if find(store, key, place).is_some() {
        return (Inserted::Taken, Handle::NONE);
    }
    let mut number = store.allocate();
    if number == NONE {
        number = make_room(store, place, now);
    }
    let Some(entry) = store.entry(number) else { return (Inserted::Full, Handle::NONE) };
    // The entry is ours: nobody else changes its status before a slot names it.
    let old = entry.status().load();
    let status = Status { version: Status::from_word(old).version, ..status };
    entry.write(key, body, status.version);
    let slot = Slot::new(number, place.tag());
    let slot = if status.flags & FLOW_PROVED == 0 { slot.newcomer() } else { slot };
    let at = if entry.status().swap(old, status.pending().word()) {
        publish(store, place, slot, now)
    } else {
        NONE
    };
    if at == NONE {
        store.give_back(number);
        return (Inserted::Full, Handle::NONE);
    }
    // It becomes live, unless another claim of the key has ended it.
    if is_alone(store, key, place, number)
        && entry.status().swap(status.pending().word(), status.word())
    {
        return (Inserted::Done, Handle::new(number, status.version));
    }
    vacate(store, place, at, Slot::EMPTY);
    store.give_back(number);
    (Inserted::Taken, Handle::NONE)
}

/// Puts a slot into one of its key's places; which of them it is.
#[inline(always)]
fn publish<S: Store>(store: S, place: Place, slot: Slot, now: u32) -> u32 {
    let home = place.home();
    if swap(store, place, home, Slot::EMPTY, slot) {
        return home;
    }
    let mut number = 0;
    while number < CHOICES {
        if slot_at(store, place, number).is_empty() && swap(store, place, number, Slot::EMPTY, slot)
        {
            return number;
        }
        number += 1;
    }
    let Evicted { entry, number } = store.push_out(place, now, slot);
    if entry != NONE {
        store.give_back(entry);
    }
    number
}

/// Whether no entry but `own` has this key. Those that it is being claimed for as well are ended.
#[inline(always)]
fn is_alone<S: Store>(store: S, key: &S::Key, place: Place, own: u32) -> bool {
    let mut number = 0;
    while number < CHOICES {
        let slot = slot_at(store, place, number);
        if slot.has_tag(place.tag()) && slot.entry() != own && !store.yields(slot, key) {
            return false;
        }
        number += 1;
    }
    true
}

/// Whether the half that a slot names is not of this key, or was being claimed and is ended now.
#[inline(always)]
pub fn yields<S: Store>(store: S, slot: Slot, key: &S::Key) -> bool {
    let mut tries = 0;
    while tries < TRIES {
        let word = named(store, slot, key);
        let rival = Status::from_word(word);
        if word == 0 {
            return true;
        }
        if rival.is_live() {
            return false;
        }
        let Some(entry) = store.entry(slot.entry()) else { return true };
        if entry.status().swap(word, rival.ended().word()) {
            return true;
        }
        // It was confirmed, or ended.
        tries += 1;
    }
    false
}

/// Puts another slot, or none, where one names an entry that this CPU has ended, or claimed in vain.
/// Others note in it at most that the half has proved itself, and that once.
#[inline(always)]
pub(super) fn vacate<S: Store>(store: S, place: Place, number: u32, instead: Slot) {
    let mut tries = 0;
    while tries < TRIES && !swap(store, place, number, slot_at(store, place, number), instead) {
        tries += 1;
    }
}

/// Whose halves [`remove`] removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Those of flows that have not proved themselves.
    Newcomers,
}

/// Takes a half out of the place of its key; whether it was there, and was such a one's.
#[inline(always)]
pub fn remove<S: Store>(store: S, place: Place, half: Handle, whose: Whose) -> bool {
    let Some(entry) = store.entry(half.entry()) else { return false };
    if !end_half(&entry, half, whose) {
        return false;
    }
    // One slot named it, and names it until we clear that.
    let number = slot_of(store, place, half.entry());
    if number != NONE {
        vacate(store, place, number, Slot::EMPTY);
        store.give_back(half.entry());
    }
    true
}

/// Ends a half where it lies; whether it was there, and was such a one's.
#[inline(always)]
fn end_half<E: Entry>(entry: &E, half: Handle, whose: Whose) -> bool {
    let mut tries = 0;
    while tries < REMOVALS {
        let word = entry.status().load();
        if !lives(word, half, whose) {
            return false;
        }
        let status = Status::from_word(word);
        if !status.is_held() && entry.status().swap(word, status.ended().word()) {
            return true;
        }
        // Another CPU has ended it, or changed its status, or holds it for a moment.
        tries += 1;
    }
    false
}

/// Whether an entry's status is that of this half, and of such a one.
#[inline(always)]
const fn lives(word: u64, half: Handle, whose: Whose) -> bool {
    let status = Status::from_word(word);
    let spared = matches!(whose, Whose::Newcomers) && status.flags & FLOW_PROVED != 0;
    status.is_live() && status.version == half.version() && !spared
}

/// Which slot of a place names that entry.
#[inline(always)]
fn slot_of<S: Store>(store: S, place: Place, entry: u32) -> u32 {
    let mut number = 0;
    while number < CHOICES {
        let slot = slot_at(store, place, number);
        if slot.has_tag(place.tag()) && slot.entry() == entry {
            return number;
        }
        number += 1;
    }
    NONE
}

/// Ends a half that was found, if it is still as it was; whoever does has its slot and its entry.
#[inline(always)]
pub(super) fn end<S: Store>(store: S, place: Place, found: Found) -> bool {
    let Found { number, slot, status } = found;
    // Now, not when it was found: the entry may have been given to another half in between, which
    // another slot names.
    !status.is_held()
        && slot_at(store, place, number) == slot
        && store
            .entry(slot.entry())
            .is_some_and(|entry| entry.status().swap(status.word(), status.ended().word()))
}
