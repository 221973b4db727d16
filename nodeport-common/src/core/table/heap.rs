//! The list of free entries.

use super::status::{FREE, STRAY, Status};
use super::{Entry as _, NONE, Store, Word as _};

/// How often a word that others change as well is tried to be changed.
const TRIES: u32 = 16;

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

/// Gives an entry back that belongs to this CPU, and that no slot names.
#[inline(always)]
pub fn give_back<S: Store>(store: S, number: u32) {
    let Some(entry) = store.entry(number) else { return };
    let mut tries = 0;
    while tries < TRIES {
        // A claim that has seen it pending may end it in this instant.
        let old = entry.status().load();
        let free = Status::from_word(old).freed();
        if entry.status().swap(old, free.word()) {
            put(store, number, free);
            return;
        }
        tries += 1;
    }
}

/// Puts an entry that nobody has into the list of free ones.
#[inline(always)]
pub fn take_up<S: Store>(store: S, number: u32) {
    let Some(entry) = store.entry(number) else { return };
    let stray = Status::from_word(entry.status().load());
    let free = Status { state: FREE, ..stray };
    if stray.state == STRAY && entry.status().swap(stray.word(), free.word()) {
        put(store, number, free);
    }
}

/// Puts an entry of this status into the list of free ones; if the list's begin is too contended, the
/// sweep tries again.
#[inline(always)]
fn put<S: Store>(store: S, number: u32, free: Status) {
    let (Some(entry), Some(heap)) = (store.entry(number), store.heap()) else { return };
    let mut tries = 0;
    while tries < TRIES {
        let head = heap.load();
        entry.set_link((head as u32).wrapping_sub(number).wrapping_sub(1));
        if heap.swap(head, counted(head, number)) {
            return;
        }
        tries += 1;
    }
    entry.status().swap(free.word(), Status { state: STRAY, ..free }.word());
}
