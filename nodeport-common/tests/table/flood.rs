//! A table that newcomers have filled, among many that have proved themselves.

use nodeport_common::abi::{SLOTS_OF_LINE, SLOTS_PER_ENTRY};
use nodeport_common::core::env::Inserted;

use crate::memory::body_of;
use crate::memory::on_host::Memory;

/// As `--max-flows 16384` makes it.
const ENTRIES: usize = 32_768;
const LINES: u32 = (ENTRIES * SLOTS_PER_ENTRY / SLOTS_OF_LINE) as u32;

/// Nobody is refused for a place that is full before all entries are in use.
#[test]
fn all_entries_can_be_of_halves_that_stay() {
    let memory = Memory::new(LINES, ENTRIES);
    for key in 1..=ENTRIES as u64 {
        assert_eq!(memory.claim(key, body_of(key, 1), true, 1), Inserted::Done, "{key}");
    }
    let last = ENTRIES as u64 + 1;
    assert_eq!(memory.claim(last, body_of(last, 1), true, 1), Inserted::Full);
}

/// Most entries are of those that stay, so that a key may have none but these near its place:
/// yet every newcomer finds one that makes room for it, and finds it at its first try.
#[test]
fn no_newcomer_is_refused_while_others_can_go() {
    let memory = Memory::new(LINES, ENTRIES);
    for key in 1..=20_000 {
        assert_eq!(memory.claim(key, body_of(key, 1), false, 1), Inserted::Done);
        memory.prove(key);
    }
    // The first of them find many that are newcomers by their slots alone.
    for key in 20_001..=220_000 {
        memory.claim(key, body_of(key, 1), false, 2);
    }
    for key in 220_001..=226_000 {
        let claimed = memory.claim(key, body_of(key, 1), false, 3);
        assert_eq!(claimed, Inserted::Done, "{key}");
        memory.prove(key);
    }
}
