//! The list of free entries.

use super::slot::{Slot, following};
use super::status::{STRAY, Status};
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

/// The status of an entry whose half has ended, and that no list holds yet.
#[inline(always)]
pub(super) const fn ended(status: Status) -> Status {
    Status { epoch: 0, mtu: 0, version: following(status.version), state: STRAY, flags: 0 }
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
