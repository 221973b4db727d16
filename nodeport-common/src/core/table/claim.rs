//! How a half comes into the table, and goes.

use super::heap::allocate;
use super::slot::{Place, Slot};
use super::status::Status;
use super::{Entry as _, Line as _, NONE, Store, Word as _, find, swap};
use crate::abi::{FLOW_PROVED, SLOTS_OF_LINE};
use crate::core::env::Inserted;

/// How often a half is looked for again that another CPU changes in the same instant.
const TRIES: u32 = 3;

/// Puts a half into the table, if its key is free; newcomers make room for it. `status` is that of
/// the half, without version.
#[inline(always)]
pub fn claim<S: Store>(
    store: S,
    key: &S::Key,
    body: &S::Body,
    place: Place,
    status: Status,
    now: u32,
) -> Inserted {
    let claimed = store.try_claim(key, body, place, status, now);
    if claimed != Inserted::Full || !store.make_room(place, now) {
        return claimed;
    }
    store.try_claim(key, body, place, status, now)
}

/// Puts a half into the table, if its key is free and there is room.
#[inline(always)]
pub fn try_claim<S: Store>(
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
    let number = allocate(store);
    let Some(entry) = store.entry(number) else { return Inserted::Full };
    entry.write(key, body);
    let version = Status::from_word(entry.status().load()).version;
    let slot = Slot::new(number, place.tag(), version);
    let slot = if status.flags & FLOW_PROVED == 0 { slot.newcomer(now) } else { slot };
    // Nobody else writes it: no slot names the entry, and no list holds it.
    entry.status().store(Status { version, ..status }.word());
    let at = publish(store, place, slot.pending());
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
fn publish<S: Store>(store: S, place: Place, slot: Slot) -> u32 {
    let at = publish_in(store, place.first(), slot);
    if at != NONE {
        return at;
    }
    let at = publish_in(store, place.second(), slot);
    if at != NONE { at + SLOTS_OF_LINE as u32 } else { NONE }
}

/// Puts a slot into the first empty place of a line.
#[inline(always)]
fn publish_in<S: Store>(store: S, line: u32, slot: Slot) -> u32 {
    let Some(line) = store.line(line) else { return NONE };
    let mut at = 0;
    while at < SLOTS_OF_LINE {
        let word = line.slot(at);
        if word.load() == Slot::EMPTY.word() && word.swap(Slot::EMPTY.word(), slot.word()) {
            return at as u32;
        }
        at += 1;
    }
    NONE
}

/// Whether no other slot names this key. Those that are being claimed as well are ended.
#[inline(always)]
fn is_alone<S: Store>(store: S, key: &S::Key, place: Place, own: Slot) -> bool {
    is_alone_in(store, key, place, place.first(), own)
        && is_alone_in(store, key, place, place.second(), own)
}

#[inline(always)]
fn is_alone_in<S: Store>(store: S, key: &S::Key, place: Place, line: u32, own: Slot) -> bool {
    let Some(line) = store.line(line) else { return true };
    let mut at = 0;
    while at < SLOTS_OF_LINE {
        if line.tag(at) == place.tag() {
            let slot = Slot::from_word(line.slot(at).load());
            let is_rival = slot != own && slot.has_tag(place.tag()) && store.names(slot, key);
            // A rival that was confirmed meanwhile cannot be ended.
            if is_rival
                && (!slot.is_pending() || !line.slot(at).swap(slot.word(), Slot::EMPTY.word()))
            {
                return false;
            }
        }
        at += 1;
    }
    true
}

/// Takes the half of a key out; whether it was there.
#[inline(always)]
pub fn remove<S: Store>(store: S, key: &S::Key, place: Place) -> bool {
    let mut tries = 0;
    while tries < TRIES {
        let slot = store.search(key, place);
        if slot.is_empty() {
            return false;
        }
        if clear_in(store, place.first(), slot) || clear_in(store, place.second(), slot) {
            store.retire(slot);
            return true;
        }
        // Another CPU has removed it, or noted in its slot that it has proved itself.
        tries += 1;
    }
    false
}

/// Empties the place in a line where this stands; whether it stood there.
#[inline(always)]
fn clear_in<S: Store>(store: S, line: u32, slot: Slot) -> bool {
    let Some(line) = store.line(line) else { return false };
    let mut at = 0;
    while at < SLOTS_OF_LINE {
        let word = line.slot(at);
        if word.load() == slot.word() {
            return word.swap(slot.word(), Slot::EMPTY.word());
        }
        at += 1;
    }
    false
}
