//! The table of flows in the host's memory, with keys and bodies of one word.
//!
//! The kernel's programs run on processors whose plain loads and stores are never reordered with
//! each other but for a store and a later load (x86's total store order): a load is `Acquire`
//! here, a store `Release`, a compare-exchange `SeqCst` between two fences, as it is a full barrier
//! there (loom takes `SeqCst` for `AcqRel` but in fences).
//!
//! Of a free entry the link lies where of a live one the body does: whoever reads a body must be
//! told if it has read a link.

use nodeport_common::abi::{FLOW_PROVED, FLOW_SETTLED, FlowState};
use nodeport_common::core::table::slot::{Place, Slot};
use nodeport_common::core::table::status::{STRAY, Status};

/// The status of a newcomer, or of one that has proved itself.
pub(crate) fn status(proved: bool) -> Status {
    let (state, flags) = if proved {
        (FlowState::Established, FLOW_PROVED | FLOW_SETTLED)
    } else {
        (FlowState::Opening, 0)
    };
    Status { epoch: 7, mtu: 1_500, version: 0, state: state as u8 + 1, flags }
}

/// Tags: so few that many keys share one.
const TAGS: u64 = 5;

/// The place of a key among so many lines: keys are few, so their hash may be simple.
pub(crate) fn place(key: u64, lines: u32) -> Place {
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    // The bits above tell its home in a line.
    Place::new(hash & !(0x1ff << 40) | (key % TAGS) << 40, lines - 1)
}

/// The slot of a half that has proved itself, whose tag is no key's here.
fn stranger() -> Slot {
    Slot::new(1 << 20, TAGS as u32)
}

/// The body that goes with a key: nobody else's.
pub(crate) fn body_of(key: u64, generation: u64) -> u64 {
    key << 32 | generation
}

/// What became of all entries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Keys that can be found, in order.
    pub(crate) keys: Vec<u64>,
    pub(crate) free: usize,
    pub(crate) stray: usize,
}

/// Whether a status is that of an entry that no list holds.
pub(crate) fn is_stray(word: u64) -> bool {
    Status::from_word(word).state == STRAY
}

/// Defines the memory over a module with atomics and `Ordering`.
macro_rules! memory {
    ($($atomic:tt)+) => {
        use $($atomic)+::{AtomicU32, AtomicU64, Ordering, fence};
        use nodeport_common::abi::SLOTS_OF_LINE;
        use nodeport_common::core::table::handle::Handle;
        use nodeport_common::core::table::slot::Slot;
        use nodeport_common::core::table::status::Status;
        use nodeport_common::core::table::{self, Entry, Found, Line, Store, Whose, Word};
        use nodeport_common::core::env::Inserted;
        use super::{Audit, is_stray, place, status, stranger};

        #[derive(Clone, Copy)]
        pub(crate) struct Shared<'a, T>(&'a T);

        macro_rules! word {
            ($bits:ty, $shared:ty) => {
                impl Word<$bits> for Shared<'_, $shared> {
                    fn load(&self) -> $bits {
                        self.0.load(Ordering::Acquire)
                    }

                    fn swap(&self, old: $bits, new: $bits) -> bool {
                        fence(Ordering::SeqCst);
                        let found =
                            self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
                        fence(Ordering::SeqCst);
                        found.is_ok()
                    }
                }
            };
        }
        word!(u32, AtomicU32);
        word!(u64, AtomicU64);

        /// A slot; `None` of one that is a stranger's and stays so.
        #[derive(Clone, Copy)]
        pub(crate) struct SharedSlot<'a>(Option<&'a AtomicU32>);

        impl Word<u32> for SharedSlot<'_> {
            fn load(&self) -> u32 {
                self.0.map_or_else(|| stranger().word(), |slot| Shared(slot).load())
            }

            fn swap(&self, old: u32, new: u32) -> bool {
                self.0.is_some_and(|slot| Shared(slot).swap(old, new))
            }
        }

        /// A line of the index; slots that it does not have are strangers'.
        #[derive(Clone, Copy)]
        pub(crate) struct SharedLine<'a>(&'a [AtomicU32]);

        impl Line for SharedLine<'_> {
            fn slot(self, at: usize) -> impl Word<u32> {
                SharedSlot(self.0.get(at))
            }
        }

        #[derive(Default)]
        pub(crate) struct Cell {
            key: AtomicU64,
            body: AtomicU64,
            hop: AtomicU64,
            last_seen: AtomicU32,
            status: AtomicU64,
        }

        impl Entry for &Cell {
            type Key = u64;
            type Body = (u64, u32);
            type Hop = u64;

            fn has_key(&self, key: &u64) -> bool {
                self.key.load(Ordering::Acquire) == *key
            }

            fn write(&self, key: &u64, (body, last_seen): &(u64, u32), _: u16) {
                self.key.store(*key, Ordering::Release);
                self.body.store(*body, Ordering::Release);
                self.hop.store(*body, Ordering::Release);
                self.last_seen.store(*last_seen, Ordering::Release);
            }

            fn write_hop(&self, hop: &u64) {
                self.hop.store(*hop, Ordering::Release);
            }

            /// Of the status word these bits alone: nobody else changes them while the half is held.
            fn let_go(&self, epoch: u16, mtu: u16) {
                let word = |epoch, mtu| Status { epoch, mtu, ..Status::from_word(0) };
                let held = word(0, 0).held().word();
                self.status.fetch_xor(held ^ word(epoch, mtu).word(), Ordering::AcqRel);
            }

            fn last_seen(&self) -> u32 {
                self.last_seen.load(Ordering::Acquire)
            }

            fn status(&self) -> impl Word {
                Shared(&self.status)
            }

            fn link(&self) -> u32 {
                self.body.load(Ordering::Acquire) as u32
            }

            fn set_link(&self, link: u32) {
                self.body.store(link.into(), Ordering::Release);
            }
        }

        /// The arrays.
        pub(crate) struct Memory {
            heap: AtomicU64,
            lines: Vec<Vec<AtomicU32>>,
            entries: Vec<Cell>,
        }

        impl Store for &Memory {
            type Key = u64;
            type Body = (u64, u32);

            fn heap(&self) -> Option<impl Word> {
                Some(Shared(&self.heap))
            }

            fn line(&self, number: u32) -> Option<impl Line> {
                self.lines.get(number as usize).map(|line| SharedLine(line))
            }

            fn entry(&self, number: u32) -> Option<impl Entry<Key = u64, Body = (u64, u32)>> {
                self.entries.get(number as usize)
            }
        }

        impl Memory {
            pub(crate) fn new(lines: u32, entries: usize) -> Self {
                Self::crowded(lines, entries, SLOTS_OF_LINE)
            }

            /// One in which all but the first `slots` slots of a line are those of strangers that stay.
            pub(crate) fn crowded(lines: u32, entries: usize, slots: usize) -> Self {
                let line = |_| (0..slots).map(|_| AtomicU32::new(0)).collect();
                Self {
                    heap: AtomicU64::new(0),
                    lines: (0..lines).map(line).collect(),
                    entries: (0..entries).map(|_| Cell::default()).collect(),
                }
            }

            pub(crate) fn place(&self, key: u64) -> table::slot::Place {
                place(key, self.lines.len() as u32)
            }

            pub(crate) fn claim(&self, key: u64, body: u64, proved: bool, now: u32) -> Inserted {
                self.claimed(key, body, proved, now).0
            }

            /// The same, and which half it is.
            pub(crate) fn claimed(
                &self,
                key: u64,
                body: u64,
                proved: bool,
                now: u32,
            ) -> (Inserted, Handle) {
                table::claim(self, &key, &(body, now), self.place(key), status(proved), now)
            }

            /// Removes whatever half of the key is found.
            pub(crate) fn remove(&self, key: u64) -> bool {
                self.find(key).is_some_and(|found| self.remove_half(key, found.handle()))
            }

            /// Removes this half.
            pub(crate) fn remove_half(&self, key: u64, half: Handle) -> bool {
                table::remove(self, self.place(key), half, Whose::All)
            }

            pub(crate) fn remove_newcomer(&self, key: u64) -> bool {
                let place = self.place(key);
                self.find(key).is_some_and(|found| {
                    table::remove(self, place, found.handle(), Whose::Newcomers)
                })
            }

            /// As a packet reads a half: slot, status, body, and the version once more.
            pub(crate) fn read(&self, key: u64) -> Option<u64> {
                let found = self.find(key)?;
                self.body(found.slot, found.status)
            }

            /// The same where the key is likely to be.
            pub(crate) fn read_likely(&self, key: u64) -> Option<u64> {
                let slot = table::likely(self, self.place(key))?;
                let status = table::holds(&self.entries.get(slot.entry() as usize)?, &key)?;
                self.body(slot, status)
            }

            fn body(&self, slot: Slot, status: Status) -> Option<u64> {
                let cell = &self.entries[slot.entry() as usize];
                let body = cell.body.load(Ordering::Acquire);
                let now = Status::from_word(cell.status.load(Ordering::Acquire));
                (now.version == status.version).then_some(body)
            }

            /// Which of a key's slots names it.
            pub(crate) fn find(&self, key: u64) -> Option<Found> {
                table::find(self, &key, self.place(key))
            }

            /// As a packet does when its flow has proved itself.
            pub(crate) fn prove(&self, key: u64) -> bool {
                let Some(Found { slot, status: old, .. }) = self.find(key) else { return false };
                let Status { state, flags, .. } = status(true);
                let word = Shared(&self.entries[slot.entry() as usize].status);
                word.swap(old.word(), Status { state, flags, ..old }.word())
            }

            /// As a packet does that has looked the half's way up again, in an epoch that is the low
            /// bits of the next hop.
            pub(crate) fn set_hop(&self, half: Handle, hop: u64) -> bool {
                let entry = &self.entries[half.entry() as usize];
                table::set_hop(&entry, half.version(), &hop, (hop as u16, 1_500))
            }

            /// The next hop of a key's half and its epoch, if it has one; as a packet reads them.
            pub(crate) fn hop(&self, key: u64) -> Option<(u64, u16)> {
                let Found { slot, status, .. } = self.find(key)?;
                let cell = &self.entries[slot.entry() as usize];
                let hop = cell.hop.load(Ordering::Acquire);
                let now = Status::from_word(cell.status.load(Ordering::Acquire));
                (now.version == status.version && status.epoch != 0).then_some((hop, status.epoch))
            }

            /// As the sweep does with halves of an old epoch. Whether it knew the way.
            pub(crate) fn forget_hop(&self, number: usize) -> bool {
                let word = Shared(&self.entries[number % self.entries.len()].status);
                let old = word.load();
                let status = Status::from_word(old);
                status.is_live()
                    && status.epoch != 0
                    && word.swap(old, Status { epoch: 0, ..status }.word())
            }

            pub(crate) fn push_out(&self, key: u64, now: u32) -> bool {
                let evicted = table::push_out(self, self.place(key), now, Slot::EMPTY);
                if evicted.entry != u32::MAX {
                    table::give_back(self, evicted.entry);
                }
                evicted.entry != u32::MAX
            }

            /// As the sweep does with entries that no list holds.
            pub(crate) fn sweep(&self) {
                for (number, cell) in (0..).zip(&self.entries) {
                    if !Status::from_word(cell.status.load(Ordering::Acquire)).is_live() {
                        table::take_up(self, number);
                    }
                }
            }

            /// Goes through all, once nothing else runs; fails if anything is lost, doubled or
            /// named wrongly.
            pub(crate) fn audit(&self) -> Audit {
                let mut seen = vec![0; self.entries.len()];
                let mut keys = Vec::new();
                for slot in self.lines.iter().flatten() {
                    let slot = Slot::from_word(slot.load(Ordering::Acquire));
                    if slot.is_empty() {
                        continue;
                    }
                    let cell = &self.entries[slot.entry() as usize];
                    let status = Status::from_word(cell.status.load(Ordering::Acquire));
                    assert!(status.is_live(), "a slot names {status:?}");
                    seen[slot.entry() as usize] += 1;
                    let key = cell.key.load(Ordering::Acquire);
                    assert!(slot.has_tag(self.place(key).tag()), "another's tag");
                    assert_eq!(cell.body.load(Ordering::Acquire) >> 32, key, "another's body");
                    keys.push(key);
                }
                keys.sort_unstable();
                let doubled = keys.windows(2).find(|pair| pair[0] == pair[1]);
                assert_eq!(doubled, None, "a key in two slots");
                let (mut free, mut next) = (0, self.heap.load(Ordering::Acquire) as u32);
                while let Some(cell) = self.entries.get(next as usize) {
                    let status = Status::from_word(cell.status.load(Ordering::Acquire));
                    assert_eq!(status.state, 0, "in the list, but not free");
                    seen[next as usize] += 1;
                    free += 1;
                    let link = cell.body.load(Ordering::Acquire) as u32;
                    next = next.wrapping_add(1).wrapping_add(link);
                    assert!(free <= self.entries.len(), "the list has a circle");
                }
                let mut stray = 0;
                for (cell, seen) in self.entries.iter().zip(&mut seen) {
                    if is_stray(cell.status.load(Ordering::Acquire)) {
                        *seen += 1;
                        stray += 1;
                    }
                }
                assert!(seen.iter().all(|count| *count == 1), "lost or doubled: {seen:?}");
                Audit { keys, free, stray }
            }
        }
    };
}

/// For threads of the host.
pub(crate) mod on_host {
    memory!(std::sync::atomic);
}

/// For loom.
pub(crate) mod in_loom {
    memory!(loom::sync::atomic);
}
