//! One processor, held against an ordered map.

use std::collections::BTreeMap;

use nodeport_common::core::env::Inserted;
use proptest::prelude::*;

use crate::memory::on_host::Memory;
use crate::memory::{UNIT, body_of, place};

/// Lines of the index.
const LINES: u32 = 4;
/// Entries: fewer than slots.
const ENTRIES: usize = 24;
/// Keys.
const KEYS: u64 = 60;

#[derive(Clone, Copy, Debug)]
enum Step {
    Claim { key: u64, proved: bool },
    Remove(u64),
    Prove(u64),
    PushOut(u64),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 1..=KEYS;
    prop_oneof![
        6 => (key(), any::<bool>()).prop_map(|(key, proved)| Step::Claim { key, proved }),
        3 => key().prop_map(Step::Remove),
        2 => key().prop_map(Step::Prove),
        1 => key().prop_map(Step::PushOut),
        1 => Just(Step::Wait),
    ]
}

/// What must be there: body, whether it has proved itself, when it came.
type Model = BTreeMap<u64, (u64, bool, u32)>;

/// Takes out of the model what is not in the table any more: newcomers alone may have gone. When
/// those came that went.
fn settle(model: &mut Model, memory: &Memory) -> Vec<u32> {
    let gone: Vec<u64> = model.keys().copied().filter(|key| memory.read(*key).is_none()).collect();
    let halves: Vec<_> = gone.iter().map(|key| model.remove(key).expect("it was there")).collect();
    assert!(halves.iter().all(|(_, proved, _)| !proved), "one of {gone:?} had proved itself");
    // One for its entry, one for its slot.
    assert!(halves.len() <= 2, "{gone:?} are too many");
    halves.into_iter().map(|(_, _, came)| came).collect()
}

/// When the oldest newcomer came that is in a line of this key's.
fn oldest(model: &Model, memory: &Memory, key: u64) -> Option<u32> {
    let lines = [place(key, LINES).first(), place(key, LINES).second()];
    let line = |key: u64| memory.find(key).map(|(number, _)| place(key, LINES).slot(number).0);
    let is_near = |other: &u64| line(*other).is_some_and(|line| lines.contains(&line));
    let newcomers = model.iter().filter(|(other, half)| !half.1 && is_near(other));
    newcomers.map(|(_, (_, _, came))| *came).min()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_is_a_map_that_forgets_newcomers(steps in prop::collection::vec(step(), 1..300)) {
        let memory = Memory::new(LINES, ENTRIES);
        let (mut model, mut now) = (Model::new(), UNIT * 300);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Claim { key, proved } => {
                    let body = body_of(key, number as u64);
                    let result = memory.claim(key, body, proved, now);
                    let known = model.contains_key(&key);
                    settle(&mut model, &memory);
                    match result {
                        Inserted::Taken => prop_assert!(known, "{key} was free"),
                        Inserted::Done => {
                            prop_assert!(!known);
                            model.insert(key, (body, proved, now));
                        }
                        Inserted::Full => {
                            prop_assert!(!known);
                            prop_assert!(model.len() >= 16.min(ENTRIES), "{} are no lot", model.len());
                        }
                    }
                }
                Step::Remove(key) => {
                    prop_assert_eq!(memory.remove(key), model.remove(&key).is_some());
                }
                Step::Prove(key) => {
                    let known = model.get_mut(&key).map(|half| half.1 = true).is_some();
                    prop_assert_eq!(memory.prove(key), known);
                }
                Step::PushOut(key) => {
                    let oldest = oldest(&model, &memory, key);
                    // Some tries may go by with those that have proved themselves since they came.
                    let pushed = (0..6).any(|_| memory.push_out(key, now));
                    let gone = settle(&mut model, &memory);
                    prop_assert_eq!(gone, Vec::from_iter(oldest));
                    prop_assert_eq!(pushed, oldest.is_some());
                }
                Step::Wait => now += UNIT,
            }
            for (key, (body, _, _)) in &model {
                prop_assert_eq!(memory.read(*key), Some(*body), "{}", key);
            }
            let audit = memory.audit();
            prop_assert_eq!(audit.keys, model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!((audit.free, audit.stray), (ENTRIES - model.len(), 0));
        }
    }
}
