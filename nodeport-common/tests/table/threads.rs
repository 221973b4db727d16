//! Several threads at once on a few keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nodeport_common::core::env::Inserted;

use crate::memory::body_of;
use crate::memory::on_host::Memory;

const THREADS: u64 = 4;
const STEPS: u64 = 60_000;

/// Random enough: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

fn work(memory: &Memory, number: u64, keys: u64, done: &AtomicUsize) {
    let mut random = Random(0x9e37_79b9 + number);
    for step in 0..STEPS {
        let key = 1 + random.next() % keys;
        match random.next() % 10 {
            0..4 => {
                let body = body_of(key, number << 24 | step);
                let proved = random.next().is_multiple_of(4);
                let now = step as u32;
                if memory.claim(key, body, proved, now) == Inserted::Done {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            4..7 => {
                memory.remove(key);
            }
            7 => {
                memory.prove(key);
            }
            8 if step % 16 == 0 => memory.sweep(),
            8 if step % 2 == 0 => {
                memory.forget_hop(random.next() as usize);
            }
            8 => {
                if let Some(found) = memory.find(key) {
                    memory.set_hop(found.handle(), body_of(key, 1 + step % 99));
                }
            }
            _ => {
                for body in [memory.read(key), memory.read_likely(key)].into_iter().flatten() {
                    assert_eq!(body, body_of(key, body & 0xffff_ffff), "another's body");
                }
                assert!(memory.hop(key).is_none_or(|(hop, _)| hop >> 32 == key), "another's way");
            }
        }
    }
}

fn together(lines: u32, entries: usize, keys: u64) {
    let (memory, done) = (Memory::new(lines, entries), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (memory, done) = (&memory, &done);
            scope.spawn(move || work(memory, number, keys, done));
        }
    });
    let audit = memory.audit();
    assert_eq!(audit.keys.len() + audit.free + audit.stray, entries);
    assert!(done.into_inner() > STEPS as usize / 100, "hardly anything was claimed");
}

#[test]
fn a_few_keys() {
    together(2, 64, 4);
}

#[test]
fn more_keys_than_slots() {
    together(2, 64, 100);
}

#[test]
fn more_keys_than_entries() {
    together(16, 20, 100);
}
