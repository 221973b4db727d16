//! Claims where all slots of their keys are taken, so that they push a newcomer out and put their own
//! slot in its place: in every order in which two processors may meet.

use loom::sync::Arc;
use nodeport_common::core::env::Inserted;

use crate::interleavings::{both, model};
use crate::memory::in_loom::Memory;
use crate::memory::{Audit, body_of};

/// A table of one line in which so many slots are newcomers', the keys from 1 on, and all others are
/// those of strangers that stay; with entries for so many more.
fn full(newcomers: u64, spare: usize) -> Arc<Memory> {
    let slots = newcomers as usize;
    let memory = Memory::crowded(1, slots + spare, slots);
    for key in 1..=newcomers {
        // The first came first.
        assert_eq!(memory.claim(key, body_of(key, 1), false, key as u32), Inserted::Done);
    }
    Arc::new(memory)
}

fn newcomer(memory: &Memory, key: u64) -> Inserted {
    memory.claim(key, body_of(key, 1), false, 9)
}

/// Both want the one slot that there is.
#[test]
fn two_claims_of_one_slot() {
    model(|| {
        let memory = full(1, 2);
        let (a, b) = both(&memory, |memory| newcomer(memory, 2), |memory| newcomer(memory, 3));
        assert!(a == Inserted::Done || b == Inserted::Done, "neither");
        assert!(a != Inserted::Taken && b != Inserted::Taken, "nobody else claims these keys");
        let audit = memory.audit();
        let [key] = audit.keys[..] else { panic!("{audit:?}") };
        // One that came first has gone again, if both came.
        assert!(if key == 2 { a == Inserted::Done } else { key == 3 && b == Inserted::Done });
        assert_eq!((audit.free, audit.stray), (2, 0));
    });
}

/// Each gets one; or both get the same, one after the other.
#[test]
fn two_claims_of_two_slots() {
    model(|| {
        let memory = full(2, 2);
        let (a, b) = both(&memory, |memory| newcomer(memory, 3), |memory| newcomer(memory, 4));
        assert_eq!([a, b], [Inserted::Done; 2]);
        let audit = memory.audit();
        assert_eq!((audit.keys.len(), audit.free, audit.stray), (2, 2, 0));
        assert!(!audit.keys.contains(&1), "who was silent longest goes first");
        assert!(audit.keys.iter().any(|key| [3, 4].contains(key)));
    });
}

#[test]
fn two_claims_of_one_key() {
    model(|| {
        let memory = full(2, 2);
        let claim = |memory: &Memory| newcomer(memory, 3);
        let (a, b) = both(&memory, claim, claim);
        assert!(!(a == Inserted::Done && b == Inserted::Done), "claimed twice");
        let audit = memory.audit();
        let done = a == Inserted::Done || b == Inserted::Done;
        assert_eq!(audit.keys.contains(&3), done);
        assert_eq!(audit.keys.len() + audit.free, 4);
        assert_eq!(audit.stray, 0);
    });
}

/// Neither is there an entry: each pushes out one for that, and perhaps another one for its slot.
#[test]
fn two_claims_without_entries() {
    model(|| {
        let memory = full(2, 0);
        let (a, b) = both(&memory, |memory| newcomer(memory, 3), |memory| newcomer(memory, 4));
        assert!(a == Inserted::Done || b == Inserted::Done, "neither");
        let audit = memory.audit();
        assert!(a == Inserted::Done || !audit.keys.contains(&3));
        assert!(b == Inserted::Done || !audit.keys.contains(&4));
        assert_eq!((audit.keys.len() + audit.free, audit.stray), (2, 0));
    });
}

/// The one that is pushed out ends by itself.
#[test]
fn a_claim_and_a_removal() {
    model(|| {
        let memory = full(1, 1);
        let (claimed, _) = both(&memory, |memory| newcomer(memory, 2), |memory| memory.remove(1));
        let keys = if claimed == Inserted::Done { vec![2] } else { vec![] };
        assert_eq!(memory.audit(), Audit { free: 2 - keys.len(), keys, stray: 0 });
    });
}

/// The one that is pushed out proves itself: it stays, or has gone before.
#[test]
fn a_claim_and_a_proof() {
    model(|| {
        let memory = full(1, 1);
        let (claimed, proved) =
            both(&memory, |memory| newcomer(memory, 2), |memory| memory.prove(1));
        assert_eq!(claimed, if proved { Inserted::Full } else { Inserted::Done });
        let keys = vec![if proved { 1 } else { 2 }];
        assert_eq!(memory.audit(), Audit { keys, free: 1, stray: 0 });
    });
}

/// The one that is pushed out comes back in the same instant.
#[test]
fn a_claim_and_one_of_the_key_that_goes() {
    model(|| {
        let memory = full(1, 2);
        let (a, b) = both(&memory, |memory| newcomer(memory, 2), |memory| newcomer(memory, 1));
        assert!(a == Inserted::Done || b == Inserted::Done, "{a:?} {b:?}");
        let audit = memory.audit();
        assert_eq!((audit.keys.len(), audit.free, audit.stray), (1, 2, 0));
    });
}

/// A reader meets the new half, or the old one, or none.
#[test]
fn a_claim_and_a_reader() {
    model(|| {
        let memory = full(1, 1);
        let (claimed, reads) = both(
            &memory,
            |memory| newcomer(memory, 2),
            |memory| [(2, memory.read(2)), (1, memory.read(1)), (2, memory.read_likely(2))],
        );
        assert_eq!(claimed, Inserted::Done);
        for (key, read) in reads {
            assert!(read.is_none_or(|body| body == body_of(key, 1)), "{key}: {read:x?}");
        }
        assert_eq!(memory.audit(), Audit { keys: vec![2], free: 1, stray: 0 });
    });
}
