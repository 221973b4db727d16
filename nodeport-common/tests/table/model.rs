//! One processor, held against an ordered map.

use std::collections::BTreeMap;

use nodeport_common::core::env::Inserted;
use nodeport_common::core::table::NEARBY;
use nodeport_common::core::table::slot::Place;
use proptest::prelude::*;

use crate::memory::on_host::Memory;
use crate::memory::{UNIT, body_of};

/// Lines and entries: either may run out before the other.
const SHAPES: [(u32, usize); 4] = [(1, 20), (2, 24), (4, 24), (16, 10)];
/// Keys.
const KEYS: u64 = 60;

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

/// Lines of the index.
fn lines(place: Place) -> [u32; 2] {
    [place.first(), place.second()]
}

/// A newcomer: its key, its line, when it came.
type Newcomer = (u64, u32, u32);

fn newcomers(model: &Model, memory: &Memory) -> Vec<Newcomer> {
    let newcomers = model.iter().filter(|(_, (_, proved, _))| !proved);
    let with_line = newcomers.map(|(key, (_, _, came))| {
        let (number, _) = memory.find(*key).expect("it was there");
        (*key, memory.place(*key).slot(number).0, *came)
    });
    with_line.collect()
}

/// When the oldest newcomer came that is in a line of this place.
fn oldest(newcomers: &[Newcomer], place: Place) -> Option<u32> {
    let near = newcomers.iter().filter(|(_, line, _)| lines(place).contains(line));
    near.map(|(_, _, came)| *came).min()
}

/// Takes out of the model what is not in the table any more: newcomers alone may have gone. Those
/// that went, of the ones that there were.
fn settle(model: &mut Model, memory: &Memory, before: &[Newcomer]) -> Vec<Newcomer> {
    let gone: Vec<u64> = model.keys().copied().filter(|key| memory.read(*key).is_none()).collect();
    for key in &gone {
        let (_, proved, _) = model.remove(key).expect("it was there");
        assert!(!proved, "{key} had proved itself");
    }
    let gone: Vec<_> = before.iter().copied().filter(|half| gone.contains(&half.0)).collect();
    // One for its entry, one for its slot.
    assert!(gone.len() <= 2, "{gone:?} are too many");
    gone
}

/// Whether there is a place, this or one nearby, where each that went came first.
fn came_first(gone: &[Newcomer], before: &[Newcomer], place: Place) -> bool {
    gone.iter().all(|(_, line, came)| {
        let nearby = (0..NEARBY).map(|distance| place.nearby(distance));
        nearby
            .filter(|place| lines(*place).contains(line))
            .any(|place| oldest(before, place) == Some(*came))
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
        let (mut model, mut now) = (Model::new(), UNIT * 300);
        for (number, step) in steps.into_iter().enumerate() {
            let before = newcomers(&model, &memory);
            match step {
                Step::Claim { key, proved } => {
                    let body = body_of(key, number as u64);
                    let result = memory.claim(key, body, proved, now);
                    let known = model.contains_key(&key);
                    let gone = settle(&mut model, &memory, &before);
                    prop_assert!(came_first(&gone, &before, memory.place(key)), "{gone:?}");
                    match result {
                        Inserted::Taken => prop_assert!(known, "{key} was free"),
                        Inserted::Done => {
                            prop_assert!(!known);
                            model.insert(key, (body, proved, now));
                        }
                        Inserted::Full => {
                            prop_assert!(!known);
                            let slots = if lines == 1 { 8 } else { 16 };
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
                    let oldest = oldest(&before, memory.place(key));
                    // Some tries may go by with those that have proved themselves since they came.
                    let pushed = (0..6).any(|_| memory.push_out(key, now));
                    let gone = settle(&mut model, &memory, &before);
                    prop_assert_eq!(gone.first().map(|half| half.2), oldest);
                    prop_assert!(gone.len() <= 1);
                    prop_assert_eq!(pushed, oldest.is_some());
                }
                Step::Wait => now += UNIT,
            }
            for (key, (body, _, _)) in &model {
                prop_assert_eq!(memory.read(*key), Some(*body), "{}", key);
                let likely = memory.read_likely(*key);
                prop_assert!(likely.is_none_or(|likely| likely == *body), "{}: {:?}", key, likely);
            }
            let audit = memory.audit();
            prop_assert_eq!(audit.keys, model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!((audit.free, audit.stray), (entries - model.len(), 0));
        }
    }
}
