//! Every order in which two processors may meet, up to some changes from one to the other, with
//! loom.

use loom::sync::Arc;
use loom::thread;
use nodeport_common::core::env::Inserted;

use crate::memory::in_loom::Memory;
use crate::memory::{Audit, body_of, place};

/// Changes from one thread to the other that are not forced.
const CHANGES: usize = 3;

pub(crate) fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(CHANGES);
    builder.max_branches = 10_000;
    builder.check(check);
}

/// Runs each on a thread of its own; what both return. (Loom would not try every order with a thread
/// that goes on here.)
pub(crate) fn both<A: Send + 'static, B: Send + 'static>(
    memory: &Arc<Memory>,
    one: impl FnOnce(&Memory) -> A + Send + 'static,
    other: impl FnOnce(&Memory) -> B + Send + 'static,
) -> (A, B) {
    let (here, there) = (memory.clone(), memory.clone());
    let one = thread::spawn(move || one(&here));
    let other = thread::spawn(move || other(&there));
    (one.join().unwrap(), other.join().unwrap())
}

#[test]
fn two_claims_of_one_key() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 2));
        let (a, b) = both(
            &memory,
            |memory| memory.claim(1, body_of(1, 1), false, 0),
            |memory| memory.claim(1, body_of(1, 2), false, 0),
        );
        assert!(!(a == Inserted::Done && b == Inserted::Done), "claimed twice");
        let audit = memory.audit();
        let done = usize::from(a == Inserted::Done) + usize::from(b == Inserted::Done);
        assert_eq!(audit.keys.len(), done);
        assert_eq!(audit.keys.len() + audit.free + audit.stray, 2);
    });
}

#[test]
fn a_claim_and_a_removal() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 2));
        memory.claim(1, body_of(1, 1), false, 0);
        let (a, _) = both(
            &memory,
            |memory| memory.claim(1, body_of(1, 2), false, 0),
            |memory| memory.remove(1),
        );
        let audit = memory.audit();
        assert_eq!(audit.keys.len(), usize::from(a == Inserted::Done));
        assert_eq!(audit.keys.len() + audit.free + audit.stray, 2);
    });
}

/// The one entry that there is gets another's half while the first one's is read.
#[test]
fn a_reader_and_another_half_in_its_entry() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        memory.claim(1, body_of(1, 1), false, 0);
        let (read, _) = both(
            &memory,
            |memory| memory.read(1),
            |memory| {
                memory.remove(1);
                memory.claim(2, body_of(2, 2), false, 0)
            },
        );
        assert!(read.is_none_or(|body| body == body_of(1, 1)), "{read:x?}");
        assert_eq!(memory.audit().keys.len(), 1);
    });
}

#[test]
fn two_newcomers_and_one_entry() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        let (a, b) = both(
            &memory,
            |memory| memory.claim(1, body_of(1, 1), false, 1),
            |memory| memory.claim(2, body_of(2, 2), false, 1),
        );
        let audit = memory.audit();
        assert!(a == Inserted::Done || b == Inserted::Done);
        assert_eq!(audit.keys.len() + audit.free + audit.stray, 1);
    });
}

#[test]
fn a_newcomer_that_proves_itself_while_it_is_pushed_out() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        memory.claim(1, body_of(1, 1), false, 0);
        let (proved, pushed) =
            both(&memory, |memory| memory.prove(1), |memory| memory.push_out(1, 1));
        let audit = memory.audit();
        assert_eq!(audit.keys.is_empty(), pushed);
        assert!(proved || pushed, "neither");
        assert_eq!(audit.keys.len() + audit.free + audit.stray, 1);
    });
}

/// Of a half that another CPU has its port taken from.
#[test]
fn a_newcomer_that_proves_itself_while_it_is_removed() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 2));
        memory.claim(1, body_of(1, 1), false, 0);
        let (proved, removed) =
            both(&memory, |memory| memory.prove(1), |memory| memory.remove_newcomer(1));
        let audit = memory.audit();
        assert_ne!(proved, removed, "one of the two");
        let keys = if proved { vec![1] } else { vec![] };
        assert_eq!(audit, Audit { free: 2 - keys.len(), keys, stray: 0 });
    });
}

/// A hole comes about before the slot of one claim, so that each looks for the other where it has
/// not been.
#[test]
fn two_claims_of_one_key_while_another_goes() {
    model(|| {
        let memory = Arc::new(Memory::new(1, 3));
        memory.claim(2, body_of(2, 1), true, 0);
        let (a, (removed, b)) = both(
            &memory,
            |memory| memory.claim(1, body_of(1, 1), false, 0),
            |memory| (memory.remove(2), memory.claim(1, body_of(1, 2), false, 0)),
        );
        assert!(removed);
        let done = [a, b].iter().filter(|result| **result == Inserted::Done).count();
        assert_eq!(memory.audit(), Audit { keys: vec![1; done], free: 3 - done, stray: 0 });
    });
}

/// A packet gives a half another next hop and is late: the half ends, and its entry is another's.
#[test]
fn a_next_hop_and_another_half_in_its_entry() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        let (_, half) = memory.claimed(1, body_of(1, 1), true, 0);
        let (set, (removed, claimed, seen)) = both(
            &memory,
            move |memory| memory.set_hop(half, body_of(1, 9)),
            move |memory| {
                let removed = memory.remove_half(1, half);
                let claimed = memory.claim(2, body_of(2, 2), true, 0);
                (removed, claimed, memory.hop(2))
            },
        );
        // It stays if it was held all the time.
        assert_eq!(claimed == Inserted::Done, removed);
        assert!(removed || set, "not set, and not removed either");
        let (key, hop) = if removed { (2, (body_of(2, 2), 7)) } else { (1, (body_of(1, 9), 9)) };
        assert_eq!(seen, removed.then_some(hop));
        assert_eq!(memory.hop(key), Some(hop));
        assert_eq!(memory.audit(), Audit { keys: vec![key], free: 0, stray: 0 });
        assert!(memory.remove(key), "nobody holds it any more");
    });
}

/// Another newcomer takes the entry of one whose packet is late.
#[test]
fn a_next_hop_and_a_newcomer_that_is_pushed_out() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        let (_, half) = memory.claimed(1, body_of(1, 1), false, 0);
        let (set, (claimed, seen)) = both(
            &memory,
            move |memory| memory.set_hop(half, body_of(1, 9)),
            |memory| (memory.claim(2, body_of(2, 2), false, 1), memory.hop(2)),
        );
        let is_there = claimed == Inserted::Done;
        assert!(set || is_there);
        assert!(seen.is_none_or(|(hop, _)| hop == body_of(2, 2)), "{seen:x?}");
        let (key, hop) = if is_there { (2, (body_of(2, 2), 7)) } else { (1, (body_of(1, 9), 9)) };
        assert_eq!(memory.hop(key), Some(hop));
        assert_eq!(memory.audit(), Audit { keys: vec![key], free: 0, stray: 0 });
    });
}

/// One of them is kept, with its own epoch.
#[test]
fn two_next_hops_at_the_same_time() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        let (_, half) = memory.claimed(1, body_of(1, 1), true, 0);
        let (a, b) = both(
            &memory,
            move |memory| memory.set_hop(half, body_of(1, 8)),
            move |memory| memory.set_hop(half, body_of(1, 9)),
        );
        assert!(a || b);
        let (hop, epoch) = memory.hop(1).expect("it is known");
        assert_eq!(hop, body_of(1, epoch.into()));
        assert!(if epoch == 8 { a } else { b });
    });
}

/// The half proves itself, and the sweep makes it forget its way: neither is lost, and the half is let
/// go.
#[test]
fn a_next_hop_while_the_status_changes() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        let (_, half) = memory.claimed(1, body_of(1, 1), false, 0);
        let (set, (proved, forgotten)) = both(
            &memory,
            move |memory| memory.set_hop(half, body_of(1, 9)),
            |memory| (memory.prove(1), memory.forget_hop(0)),
        );
        let hop = memory.hop(1);
        assert!(set && (hop == Some((body_of(1, 9), 9)) || forgotten && hop.is_none()), "{hop:x?}");
        assert_eq!(memory.remove_newcomer(1), !proved);
        assert_eq!(memory.remove(1), proved);
    });
}

/// The first key whose home in its line is that, and another one.
fn keys_with_home(home: u32) -> [u64; 2] {
    let mut keys = (1..).filter(|key| place(*key, 1).home() == home);
    std::array::from_fn(|_| keys.next().expect("there are enough"))
}

/// What a removal has found comes back in the same entry, by another slot: that slot is not left
/// behind.
#[test]
fn a_removal_and_the_same_key_in_the_same_entry() {
    let [key, other] = keys_with_home(7);
    model(move || {
        let memory = Arc::new(Memory::new(1, 2));
        // The other has their common home, and gives it up.
        memory.claim(other, body_of(other, 1), true, 0);
        memory.claim(key, body_of(key, 1), true, 0);
        let (removed, (gone, claimed)) = both(
            &memory,
            move |memory| memory.remove(key),
            move |memory| {
                memory.remove(other);
                (memory.remove(key), memory.claim(key, body_of(key, 2), true, 0))
            },
        );
        assert!(removed || gone, "nobody has removed it");
        let audit = memory.audit();
        let is_there = claimed == Inserted::Done && !(removed && gone);
        let keys = if is_there { vec![key] } else { vec![] };
        assert_eq!(audit, Audit { free: 2 - keys.len(), keys, stray: 0 });
    });
}

/// Who removes a half that it read before does not remove the one that has its key by then.
#[test]
fn a_late_removal_and_the_same_key_again() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 2));
        let (_, half) = memory.claimed(1, body_of(1, 1), true, 0);
        let (late, (removed, claimed)) = both(
            &memory,
            move |memory| memory.remove_half(1, half),
            move |memory| {
                let removed = memory.remove_half(1, half);
                (removed, memory.claim(1, body_of(1, 2), true, 0))
            },
        );
        assert_ne!(late, removed, "one of the two");
        // Before the other has cleared the slot the key is free already: that half has ended.
        assert_eq!(claimed, Inserted::Done);
        assert_eq!(memory.read(1), Some(body_of(1, 2)));
        assert_eq!(memory.audit(), Audit { keys: vec![1], free: 1, stray: 0 });
    });
}

/// No slot names an entry that another may have.
#[test]
fn a_removal_while_the_key_comes_and_goes() {
    let [key, _] = keys_with_home(0);
    model(move || {
        let memory = Arc::new(Memory::new(1, 1));
        memory.claim(key, body_of(key, 1), true, 0);
        both(
            &memory,
            move |memory| memory.remove(key),
            move |memory| (memory.claim(key, body_of(key, 2), true, 0), memory.remove(key)),
        );
        assert_eq!(memory.audit(), Audit { keys: vec![], free: 1, stray: 0 });
    });
}

/// That it has proved itself is noted in a slot in the instant in which the slot is cleared.
#[test]
fn a_removal_and_a_note_in_its_slot() {
    model(|| {
        let memory = Arc::new(Memory::new(1, 1));
        memory.claim(1, body_of(1, 1), false, 0);
        memory.prove(1);
        let (removed, pushed) =
            both(&memory, |memory| memory.remove(1), |memory| memory.push_out(1, 1));
        assert!(removed && !pushed);
        assert_eq!(memory.audit(), Audit { keys: vec![], free: 1, stray: 0 });
    });
}

/// Both push out the one newcomer that there is, and one of them gets its slot.
#[test]
fn two_that_push_the_same_newcomer_out() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        memory.claim(1, body_of(1, 1), false, 0);
        let (a, b) = both(&memory, |memory| memory.push_out(1, 1), |memory| memory.push_out(1, 1));
        assert!(a != b, "one of the two");
        assert_eq!(memory.audit(), Audit { keys: vec![], free: 1, stray: 0 });
    });
}

#[test]
fn two_allocations_and_what_is_given_back_between() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 3));
        memory.claim(1, body_of(1, 1), true, 0);
        let (a, (b, c)) = both(
            &memory,
            |memory| memory.claim(2, body_of(2, 1), true, 0),
            // The list begins where it did, and is another.
            |memory| {
                let claimed = memory.claim(3, body_of(3, 1), true, 0);
                memory.remove(1);
                memory.remove(3);
                (claimed, memory.claim(4, body_of(4, 1), true, 0))
            },
        );
        assert_eq!([a, b, c], [Inserted::Done; 3]);
        assert_eq!(memory.audit(), Audit { keys: vec![2, 4], free: 1, stray: 0 });
    });
}

/// Both end the half, and the entry gets another: it is given back once.
#[test]
fn a_removal_and_a_newcomer_that_is_pushed_out() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        memory.claim(1, body_of(1, 1), false, 0);
        let (claimed, _) = both(
            &memory,
            |memory| memory.claim(2, body_of(2, 1), false, 1),
            |memory| memory.remove(1),
        );
        let audit = memory.audit();
        let keys = if claimed == Inserted::Done { vec![2] } else { vec![] };
        assert_eq!((audit.free, audit.stray), (1 - keys.len(), 0));
        assert_eq!(audit.keys, keys);
    });
}

#[test]
fn a_reader_and_a_newcomer_that_is_pushed_out() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        memory.claim(1, body_of(1, 1), false, 0);
        let ((found, likely), claimed) = both(
            &memory,
            |memory| (memory.read(1), memory.read_likely(1)),
            |memory| memory.claim(2, body_of(2, 2), false, 1),
        );
        for read in [found, likely] {
            assert!(read.is_none_or(|body| body == body_of(1, 1)), "{read:x?}");
        }
        assert_eq!(claimed, Inserted::Done);
        assert_eq!(memory.audit().keys, [2]);
    });
}

/// It has proved itself before the other came, or it goes.
#[test]
fn a_newcomer_that_proves_itself_while_another_comes() {
    model(|| {
        let memory = Arc::new(Memory::new(2, 1));
        memory.claim(1, body_of(1, 1), false, 0);
        let (proved, claimed) = both(
            &memory,
            |memory| memory.prove(1),
            |memory| memory.claim(2, body_of(2, 2), false, 1),
        );
        assert_ne!(proved, claimed == Inserted::Done);
        assert_eq!(memory.audit().keys, [if proved { 1 } else { 2 }]);
    });
}

/// The sweep takes the entry up before its slot is cleared, and the same key gets it again.
#[test]
fn a_sweep_while_a_newcomer_is_pushed_out() {
    model(|| {
        let memory = Arc::new(Memory::new(1, 1));
        memory.claim(1, body_of(1, 1), false, 0);
        let (pushed, claimed) = both(
            &memory,
            |memory| memory.push_out(1, 1),
            |memory| {
                let is_gone = memory.read(1).is_none();
                memory.sweep();
                let claimed = memory.claim(1, body_of(1, 2), true, 1);
                assert!(!is_gone || claimed != Inserted::Taken, "nobody had it");
                let expected = (claimed == Inserted::Done).then_some(body_of(1, 2));
                assert!(expected.is_none() || memory.read(1) == expected);
                claimed == Inserted::Done
            },
        );
        assert!(pushed);
        let keys = if claimed { vec![1] } else { vec![] };
        assert_eq!(memory.audit(), Audit { free: 1 - keys.len(), keys, stray: 0 });
    });
}
