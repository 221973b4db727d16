//! Where there is no room, newcomers make it: of those in a place the one that came first.

use super::heap::{ended, take_up};
use super::slot::{Place, Slot};
use super::status::Status;
use super::{CHOICES, Entry as _, NONE, Store, Word as _, slot_at, swap};
use crate::abi::FLOW_PROVED;

/// How often another newcomer is picked, if the first was gone or had proved itself.
const PICKS: u32 = 3;
/// Places where a newcomer is looked for. Newcomers are not spread evenly: who comes pushes out one
/// near it, so that a place that has none stays so. Where they held a third of all entries, in an index
/// of two slots an entry, one place in six had none, and with five places one key in four thousand was
/// refused for good.
pub const NEARBY: u32 = 12;

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

/// The slot of the newcomer that came first: which of the sixteen it is.
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

/// How old the newcomer in slot `number` of a place is (see [`Slot::age_of_newcomer`]). A function
/// of its own: of a number that comes out of one the verifier knows nothing, and does not try every
/// order of sixteen.
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

/// Frees an entry where there is none, and takes it: that of a newcomer here, or nearby.
#[inline(always)]
pub(super) fn make_room<S: Store>(store: S, place: Place, now: u32) -> u32 {
    let mut distance = 0;
    while distance < NEARBY {
        if store.push_out(place.nearby(distance), now) != NONE {
            return store.allocate();
        }
        distance += 1;
    }
    NONE
}
