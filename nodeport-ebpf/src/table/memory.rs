//! Words, lines and entries where they lie in the maps.

use core::sync::atomic::{Ordering, compiler_fence};

use nodeport_common::abi::{
    Exit, Flow, FlowDetails, FlowEntry, FlowEntry4, FlowEntry6, FlowKey, Heap, IndexLine, NextHop,
    SLOTS_OF_LINE,
};
use nodeport_common::core::family::{Family, V4, V6};
use nodeport_common::core::table::half;
use nodeport_common::core::table::status::Status;
use nodeport_common::core::table::{Entry, Line, Store, Word};

use super::Table;
use crate::maps;

/// A word in a map.
#[derive(Clone, Copy)]
pub(crate) struct MapWord<T = u64>(pub(super) *mut T);

macro_rules! word {
    ($type:ty) => {
        impl Word<$type> for MapWord<$type> {
            #[inline(always)]
            fn load(&self) -> $type {
                // SAFETY: the pointer is into an element of an array map, which lives as long as
                // the program; words are aligned, so that they are read as a whole.
                unsafe { self.0.read_volatile() }
            }

            #[inline(always)]
            fn swap(&self, old: $type, new: $type) -> bool {
                use core::intrinsics::{AtomicOrdering, atomic_cxchg};
                const SEQUENTIAL: AtomicOrdering = AtomicOrdering::SeqCst;
                // SAFETY: as in `load`.
                let (found, _) =
                    unsafe { atomic_cxchg::<$type, SEQUENTIAL, SEQUENTIAL>(self.0, old, new) };
                found == old
            }
        }
    };
}
word!(u32);
word!(u64);

/// A line of the index.
#[derive(Clone, Copy)]
pub(crate) struct MapLine(pub(super) *mut IndexLine);

impl Line for MapLine {
    #[inline(always)]
    fn slot(self, at: usize) -> impl Word<u32> {
        // SAFETY: the remainder is below the number of slots of a line.
        MapWord(unsafe { self.0.cast::<u32>().add(at % SLOTS_OF_LINE) })
    }
}

/// What a family's table lies in.
pub(crate) trait InMaps: Family {
    type Pad: Copy;
    /// The table, as the operations of `core::table` have it.
    type Table: Store<Key = FlowKey<Self::Addr>, Body = Flow<Self::Addr>>;
    const TABLE: Self::Table;
    fn heap() -> Option<*mut Heap>;
    fn line(number: u32) -> Option<*mut IndexLine>;
    fn entry(number: u32) -> Option<*mut FlowEntry<Self::Addr, Self::Pad>>;
    fn details(number: u32) -> Option<*mut FlowDetails>;
    /// Compares addresses in whole words.
    fn same(a: *const Self::Addr, b: &Self::Addr) -> bool;
}

macro_rules! in_maps {
    ($family:ty, $entry:ty, $pad:ty, $heap:expr, $index:ident, $flows:ident, $details:ident, $words:expr) => {
        impl InMaps for $family {
            type Pad = $pad;
            type Table = Table<$family>;
            const TABLE: Self::Table = Table::THIS;

            #[inline(always)]
            fn heap() -> Option<*mut Heap> {
                maps::HEAP.get_ptr_mut($heap)
            }

            #[inline(always)]
            fn line(number: u32) -> Option<*mut IndexLine> {
                maps::$index.get_ptr_mut(number)
            }

            #[inline(always)]
            fn entry(number: u32) -> Option<*mut $entry> {
                maps::$flows.get_ptr_mut(number)
            }

            #[inline(always)]
            fn details(number: u32) -> Option<*mut FlowDetails> {
                maps::$details.get_ptr_mut(number)
            }

            #[inline(always)]
            fn same(a: *const Self::Addr, b: &Self::Addr) -> bool {
                let (a, b) = (a.cast::<u32>(), (&raw const *b).cast::<u32>());
                let mut differ = 0;
                for word in 0..$words {
                    // SAFETY: both are so many words long; entries and keys align them.
                    differ |= unsafe { *a.add(word) ^ *b.add(word) };
                }
                differ == 0
            }
        }
    };
}
in_maps!(V4, FlowEntry4, [u64; 0], 0, INDEX4, FLOWS4, DETAILS4, 1);
in_maps!(V6, FlowEntry6, [u64; 2], 1, INDEX6, FLOWS6, DETAILS6, 4);

/// An entry.
pub(crate) struct MapEntry<F: InMaps> {
    pub(super) at: *mut FlowEntry<F::Addr, F::Pad>,
    pub(super) number: u32,
}

impl<F: InMaps> MapEntry<F> {
    /// The entry of that number; `None` beyond the last.
    #[inline(always)]
    pub(super) fn of(number: u32) -> Option<Self> {
        Some(Self { at: F::entry(number)?, number })
    }

    /// The word of [`Status`].
    #[inline(always)]
    pub(super) fn status_word(&self) -> MapWord {
        // SAFETY: the field begins at a multiple of 8 and the word does not reach beyond `flags`.
        MapWord(unsafe { (&raw mut (*self.at).epoch).cast() })
    }

    #[inline(always)]
    pub(super) fn load_status(&self) -> Status {
        Status::from_word(self.status_word().load())
    }

    /// The key of what lies there, whole or not.
    #[inline(always)]
    pub(super) fn key(&self) -> FlowKey<F::Addr> {
        let flags = self.load_status().flags;
        // SAFETY: the entry is an element of an array map, and every bit pattern is a value.
        half::key(unsafe { &*self.at }, flags)
    }

    /// What lies there, whole or not, without its details.
    #[inline(always)]
    pub(super) fn copy(&self) -> Flow<F::Addr> {
        let status = self.load_status();
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as in `key`.
        let entry = unsafe { &*self.at };
        half::get(entry, status, exit_of(half::exit_index(entry.exit)))
    }
}

#[inline(always)]
fn exit_of(index: u16) -> Exit {
    maps::EXITS.get(index as u32).copied().unwrap_or_default()
}

impl<F: InMaps> Entry for MapEntry<F> {
    type Key = FlowKey<F::Addr>;
    type Body = Flow<F::Addr>;
    type Hop = NextHop;

    #[inline(always)]
    fn has_key(&self, key: &FlowKey<F::Addr>) -> bool {
        let entry = self.at;
        // SAFETY: as in `key`.
        let (ports, flags) = unsafe { ((*entry).ports.word(), (*entry).flags) };
        // SAFETY: as above.
        let (src, dst) = unsafe { (&raw const (*entry).src, &raw const (*entry).dst) };
        ports == key.ports.word()
            && half::protocol(flags) == key.protocol
            && F::same(src, &key.src)
            && F::same(dst, &key.dst)
    }

    #[inline(always)]
    fn write(&self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, version: u16) {
        // SAFETY: no slot names the entry, and it is ours: others read it at most to see that its
        // version is another.
        half::put(unsafe { &mut *self.at }, key, flow);
        if let Some(details) = F::details(self.number) {
            let FlowDetails { service, created, answered, version, .. } =
                half::details(flow, version);
            let answer = FlowDetails::answer_word(answered, version);
            // SAFETY: as above. The last word is written as one, since a packet of the half before
            // may compare it in this instant.
            unsafe {
                ((*details).service, (*details).created) = (service, created);
                (&raw mut (*details).answered).cast::<u64>().write_volatile(answer);
            }
        }
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn write_hop(&self, hop: &NextHop) {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&hop.dst_mac);
        bytes[6..].copy_from_slice(&half::exit_word(hop).to_ne_bytes());
        // SAFETY: an element of an array map; eight bytes at a multiple of eight.
        unsafe {
            (&raw mut (*self.at).dst_mac).cast::<u64>().write_volatile(u64::from_ne_bytes(bytes));
        }
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn let_go(&self, epoch: u16, mtu: u16) {
        // SAFETY: as above; four bytes at a multiple of eight. Who compares and exchanges the word that
        // they are part of in this instant fails, or has done so before.
        unsafe {
            let way = epoch as u32 | (mtu as u32) << 16;
            (&raw mut (*self.at).epoch).cast::<u32>().write_volatile(way);
        }
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn last_seen(&self) -> u32 {
        // SAFETY: as in `key`.
        unsafe { (&raw const (*self.at).last_seen).read_volatile() }
    }

    #[inline(always)]
    fn status(&self) -> impl Word {
        compiler_fence(Ordering::SeqCst);
        self.status_word()
    }

    #[inline(always)]
    fn link(&self) -> u32 {
        // SAFETY: as in `key`.
        unsafe { (&raw const (*self.at).backend).read_volatile() }
    }

    #[inline(always)]
    fn set_link(&self, link: u32) {
        // SAFETY: the entry is free and ours.
        unsafe { (&raw mut (*self.at).backend).write_volatile(link) };
        compiler_fence(Ordering::SeqCst);
    }
}
