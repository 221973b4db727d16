//! Where there is no room, newcomers make it: of those in a place the one that came first.

use super::heap::{ended, take_up};
use super::slot::{Place, Slot};
use super::status::Status;
use super::{CHOICES, Entry as _, Line, NONE, Store, Word as _, slot_at, swap};
use crate::abi::{FLOW_PROVED, SLOTS_OF_LINE};

/// How often another newcomer is picked, if the first was gone or had proved itself.
const PICKS: u32 = 3;
/// Places where a newcomer is looked for. If newcomers have a tenth of a
/// table that is half full of slots, all these are without one in 1 of 60 cases.
const NEARBY: u32 = 5;

/// Pushes the newcomer out that came first; which of the sixteen slots it had.
#[inline(always)]
pub fn push_out<S: Store>(store: S, place: Place, now: u32) -> u32 {
    let mut tries = 0;
    while tries < PICKS {
        let number = store.oldest(place, now);
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
pub fn oldest<S: Store>(store: S, place: Place, now: u32) -> u32 {
    let (Some(first), Some(second)) = (store.line(place.first()), store.line(place.second()))
    else {
        return NONE;
    };
    let oldest = oldest_in(second, SLOTS_OF_LINE, now, oldest_in(first, 0, now, 0));
    if oldest >> 8 == 0 { NONE } else { oldest as u32 & (CHOICES - 1) }
}

/// The oldest of a line's newcomers and the one so far: its age, and below that its number, which
/// begins at `number` here. One word to compare and to keep, and without a branch (see
/// [`Slot::age_of_newcomer`]).
#[inline(always)]
fn oldest_in<L: Line>(line: L, number: usize, now: u32, so_far: i64) -> i64 {
    let mut oldest = so_far;
    let mut at = 0;
    while at < SLOTS_OF_LINE {
        let age = Slot::from_word(line.slot(at).load()).age_of_newcomer(now) as i64;
        let ahead = (age << 8 | (number + at) as i64) - oldest;
        oldest += ahead & !(ahead >> 63);
        at += 1;
    }
    oldest
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

/// Pushes a newcomer out here, or nearby: a slot or an entry is missing. Whether one was.
#[inline(always)]
pub fn make_room<S: Store>(store: S, place: Place, now: u32) -> bool {
    let mut distance = 0;
    while distance < NEARBY {
        if store.push_out(place.nearby(distance), now) != NONE {
            return true;
        }
        distance += 1;
    }
    false
}
