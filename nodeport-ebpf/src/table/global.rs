//! The operations that are long, as functions that the kernel verifies once and not at every call
//! ("global" ones). What they are given may be anything that has the right size; what they return
//! may be anything.

use nodeport_common::abi::{Addr4, Addr6, Flow, FlowKey, FlowState, NextHop};
use nodeport_common::core::env::{FlowRef as _, Inserted, Step, Stepped};
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::table::handle::Handle;
use nodeport_common::core::table::slot::{Place, Slot};
use nodeport_common::core::table::{self, Entry, Evicted, Line, Store, Whose, Word, half};

use super::Table;
use super::half::MapFlow;
use super::memory::{InMaps, MapEntry, MapLine, MapWord};

/// There is no such half.
const GONE: u32 = 0xff;
/// The half's state stays as it is.
const SAME: u32 = 0xfe;

/// What a number says that a claim has returned.
#[inline(always)]
fn inserted(number: u32) -> Inserted {
    const DONE: u32 = Inserted::Done as u32;
    const TAKEN: u32 = Inserted::Taken as u32;
    match number {
        DONE => Inserted::Done,
        TAKEN => Inserted::Taken,
        _ => Inserted::Full,
    }
}

macro_rules! table {
    ($family:ty, $addr:ty,
     $read:ident, $step:ident, $note:ident, $merge:ident, $search:ident, $claim:ident, $remove:ident,
     $named:ident, $yields:ident, $push_out:ident, $evict:ident, $compare:ident, $allocate:ident, $give_back:ident) => {
        /// See [`table::named`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $named(slot: u32, key: *const FlowKey<$addr>) -> u64 {
            // SAFETY: the kernel has checked that it is null or a key.
            let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
            table::named(<$family>::TABLE, Slot::from_word(slot), key)
        }

        /// See [`table::yields`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $yields(slot: u32, key: *const FlowKey<$addr>) -> u32 {
            // SAFETY: as above.
            let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
            table::yields(<$family>::TABLE, Slot::from_word(slot), key) as u32
        }

        /// See [`table::allocate`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $allocate() -> u32 {
            table::allocate(<$family>::TABLE)
        }

        /// See [`table::push_out`]: [`Evicted::word`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $push_out(place: u64, now: u32, instead: u32) -> u64 {
            let (place, instead) = (Place::from_word(place), Slot::from_word(instead));
            table::push_out(<$family>::TABLE, place, now, instead).word()
        }

        /// See [`table::evict`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $evict(place: u64, candidate: u32, instead: u32) -> u32 {
            let (place, instead) = (Place::from_word(place), Slot::from_word(instead));
            table::evict(<$family>::TABLE, place, candidate, instead)
        }

        /// See [`table::compare`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $compare(place: u64, number: u32, now: u32, found: u64) -> u64 {
            table::compare(<$family>::TABLE, Place::from_word(place), number, now, found)
        }

        /// See [`table::give_back`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $give_back(number: u32) -> u32 {
            table::give_back(<$family>::TABLE, number);
            0
        }

        /// Looks in all places of a key: [`Handle::word`] of its half.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $search(key: *const FlowKey<$addr>) -> u64 {
            // SAFETY: as above.
            let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
            let Some(place) = Table::<$family>::place(key) else { return 0 };
            let found = table::find(<$family>::TABLE, key, place);
            found.map_or(Handle::NONE, |found| found.handle()).word()
        }

        /// Reads all of a half: 1 if there is one.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $read(key: *const FlowKey<$addr>, to: *mut Flow<$addr>) -> u32 {
            // SAFETY: as above.
            let (Some(key), Some(to)) = (unsafe { key.as_ref() }, unsafe { to.as_mut() }) else {
                return 0;
            };
            match MapFlow::<$family>::of(Handle::from_word($search(key))) {
                Some(half) => half.read_into(to) as u32,
                None => 0,
            }
        }

        /// Takes the half of a handle one step further: [`GONE`], [`SAME`], or the state that it is
        /// in. `state` is the one that it comes to, or [`SAME`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $step(
            half: u64,
            now: u32,
            bytes: u32,
            hop: *const NextHop,
            state: u32,
        ) -> u32 {
            let Some(mut half) = MapFlow::<$family>::of(Handle::from_word(half)) else {
                return GONE;
            };
            if !half.is_intact() {
                return GONE;
            }
            half.touch(now, bytes);
            // SAFETY: as above.
            if let Some(hop) = unsafe { hop.as_ref() } {
                half.set_hop(hop);
            }
            if state == SAME {
                return SAME;
            }
            half.merge_state(FlowState::from_u8(state as u8)).map_or(GONE, |state| state as u32)
        }

        /// See [`MapFlow::note_answer`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $note(half: u64, answered: u32) -> u32 {
            if let Some(half) = MapFlow::<$family>::of(Handle::from_word(half)) {
                half.note_answer(answered);
            }
            0
        }

        /// Merges the state of a handle's half: [`GONE`], or the state that it is in.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $merge(half: u64, state: u32) -> u32 {
            let Some(half) = MapFlow::<$family>::of(Handle::from_word(half)) else { return GONE };
            half.merge_state(FlowState::from_u8(state as u8)).map_or(GONE, |state| state as u32)
        }

        /// See [`table::claim`]: an [`Inserted`] as a number. Which half it is then is noted in
        /// `flow`.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $claim(key: *const FlowKey<$addr>, flow: *mut Flow<$addr>, now: u32) -> u32 {
            // SAFETY: as above.
            let (Some(key), Some(flow)) = (unsafe { key.as_ref() }, unsafe { flow.as_mut() })
            else {
                return Inserted::Full as u32;
            };
            let Some(place) = Table::<$family>::place(key) else { return Inserted::Full as u32 };
            let status = half::status(flow, key.protocol);
            let (inserted, half) = table::claim(<$family>::TABLE, key, flow, place, status, now);
            half.note_in(flow);
            inserted as u32
        }

        /// See [`table::remove`], of all or, if not 0, of newcomers: 1 if it was there.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $remove(key: *const FlowKey<$addr>, half: u64, newcomers: u32) -> u32 {
            // SAFETY: as above.
            let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
            let Some(place) = Table::<$family>::place(key) else { return 0 };
            let whose = if newcomers == 0 { Whose::All } else { Whose::Newcomers };
            table::remove(<$family>::TABLE, place, Handle::from_word(half), whose) as u32
        }

        impl Store for Table<$family> {
            type Key = FlowKey<$addr>;
            type Body = Flow<$addr>;

            #[inline(always)]
            fn heap(&self) -> Option<impl Word> {
                // SAFETY: the field is a word of its own.
                <$family>::heap().map(|heap| MapWord(unsafe { &raw mut (*heap).first }))
            }

            #[inline(always)]
            fn line(&self, number: u32) -> Option<impl Line> {
                <$family>::line(number).map(MapLine)
            }

            #[inline(always)]
            fn entry(&self, number: u32) -> Option<impl Entry<Key = Self::Key, Body = Self::Body>> {
                MapEntry::<$family>::of(number)
            }

            #[inline(always)]
            fn named(self, slot: Slot, key: &Self::Key) -> u64 {
                $named(slot.word(), key)
            }

            #[inline(always)]
            fn yields(self, slot: Slot, key: &Self::Key) -> bool {
                $yields(slot.word(), key) != 0
            }

            #[inline(always)]
            fn allocate(self) -> u32 {
                $allocate()
            }

            #[inline(always)]
            fn push_out(self, place: Place, now: u32, instead: Slot) -> Evicted {
                Evicted::from_word($push_out(place.word(), now, instead.word()))
            }

            #[inline(always)]
            fn evict(self, place: Place, candidate: u32, instead: Slot) -> u32 {
                $evict(place.word(), candidate, instead.word())
            }

            #[inline(always)]
            fn compare(self, place: Place, number: u32, now: u32, found: u64) -> u64 {
                $compare(place.word(), number, now, found)
            }

            #[inline(always)]
            fn give_back(self, number: u32) {
                $give_back(number);
            }
        }

        impl Table<$family> {
            /// Reads all of a half; false if there is none.
            #[inline(always)]
            pub(crate) fn read(key: &FlowKey<$addr>, to: &mut Flow<$addr>) -> bool {
                $read(key, to) != 0
            }

            /// Takes a half one step further.
            #[inline(always)]
            pub(crate) fn step(half: Handle, step: Step<'_>) -> Stepped {
                let hop = step.hop.map_or(core::ptr::null(), core::ptr::from_ref);
                let state = step.state.map_or(SAME, |state| state as u32);
                match $step(half.word(), step.now, step.bytes, hop, state) {
                    GONE => Stepped::Gone,
                    SAME => Stepped::Done,
                    state => Stepped::Merged(FlowState::from_u8(state as u8)),
                }
            }

            /// Notes by which number the client acknowledges the backend's SYN.
            #[inline(always)]
            pub(crate) fn note_answer(half: Handle, answered: u32) {
                $note(half.word(), answered);
            }

            /// Puts a half into a state, merged with its own.
            #[inline(always)]
            pub(crate) fn merge(half: Handle, to: FlowState) -> Option<FlowState> {
                match $merge(half.word(), to as u32) {
                    GONE => None,
                    state => Some(FlowState::from_u8(state as u8)),
                }
            }

            /// Puts a half into the table, if its key is free.
            #[inline(always)]
            pub(crate) fn claim(
                key: &FlowKey<$addr>,
                flow: &mut Flow<$addr>,
                now: u32,
            ) -> Inserted {
                inserted($claim(key, flow, now))
            }

            /// Removes a half, if it is there.
            #[inline(always)]
            pub(crate) fn remove(key: &FlowKey<$addr>, half: Handle) -> bool {
                $remove(key, half.word(), 0) != 0
            }

            /// Removes a half, if it is there and a newcomer.
            #[inline(always)]
            pub(crate) fn remove_newcomer(key: &FlowKey<$addr>, half: Handle) -> bool {
                $remove(key, half.word(), 1) != 0
            }
        }
    };
}
table!(
    V4,
    Addr4,
    flow4_read,
    flow4_step,
    flow4_note,
    flow4_merge,
    flow4_search,
    flow4_claim,
    flow4_remove,
    flow4_named,
    flow4_yields,
    flow4_push_out,
    flow4_evict,
    flow4_compare,
    flow4_allocate,
    flow4_give_back
);
table!(
    V6,
    Addr6,
    flow6_read,
    flow6_step,
    flow6_note,
    flow6_merge,
    flow6_search,
    flow6_claim,
    flow6_remove,
    flow6_named,
    flow6_yields,
    flow6_push_out,
    flow6_evict,
    flow6_compare,
    flow6_allocate,
    flow6_give_back
);
