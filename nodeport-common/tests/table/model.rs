//! One processor, held against an ordered map.

use std::collections::BTreeMap;

use nodeport_common::core::env::Inserted;
use nodeport_common::core::table::slot::Place;
use nodeport_common::core::table::{CANDIDATES, NEARBY, lacks};
use proptest::prelude::*;

use crate::memory::body_of;
use crate::memory::on_host::Memory;

/// Lines and entries: either may run out before the other.
const SHAPES: [(u32, usize); 4] = [(1, 40), (2, 48), (4, 48), (16, 20)];
/// Keys.
const KEYS: u64 = 100;

#[derive(Clone, Copy, Debug)]
enum Step {
    Claim { key: u64, proved: bool },
    Remove(u64),
    RemoveNewcomer(u64),
    Prove(u64),
    PushOut(u64),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 1..=KEYS;
    prop_oneof![
        6 => (key(), any::<bool>()).prop_map(|(key, proved)| Step::Claim { key, proved }),
        3 => key().prop_map(Step::Remove),
        1 => key().prop_map(Step::RemoveNewcomer),
        2 => key().prop_map(Step::Prove),
        1 => key().prop_map(Step::PushOut),
        1 => Just(Step::Wait),
    ]
}

/// What must be there: body, whether it has proved itself, when it came.
type Model = BTreeMap<u64, (u64, bool, u32)>;

/// Whether that is one of a place's lines.
fn is_in(place: Place, line: u32) -> bool {
    [place.first(), place.second()].contains(&line)
}

/// A half as it was before a step.
#[derive(Clone, Copy, Debug)]
struct Half {
    key: u64,
    line: u32,
    came: u32,
    proved: bool,
}

fn halves(model: &Model, memory: &Memory) -> Vec<Half> {
    let half = |(key, (_, proved, came)): (&u64, &(u64, bool, u32))| {
        let found = memory.find(*key).expect("it was there");
        let line = memory.place(*key).slot(found.number).0;
        assert!(*proved || found.slot.newcomers() == 1, "{key} cannot be pushed out");
        Half { key: *key, line, came: *came, proved: *proved }
    };
    model.iter().map(half).collect()
}

/// Whether there is a newcomer in this place.
fn has_newcomers(halves: &[Half], place: Place) -> bool {
    halves.iter().any(|half| !half.proved && is_in(place, half.line))
}

/// Whether a newcomer may go out of this place that came then: of several that are compared, none is
/// older.
fn may_go(halves: &[Half], place: Place, came: u32) -> bool {
    let newcomers = || halves.iter().filter(|half| !half.proved && is_in(place, half.line));
    let compared = newcomers().count().min(CANDIDATES as usize);
    newcomers().filter(|half| half.came >= came).count() >= compared
}

/// Takes out of the model what is not in the table any more: newcomers alone may have gone. Those
/// that went, of the ones that there were.
fn settle(model: &mut Model, memory: &Memory, before: &[Half]) -> Vec<Half> {
    let gone: Vec<u64> = model.keys().copied().filter(|key| memory.read(*key).is_none()).collect();
    for key in &gone {
        let (_, proved, _) = model.remove(key).expect("it was there");
        assert!(!proved, "{key} had proved itself");
    }
    let gone: Vec<_> = before.iter().copied().filter(|half| gone.contains(&half.key)).collect();
    // One for its entry, one for its slot.
    assert!(gone.len() <= 2, "{gone:?} are too many");
    gone
}

/// Whether there is a place, this or one nearby, that each of those may have gone out of.
fn might_go(gone: &[Half], before: &[Half], place: Place) -> bool {
    gone.iter().all(|half| {
        let nearby = (0..NEARBY).map(|distance| place.nearby(distance));
        nearby
            .filter(|place| is_in(*place, half.line))
            .any(|place| may_go(before, place, half.came))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_is_a_map_that_forgets_newcomers(
        (lines, entries) in prop::sample::select(&SHAPES),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let memory = Memory::new(lines, entries);
        let (mut model, mut now) = (Model::new(), 1_000);
        for (number, step) in steps.into_iter().enumerate() {
            let before = halves(&model, &memory);
            match step {
                Step::Claim { key, proved } => {
                    let body = body_of(key, number as u64);
                    let result = memory.claim(key, body, proved, now);
                    let known = model.contains_key(&key);
                    let gone = settle(&mut model, &memory, &before);
                    prop_assert!(might_go(&gone, &before, memory.place(key)), "{gone:?}");
                    match result {
                        Inserted::Taken => prop_assert!(known, "{key} was free"),
                        Inserted::Done => {
                            prop_assert!(!known);
                            model.insert(key, (body, proved, now));
                        }
                        Inserted::Full => {
                            prop_assert!(!known);
                            let slots = if lines == 1 { 16 } else { 32 };
                            prop_assert!(model.len() >= slots.min(entries), "{}", model.len());
                        }
                    }
                }
                Step::Remove(key) => {
                    prop_assert_eq!(memory.remove(key), model.remove(&key).is_some());
                }
                Step::RemoveNewcomer(key) => {
                    let is_newcomer = model.get(&key).is_some_and(|(_, proved, _)| !proved);
                    prop_assert_eq!(memory.remove_newcomer(key), is_newcomer);
                    if is_newcomer {
                        model.remove(&key);
                    }
                }
                Step::Prove(key) => {
                    let known = model.get_mut(&key).map(|half| half.1 = true).is_some();
                    prop_assert_eq!(memory.prove(key), known);
                }
                Step::PushOut(key) => {
                    let place = memory.place(key);
                    let is_one = has_newcomers(&before, place);
                    let pushed = memory.push_out(key, now);
                    let gone = settle(&mut model, &memory, &before);
                    prop_assert!(might_go(&gone, &before, place), "{gone:?}");
                    prop_assert_eq!((gone.len(), pushed), (usize::from(is_one), is_one));
                }
                Step::Wait => now += 1,
            }
            for (key, (body, _, _)) in &model {
                prop_assert_eq!(memory.read(*key), Some(*body), "{}", key);
                prop_assert!(!lacks(&memory, memory.place(*key)), "{} is there", key);
                let likely = memory.read_likely(*key);
                prop_assert!(likely.is_none_or(|likely| likely == *body), "{}: {:?}", key, likely);
            }
            // That a key is missed is no mistake; that none ever is, would be.
            prop_assert!(!model.is_empty() || (1..=KEYS).all(|key| lacks(&memory, memory.place(key))));
            let audit = memory.audit();
            prop_assert_eq!(audit.keys, model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!((audit.free, audit.stray), (entries - model.len(), 0));
        }
    }
}
