//! The table of flows in its maps.

use core::sync::atomic::{Ordering, compiler_fence};

use nodeport_common::abi::{
    Addr4, Addr6, EXIT_BITS, FLOW_UDP, Flow, FlowDetails, FlowEntry, FlowEntry4, FlowEntry6,
    FlowKey, FlowState, Heap, IndexLine, NextHop,
};
use nodeport_common::core::env::{FlowRef, Inserted, Step, Stepped};
use nodeport_common::core::family::{Family, V4, V6};
use nodeport_common::core::state;
use nodeport_common::core::table::half::{self, key_hash};
use nodeport_common::core::table::slot::{Place, Slot};
use nodeport_common::core::table::status::Status;
use nodeport_common::core::table::{self, Entry, Line, Store, Word};

use crate::maps;

/// How often a status that others change as well is tried to be changed.
const TRIES: u32 = 4;

/// A word in a map.
#[derive(Clone, Copy)]
pub(crate) struct MapWord(*mut u64);

impl Word for MapWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the pointer is into an element of an array map, which lives as long as the
        // program; words are aligned, so that they are read as a whole.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn swap(&self, old: u64, new: u64) -> bool {
        use core::intrinsics::{AtomicOrdering, atomic_cxchg};
        const SEQUENTIAL: AtomicOrdering = AtomicOrdering::SeqCst;
        // SAFETY: as in `load`.
        let (found, _) = unsafe { atomic_cxchg::<u64, SEQUENTIAL, SEQUENTIAL>(self.0, old, new) };
        found == old
    }
}

/// A line of the index.
#[derive(Clone, Copy)]
pub(crate) struct MapLine(*mut IndexLine);

impl Line for MapLine {
    #[inline(always)]
    fn slot(self, place: usize) -> impl Word {
        // SAFETY: the place is below the number of slots of a line.
        MapWord(unsafe { self.0.cast::<u64>().add(place & 7) })
    }

    /// Two bytes of the slot, which lie where the tag does on little-endian machines.
    #[inline(always)]
    fn tag(self, place: usize) -> u16 {
        // SAFETY: as above.
        unsafe { self.0.cast::<u16>().add((place & 7) * 4 + 2).read_volatile() }
    }
}

/// An entry.
pub(crate) struct MapEntry<A, P>(*mut FlowEntry<A, P>);

impl<A, P> Clone for MapEntry<A, P> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<A, P> Copy for MapEntry<A, P> {}

impl<A, P> MapEntry<A, P> {
    /// The word of [`Status`].
    #[inline(always)]
    fn status_word(self) -> MapWord {
        // SAFETY: the field begins at a multiple of 8 and the word does not reach beyond `flags`.
        MapWord(unsafe { (&raw mut (*self.0).epoch).cast() })
    }

    #[inline(always)]
    fn load_status(self) -> Status {
        Status::from_word(self.status_word().load())
    }
}

/// What a family's table lies in.
pub(crate) trait InMaps: Operations {
    type Pad: Default + Copy;
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

/// The table of one family.
pub(crate) struct Table<F>(core::marker::PhantomData<F>);

impl<F> Clone for Table<F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<F> Copy for Table<F> {}

/// An entry as the table has it.
pub(crate) struct Of<F: InMaps> {
    entry: MapEntry<F::Addr, F::Pad>,
    number: u32,
}

impl<F: InMaps> Entry for Of<F> {
    type Key = FlowKey<F::Addr>;
    type Body = Flow<F::Addr>;

    #[inline(always)]
    fn has_key(&self, key: &FlowKey<F::Addr>) -> bool {
        let entry = self.entry.0;
        // SAFETY: the entry is an element of an array map; every bit pattern is a value.
        let (ports, flags) = unsafe { ((*entry).ports.word(), (*entry).flags) };
        // SAFETY: as above.
        let (src, dst) = unsafe { (&raw const (*entry).src, &raw const (*entry).dst) };
        ports == key.ports.word()
            && half::protocol(flags) == key.protocol
            && F::same(src, &key.src)
            && F::same(dst, &key.dst)
    }

    /// The status, which lies in the middle, is left alone.
    #[inline(always)]
    fn write(&self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) {
        let entry = self.entry.0;
        // SAFETY: no slot names the entry, and it is ours: others read it at most to see that its
        // version is another.
        unsafe {
            (*entry).src = key.src;
            (*entry).dst = key.dst;
            (*entry).ports = key.ports;
            (*entry).new_ports = flow.new_ports;
            (*entry).new_src = flow.new_src;
            (*entry).new_dst = flow.new_dst;
            (*entry).address_diff = flow.address_diff;
            (*entry).port_diff = flow.port_diff;
            (*entry).backend = half::backend_word(flow.backend, flow.generation);
            (*entry).dst_mac = flow.hop.dst_mac;
            (*entry).exit = half::exit_word(&flow.hop);
            (*entry).last_seen = flow.last_seen;
            (*entry).packets = flow.packets as u32;
            (*entry).bytes = flow.bytes;
        }
        if let Some(details) = F::details(self.number) {
            // SAFETY: as above.
            unsafe { *details = FlowDetails { service: flow.service, created: flow.created } };
        }
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn status(&self) -> impl Word {
        compiler_fence(Ordering::SeqCst);
        self.entry.status_word()
    }

    #[inline(always)]
    fn link(&self) -> u32 {
        // SAFETY: as in `has_key`.
        unsafe { (&raw const (*self.entry.0).backend).read_volatile() }
    }

    #[inline(always)]
    fn set_link(&self, link: u32) {
        // SAFETY: the entry is free and ours.
        unsafe { (&raw mut (*self.entry.0).backend).write_volatile(link) };
        compiler_fence(Ordering::SeqCst);
    }
}

impl<F: InMaps> Store for Table<F> {
    type Key = FlowKey<F::Addr>;
    type Body = Flow<F::Addr>;

    #[inline(always)]
    fn heap(&self) -> Option<impl Word> {
        // SAFETY: the field is a word of its own.
        F::heap().map(|heap| MapWord(unsafe { &raw mut (*heap).first }))
    }

    #[inline(always)]
    fn line(&self, number: u32) -> Option<impl Line> {
        F::line(number).map(MapLine)
    }

    #[inline(always)]
    fn entry(&self, number: u32) -> Option<impl Entry<Key = Self::Key, Body = Self::Body>> {
        F::entry(number).map(|entry| Of::<F> { entry: MapEntry(entry), number })
    }

    #[inline(always)]
    fn names(self, slot: Slot, key: &Self::Key) -> bool {
        F::names(slot, key)
    }

    #[inline(always)]
    fn push_out(self, place: Place, now: u32) -> u32 {
        F::push_out(place, now)
    }

    #[inline(always)]
    fn allocate(self) -> u32 {
        F::allocate()
    }

    #[inline(always)]
    fn retire(self, slot: Slot) {
        F::retire(slot);
    }

    #[inline(always)]
    fn age(self, place: Place, number: u32, now: u32) -> u32 {
        F::age(place, number, now)
    }

    #[inline(always)]
    fn evict(self, place: Place, number: u32) -> bool {
        F::evict(place, number)
    }
}

impl<F: InMaps> Table<F> {
    pub(crate) const THIS: Self = Self(core::marker::PhantomData);

    #[inline(always)]
    fn place(key: &FlowKey<F::Addr>) -> Option<Place> {
        let heap = F::heap()?;
        // SAFETY: the agent has written both before any program ran, and changes neither.
        let (seed, lines) = unsafe { ((*heap).seed, (*heap).lines) };
        Some(Place::new(key_hash::<F>(key, seed), lines))
    }

    /// What lies in the entry of that number now; `None` beyond the last.
    #[inline(always)]
    pub(crate) fn at(number: u32) -> Option<MapFlow<F>> {
        let entry = MapEntry(F::entry(number)?);
        Some(MapFlow { entry, number, version: entry.load_status().version })
    }

    /// Looks a half up where it is likely.
    #[inline(always)]
    pub(crate) fn flow(self, key: &FlowKey<F::Addr>) -> Option<MapFlow<F>> {
        let slot = table::likely(self, Self::place(key)?)?;
        let number = slot.entry();
        let entry = Of::<F> { entry: MapEntry(F::entry(number)?), number };
        table::is_of(&entry, slot, key).then_some(MapFlow {
            entry: entry.entry,
            number,
            version: slot.version(),
        })
    }

    /// Looks a half up in all its places.
    #[inline(always)]
    fn search(self, key: &FlowKey<F::Addr>) -> Option<MapFlow<F>> {
        Self::of(Slot::from_word(F::search(key)))
    }

    #[inline(always)]
    fn of(slot: Slot) -> Option<MapFlow<F>> {
        let number = slot.entry();
        let entry = MapEntry(F::entry(number)?);
        Some(MapFlow { entry, number, version: slot.version() })
    }
}

/// There is no such half.
const GONE: u32 = 0xff;
/// The half's state stays as it is.
const SAME: u32 = 0xfe;

/// The operations that are long, as functions that the kernel verifies once, not at every call
/// ("global" ones): what they are given may be anything that has the right size.
macro_rules! operations {
    ($family:ty, $addr:ty, $read:ident, $step:ident, $merge:ident, $search:ident, $claim:ident, $remove:ident, $names:ident,
     $push_out:ident, $age:ident, $evict:ident, $allocate:ident, $retire:ident) => {
        /// See [`table::names`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $names(slot: u64, key: *const FlowKey<$addr>) -> u32 {
            // SAFETY: the kernel has checked that it is null or a key.
            let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
            table::names(Table::<$family>::THIS, Slot::from_word(slot), key) as u32
        }

        /// See [`table::push_out`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $push_out(place: u64, now: u32) -> u32 {
            table::push_out(Table::<$family>::THIS, Place::from_word(place), now)
        }

        /// See [`table::allocate`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $allocate() -> u32 {
            table::allocate(Table::<$family>::THIS)
        }

        /// See [`table::retire`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $retire(slot: u64) -> u32 {
            table::retire(Table::<$family>::THIS, Slot::from_word(slot));
            0
        }

        /// See [`table::age`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $age(place: u64, number: u32, now: u32) -> u32 {
            table::age(Table::<$family>::THIS, Place::from_word(place), number, now)
        }

        /// See [`table::evict`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $evict(place: u64, number: u32) -> u32 {
            table::evict(Table::<$family>::THIS, Place::from_word(place), number) as u32
        }

        /// Looks in all places of a key: the slot's word, 0 if there is none.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $search(key: *const FlowKey<$addr>) -> u64 {
            // SAFETY: the kernel has checked that it is null or a key.
            let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
            let Some(place) = Table::<$family>::place(key) else { return 0 };
            table::find(Table::<$family>::THIS, key, place).map_or(0, |(_, slot)| slot.word())
        }

        /// Reads all of a half: 1 if there is one.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $read(key: *const FlowKey<$addr>, to: *mut Flow<$addr>) -> u32 {
            // SAFETY: as above.
            let (Some(key), Some(to)) = (unsafe { key.as_ref() }, unsafe { to.as_mut() }) else {
                return 0;
            };
            match Table::<$family>::THIS.search(key) {
                Some(half) => half.read_into(to) as u32,
                None => 0,
            }
        }

        /// Takes a half one step further: [`GONE`], [`SAME`], or the state that it is in.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $step(
            key: *const FlowKey<$addr>,
            now: u32,
            bytes: u32,
            hop: *const NextHop,
            state: u32,
        ) -> u32 {
            // SAFETY: as above.
            let Some(key) = (unsafe { key.as_ref() }) else { return GONE };
            let Some(mut half) = Table::<$family>::THIS.search(key) else { return GONE };
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

        /// Merges a half's state: [`GONE`], or the state that it is in.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $merge(key: *const FlowKey<$addr>, state: u32) -> u32 {
            // SAFETY: as above.
            let Some(key) = (unsafe { key.as_ref() }) else { return GONE };
            let Some(half) = Table::<$family>::THIS.search(key) else { return GONE };
            half.merge_state(FlowState::from_u8(state as u8)).map_or(GONE, |state| state as u32)
        }

        /// See [`table::claim`]: 0 if it is done, 1 if the key is taken, 2 if there is no room.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $claim(
            key: *const FlowKey<$addr>,
            flow: *const Flow<$addr>,
            now: u32,
        ) -> u32 {
            // SAFETY: as above.
            let (Some(key), Some(flow)) = (unsafe { key.as_ref() }, unsafe { flow.as_ref() })
            else {
                return 2;
            };
            let Some(place) = Table::<$family>::place(key) else { return 2 };
            let status = half::status(flow, key.protocol);
            match table::claim(Table::<$family>::THIS, key, flow, place, status, now) {
                Inserted::Done => 0,
                Inserted::Taken => 1,
                Inserted::Full => 2,
            }
        }

        /// See [`table::remove`]: 1 if it was there.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $remove(key: *const FlowKey<$addr>) -> u32 {
            // SAFETY: as above.
            let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
            let Some(place) = Table::<$family>::place(key) else { return 0 };
            table::remove(Table::<$family>::THIS, key, place) as u32
        }

        impl Operations for $family {
            #[inline(always)]
            fn search(key: &FlowKey<$addr>) -> u64 {
                $search(key)
            }

            #[inline(always)]
            fn read(key: &FlowKey<$addr>, to: &mut Flow<$addr>) -> bool {
                $read(key, to) != 0
            }

            #[inline(always)]
            fn step(key: &FlowKey<$addr>, step: Step<'_>) -> Stepped {
                let hop = step.hop.map_or(core::ptr::null(), core::ptr::from_ref);
                let state = step.state.map_or(SAME, |state| state as u32);
                match $step(key, step.now, step.bytes, hop, state) {
                    GONE => Stepped::Gone,
                    SAME => Stepped::Done,
                    state => Stepped::Merged(FlowState::from_u8(state as u8)),
                }
            }

            #[inline(always)]
            fn merge(key: &FlowKey<$addr>, to: FlowState) -> Option<FlowState> {
                match $merge(key, to as u32) {
                    GONE => None,
                    state => Some(FlowState::from_u8(state as u8)),
                }
            }

            #[inline(always)]
            fn claim(key: &FlowKey<$addr>, flow: &Flow<$addr>, now: u32) -> Inserted {
                match $claim(key, flow, now) {
                    0 => Inserted::Done,
                    1 => Inserted::Taken,
                    _ => Inserted::Full,
                }
            }

            #[inline(always)]
            fn remove(key: &FlowKey<$addr>) -> bool {
                $remove(key) != 0
            }

            #[inline(always)]
            fn names(slot: Slot, key: &FlowKey<$addr>) -> bool {
                $names(slot.word(), key) != 0
            }

            #[inline(always)]
            fn push_out(place: Place, now: u32) -> u32 {
                $push_out(place.word(), now)
            }

            #[inline(always)]
            fn allocate() -> u32 {
                $allocate()
            }

            #[inline(always)]
            fn retire(slot: Slot) {
                $retire(slot.word());
            }

            #[inline(always)]
            fn age(place: Place, number: u32, now: u32) -> u32 {
                $age(place.word(), number, now)
            }

            #[inline(always)]
            fn evict(place: Place, number: u32) -> bool {
                $evict(place.word(), number) != 0
            }
        }
    };
}
operations!(
    V4,
    Addr4,
    flow4_read,
    flow4_step,
    flow4_merge,
    flow4_search,
    flow4_claim,
    flow4_remove,
    flow4_names,
    flow4_push_out,
    flow4_age,
    flow4_evict,
    flow4_allocate,
    flow4_retire
);
operations!(
    V6,
    Addr6,
    flow6_read,
    flow6_step,
    flow6_merge,
    flow6_search,
    flow6_claim,
    flow6_remove,
    flow6_names,
    flow6_push_out,
    flow6_age,
    flow6_evict,
    flow6_allocate,
    flow6_retire
);

/// The long operations of a family's table.
pub(crate) trait Operations: Family {
    /// Looks in all places of a key: the slot's word, 0 if there is none.
    fn search(key: &FlowKey<Self::Addr>) -> u64;
    /// Reads all of a half; false if there is none.
    fn read(key: &FlowKey<Self::Addr>, to: &mut Flow<Self::Addr>) -> bool;
    /// Takes a half one step further.
    fn step(key: &FlowKey<Self::Addr>, step: Step<'_>) -> Stepped;
    /// Puts a half into a state, merged with its own.
    fn merge(key: &FlowKey<Self::Addr>, to: FlowState) -> Option<FlowState>;
    /// Puts a half into the table, if its key is free.
    fn claim(key: &FlowKey<Self::Addr>, flow: &Flow<Self::Addr>, now: u32) -> Inserted;
    /// Removes a half, if it is there.
    fn remove(key: &FlowKey<Self::Addr>) -> bool;
    /// See [`table::names`].
    fn names(slot: Slot, key: &FlowKey<Self::Addr>) -> bool;
    /// See [`table::push_out`].
    fn push_out(place: Place, now: u32) -> u32;
    /// See [`table::allocate`].
    fn allocate() -> u32;
    /// See [`table::retire`].
    fn retire(slot: Slot);
    /// See [`table::age`].
    fn age(place: Place, number: u32, now: u32) -> u32;
    /// See [`table::evict`].
    fn evict(place: Place, number: u32) -> bool;
}

/// A half in its entry.
pub(crate) struct MapFlow<F: InMaps> {
    entry: MapEntry<F::Addr, F::Pad>,
    number: u32,
    version: u16,
}

impl<F: InMaps> MapFlow<F> {
    /// Whether a half lies here. If none does, but the entry is in no list, it is put into that
    /// of the free ones; if the half's next hop is of another epoch than `epoch`, it is forgotten.
    #[inline(always)]
    pub(crate) fn take_up_or_refresh(&self, epoch: u16) -> bool {
        let word = self.entry.status_word();
        let old = word.load();
        let status = Status::from_word(old);
        if !status.is_live() {
            table::take_up(Table::<F>::THIS, self.number);
            return false;
        }
        if status.epoch != epoch && status.epoch != 0 {
            // If it changes in this instant, the next sweep sees it.
            word.swap(old, Status { epoch: 0, ..status }.word());
        }
        true
    }

    /// Whether a half lies here, or ever did.
    #[inline(always)]
    pub(crate) fn was_used(&self) -> bool {
        let status = self.entry.load_status();
        status.version != 0 || status.state != 0
    }

    /// The half's protocol.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        half::protocol(self.entry.load_status().flags)
    }

    /// Copies all of it; false if it ends in this instant.
    #[inline(always)]
    fn read_into(&self, to: &mut Flow<F::Addr>) -> bool {
        *to = self.copy();
        if let Some(details) = F::details(self.number) {
            // SAFETY: as in `copy`.
            unsafe { (to.service, to.created) = ((*details).service, (*details).created) };
        }
        self.is_intact()
    }

    #[inline(always)]
    fn merge_state(&self, to: FlowState) -> Option<FlowState> {
        let word = self.entry.status_word();
        for _ in 0..TRIES {
            let old = word.load();
            let status = Status::from_word(old);
            if status.version != self.version || !status.is_live() {
                return None;
            }
            let merged = state::merge(status.flow_state(), to);
            if word.swap(old, status.with_state(merged).word()) {
                return Some(merged);
            }
        }
        None
    }

    /// Gives the half another next hop, unless it has ended.
    #[inline(always)]
    fn set_hop(&self, hop: &NextHop) {
        let entry = self.entry.0;
        if !self.is_intact() {
            return;
        }
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&hop.dst_mac);
        bytes[6..].copy_from_slice(&half::exit_word(hop).to_ne_bytes());
        // SAFETY: as in `copy`; eight bytes at a multiple of eight. Who reads them with the old
        // epoch looks the way up as well.
        unsafe {
            (&raw mut (*entry).dst_mac).cast::<u64>().write_volatile(u64::from_ne_bytes(bytes));
        }
        let word = self.entry.status_word();
        for _ in 0..TRIES {
            let old = word.load();
            let status = Status::from_word(old);
            // If the entry was given to another half in between, that one looks its way up again.
            let (epoch, mtu) =
                if status.version == self.version { (hop.epoch, hop.mtu) } else { (0, status.mtu) };
            if word.swap(old, Status { epoch, mtu, ..status }.word()) {
                return;
            }
        }
    }

    /// Copies the half's key; false if it ends in this instant.
    #[inline(always)]
    pub(crate) fn key_into(&self, key: &mut FlowKey<F::Addr>) -> bool {
        let entry = self.entry.0;
        // SAFETY: as in `copy`.
        unsafe {
            *key = FlowKey::new((*entry).src, (*entry).dst, (*entry).ports, self.protocol());
        }
        self.is_intact()
    }

    #[inline(always)]
    fn is_intact(&self) -> bool {
        compiler_fence(Ordering::SeqCst);
        self.entry.load_status().version == self.version
    }

    /// What lies there, whole or not.
    #[inline(always)]
    fn copy(&self) -> Flow<F::Addr> {
        let status = self.entry.load_status();
        compiler_fence(Ordering::SeqCst);
        let entry = self.entry.0;
        // SAFETY: the entry is an element of an array map, and every bit pattern is a value.
        let exit = unsafe { (*entry).exit };
        let (ifindex, src_mac) = exit_of(exit & ((1 << EXIT_BITS) - 1));
        // SAFETY: as above.
        let hop = NextHop {
            ifindex,
            dst_mac: unsafe { (*entry).dst_mac },
            src_mac,
            mtu: status.mtu,
            epoch: status.epoch,
            exit: exit & ((1 << EXIT_BITS) - 1),
            kind: (exit >> EXIT_BITS) as u8,
            pad: 0,
        };
        // SAFETY: as above.
        let backend = unsafe { (*entry).backend };
        // SAFETY: as above.
        unsafe {
            Flow {
                new_src: (*entry).new_src,
                new_dst: (*entry).new_dst,
                new_ports: (*entry).new_ports,
                address_diff: (*entry).address_diff,
                port_diff: (*entry).port_diff,
                hop,
                backend: backend & ((1 << nodeport_common::abi::BACKEND_BITS) - 1),
                generation: backend >> nodeport_common::abi::BACKEND_BITS,
                service: 0,
                last_seen: (*entry).last_seen,
                created: 0,
                state: status.state.wrapping_sub(1),
                flags: status.flags & !FLOW_UDP,
                pad: 0,
                packets: (*entry).packets as u64,
                bytes: (*entry).bytes,
            }
        }
    }
}

#[inline(always)]
fn exit_of(index: u16) -> (u32, [u8; 6]) {
    match maps::EXITS.get(index as u32) {
        Some(exit) => (exit.ifindex, exit.mac),
        None => (0, [0; 6]),
    }
}

impl<F: InMaps> FlowRef<F::Addr> for MapFlow<F> {
    #[inline(always)]
    fn read(&self) -> Option<Flow<F::Addr>> {
        let flow = self.copy();
        self.is_intact().then_some(flow)
    }

    #[inline(always)]
    fn touch(&mut self, now: u32, bytes: u32) {
        let entry = self.entry.0;
        // SAFETY: as in `copy`. A count that another CPU adds in the same instant may be lost, as
        // one may be added to a half that was given the entry a moment ago: statistics can bear
        // both, and a lock they cannot.
        unsafe {
            (*entry).last_seen = now;
            (*entry).packets = (*entry).packets.wrapping_add(1);
            (*entry).bytes = (*entry).bytes.wrapping_add(bytes as u64);
        }
    }
}
