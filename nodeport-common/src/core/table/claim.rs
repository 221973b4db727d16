//! How a half comes into the table, and goes.

use super::room::make_room;
use super::slot::{Place, Slot};
use super::status::Status;
use super::{CHOICES, Entry as _, NONE, Store, Word as _, find, slot_at, swap};
use crate::abi::FLOW_PROVED;
use crate::core::env::Inserted;

/// How often a half is looked for again that another CPU changes in the same instant.
const TRIES: u32 = 3;

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
    while tries < TRIES {
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

/// Takes the half of a key out if it is a newcomer; whether it was. If another newcomer gets its slot
/// in this instant, that one may go instead: it could be pushed out at any time.
#[inline(always)]
pub fn remove_newcomer<S: Store>(store: S, key: &S::Key, place: Place) -> bool {
    find(store, key, place).is_some_and(|(number, _)| store.evict(place, number))
}
