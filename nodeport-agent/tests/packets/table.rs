//! The kernel's table of flows, through memory that is shared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::Map;
use memmap2::{MmapOptions, MmapRaw};
use nodeport_common::abi::{
    Exit, Flow, FlowDetails, FlowEntry, FlowKey, Heap, IndexLine, NextHop, SLOTS_OF_LINE,
};
use nodeport_common::core::env::Inserted;
use nodeport_common::core::rewrite::has_addresses;
use nodeport_common::core::table::half::{self, key_hash};
use nodeport_common::core::table::slot::{Place, Slot};
use nodeport_common::core::table::status::{FREE, STRAY, Status};
use nodeport_common::core::table::{self, Entry, Line, Store, Whose, Word};
use nodeport_common::frames::Net;

/// Halves in each table.
pub(crate) const ENTRIES: u32 = 8_192;
/// Lines of each index.
pub(crate) const LINES: u32 = 1_024;
/// Key of the hash.
const SEED: u64 = 0x1234_5678_9abc_def1;

/// An entry without what fills its cache lines.
type Half<A> = FlowEntry<A, [u64; 0]>;

/// The arrays of one family.
pub(crate) struct Memory {
    /// Which element of the heap.
    family: usize,
    heap: MmapRaw,
    index: MmapRaw,
    flows: MmapRaw,
    details: MmapRaw,
    /// Bytes from one entry to the next.
    stride: usize,
}

impl Memory {
    pub(crate) fn new(ebpf: &Ebpf, version: u8) -> Self {
        let map = |name: &str, bytes: usize| {
            let Some(Map::Array(map)) = ebpf.map(name) else { panic!("{name}: no such array") };
            MmapOptions::new()
                .len(bytes)
                .map_raw(map.fd().as_fd().as_raw_fd())
                .unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let (family, stride) = if version == 4 { (0, 64) } else { (1, 128) };
        Self {
            family,
            heap: map("heap", 2 * size_of::<Heap>()),
            index: map(&format!("index{version}"), LINES as usize * size_of::<IndexLine>()),
            flows: map(&format!("flows{version}"), ENTRIES as usize * stride),
            details: map(&format!("details{version}"), ENTRIES as usize * size_of::<FlowDetails>()),
            stride,
        }
    }

    fn heap(&self) -> *mut Heap {
        // SAFETY: the map has two elements.
        unsafe { self.heap.as_mut_ptr().cast::<Heap>().add(self.family) }
    }

    /// Empties the table. All but the last `entries` entries, and the first `lines` lines, is out
    /// of use from now on. No program may run meanwhile.
    pub(crate) fn clear(&self, entries: u32, lines: u32) {
        assert!(entries <= ENTRIES && lines <= LINES && lines.is_power_of_two());
        for memory in [&self.index, &self.flows, &self.details] {
            // SAFETY: all zero is a value of each element, and nobody else uses them now.
            unsafe { memory.as_mut_ptr().write_bytes(0, memory.len()) };
        }
        let (first, lines) = (u64::from(ENTRIES - entries), lines - 1);
        let heap = Heap { first, seed: SEED, lines, entries: ENTRIES, ..Heap::default() };
        // SAFETY: as above.
        unsafe { self.heap().write_volatile(heap) };
    }
}

/// A word that is shared with the kernel.
#[derive(Clone, Copy)]
struct Shared<'a, T = AtomicU64>(&'a T);

macro_rules! word {
    ($bits:ty, $shared:ty) => {
        impl Word<$bits> for Shared<'_, $shared> {
            fn load(&self) -> $bits {
                self.0.load(Ordering::SeqCst)
            }

            fn swap(&self, old: $bits, new: $bits) -> bool {
                self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            }
        }
    };
}
word!(u32, AtomicU32);
word!(u64, AtomicU64);

#[derive(Clone, Copy)]
struct SharedLine<'a>(&'a [AtomicU32; SLOTS_OF_LINE]);

impl Line for SharedLine<'_> {
    fn slot(self, at: usize) -> impl Word<u32> {
        Shared(&self.0[at])
    }
}

/// The table of one family. It can be changed while programs run, as they do it themselves.
pub(crate) struct Table<'a, F> {
    memory: &'a Memory,
    family: PhantomData<F>,
}

impl<F> Clone for Table<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<F> Copy for Table<'_, F> {}

struct SharedEntry<'a, A> {
    entry: *mut Half<A>,
    details: *mut FlowDetails,
    status: Shared<'a>,
}

impl<A: Copy + PartialEq> Entry for SharedEntry<'_, A> {
    type Key = FlowKey<A>;
    type Body = Flow<A>;
    type Hop = NextHop;

    fn has_key(&self, key: &FlowKey<A>) -> bool {
        // SAFETY: every bit pattern is a value; what is torn is told by the version.
        let entry = unsafe { self.entry.read_volatile() };
        (entry.src, entry.dst, entry.ports) == (key.src, key.dst, key.ports)
            && half::protocol(entry.flags) == key.protocol
    }

    fn write(&self, key: &FlowKey<A>, flow: &Flow<A>, version: u16) {
        // SAFETY: as in `has_key`; the entry is ours, and so is its status.
        unsafe {
            let mut entry = self.entry.read_volatile();
            half::put(&mut entry, key, flow);
            self.entry.write_volatile(entry);
            self.details.write_volatile(half::details(flow, version));
        }
    }

    fn write_hop(&self, hop: &NextHop) {
        // SAFETY: as in `has_key`; whoever calls it holds the half.
        unsafe {
            (&raw mut (*self.entry).dst_mac).write_volatile(hop.dst_mac);
            (&raw mut (*self.entry).exit).write_volatile(half::exit_word(hop));
        }
    }

    fn let_go(&self, epoch: u16, mtu: u16) {
        // SAFETY: as in `write_hop`.
        unsafe {
            (&raw mut (*self.entry).mtu).write_volatile(mtu);
            (&raw mut (*self.entry).epoch).write_volatile(epoch);
        }
    }

    fn last_seen(&self) -> u32 {
        // SAFETY: as in `has_key`.
        unsafe { (&raw const (*self.entry).last_seen).read_volatile() }
    }

    fn status(&self) -> impl Word {
        Shared(self.status.0)
    }

    fn link(&self) -> u32 {
        // SAFETY: as in `has_key`.
        unsafe { (&raw const (*self.entry).backend).read_volatile() }
    }

    fn set_link(&self, link: u32) {
        // SAFETY: as in `write`.
        unsafe { (&raw mut (*self.entry).backend).write_volatile(link) }
    }
}

impl<F: Net> Store for Table<'_, F> {
    type Key = FlowKey<F::Addr>;
    type Body = Flow<F::Addr>;

    fn heap(&self) -> Option<impl Word> {
        // SAFETY: the field is an aligned word, and lives as long as the mapping.
        Some(Shared(unsafe { AtomicU64::from_ptr(&raw mut (*self.memory.heap()).first) }))
    }

    fn line(&self, number: u32) -> Option<impl Line> {
        let lines = self.memory.index.as_mut_ptr().cast::<[AtomicU32; SLOTS_OF_LINE]>();
        // SAFETY: it is one of the lines, which live as long as the mapping.
        (number < LINES).then(|| SharedLine(unsafe { &*lines.add(number as usize) }))
    }

    fn entry(&self, number: u32) -> Option<impl Entry<Key = Self::Key, Body = Self::Body>> {
        self.shared_entry(number)
    }
}

impl<'a, F: Net> Table<'a, F> {
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self { memory, family: PhantomData }
    }

    fn shared_entry(self, number: u32) -> Option<SharedEntry<'a, F::Addr>> {
        if number >= ENTRIES {
            return None;
        }
        let offset = number as usize * self.memory.stride;
        // SAFETY: it is one of the entries; the status is an aligned word of it.
        unsafe {
            let entry = self.memory.flows.as_mut_ptr().add(offset).cast::<Half<F::Addr>>();
            let status = Shared(AtomicU64::from_ptr((&raw mut (*entry).epoch).cast()));
            let details = self.memory.details.as_mut_ptr().cast::<FlowDetails>();
            Some(SharedEntry { entry, details: details.add(number as usize), status })
        }
    }

    /// Where a key may be.
    pub(crate) fn place(self, key: &FlowKey<F::Addr>) -> Place {
        // SAFETY: only `clear` writes to it.
        let heap = unsafe { self.memory.heap().read_volatile() };
        Place::new(key_hash::<F>(key, heap.seed), heap.lines)
    }

    /// Takes a half out; whether it was there.
    pub(crate) fn remove(self, key: &FlowKey<F::Addr>) -> bool {
        let place = self.place(key);
        let found = table::find(self, key, place);
        found.is_some_and(|found| table::remove(self, place, found.handle(), Whose::All))
    }

    /// Puts a half in, at `now` by the kernel's clock.
    pub(crate) fn claim(self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, now: u32) -> Inserted {
        let status = half::status(flow, key.protocol);
        table::claim(self, key, flow, self.place(key), status, now).0
    }

    /// The slots of a line.
    pub(crate) fn slots(self, line: u32) -> [Slot; SLOTS_OF_LINE] {
        let line = self.line(line).expect("a line");
        std::array::from_fn(|place| Slot::from_word(line.slot(place).load()))
    }

    /// Makes the half of a key one that was silent for so many jiffies more.
    pub(crate) fn make_older(self, key: &FlowKey<F::Addr>, jiffies: u32) {
        let found = table::find(self, key, self.place(key)).expect("it is there");
        let entry = self.shared_entry(found.slot.entry()).expect("an entry").entry;
        // SAFETY: an aligned word of an entry, which no program touches now.
        unsafe {
            let last_seen = &raw mut (*entry).last_seen;
            last_seen.write_volatile(last_seen.read_volatile().wrapping_sub(jiffies));
        }
    }

    fn status(self, number: u32) -> Status {
        Status::from_word(self.shared_entry(number).expect("an entry").status.load())
    }

    /// The half in an entry.
    fn half(self, number: u32) -> (FlowKey<F::Addr>, Flow<F::Addr>) {
        let entry = self.shared_entry(number).expect("an entry");
        // SAFETY: every bit pattern is a value.
        unsafe { half::unpack(&entry.entry.read_volatile(), &entry.details.read_volatile()) }
    }

    /// All halves, with their ways out as `exits` has them.
    pub(crate) fn halves(self, exits: &[Exit]) -> BTreeMap<FlowKey<F::Addr>, Flow<F::Addr>> {
        let live = (0..ENTRIES).filter(|number| self.status(*number).is_live());
        let mut halves = BTreeMap::new();
        for (key, mut flow) in live.map(|number| self.half(number)) {
            let exit = exits[usize::from(flow.hop.exit)];
            flow.hop.ifindex = exit.ifindex;
            if has_addresses(flow.hop.kind) {
                flow.hop.src_mac = exit.mac;
            }
            assert_eq!(halves.insert(key, flow), None, "{key:?} is in two entries");
        }
        halves
    }

    /// Looks whether the table is whole. `entries`: how many are in use at most.
    pub(crate) fn audit(self, entries: u32) -> Audit {
        let named = self.audit_slots();
        let free = self.free();
        let mut audit = Audit { free: free.len(), ..Audit::default() };
        for number in ENTRIES - entries..ENTRIES {
            let status = self.status(number);
            if status.is_live() {
                assert!(named.contains(&number), "no slot names entry {number}, {status:?}");
                audit.live += 1;
            } else if status.state == STRAY {
                assert!(!free.contains(&number), "entry {number} is stray and free");
                audit.stray += 1;
            } else {
                assert_eq!(status.state, FREE, "entry {number} was left on the way");
                assert!(free.contains(&number), "entry {number} is in no list");
            }
        }
        assert_eq!(audit.live, named.len(), "halves and slots");
        assert_eq!(audit.live + audit.free + audit.stray, entries as usize, "{audit:?}");
        audit
    }

    /// The entries that slots name.
    fn audit_slots(self) -> BTreeSet<u32> {
        let (mut named, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for line in 0..LINES {
            for slot in self.slots(line).into_iter().filter(|slot| !slot.is_empty()) {
                let what = format!("line {line}: {slot:?}");
                let status = self.status(slot.entry());
                assert!(status.is_live(), "{what} names {status:?}");
                let (key, _) = self.half(slot.entry());
                let place = self.place(&key);
                assert!([place.first(), place.second()].contains(&line), "{what} of {place:?}");
                assert!(slot.has_tag(place.tag()), "{what} of {place:?}");
                assert!(named.insert(slot.entry()), "{what}: another names the entry");
                assert!(keys.insert(key), "{what}: another has its key");
            }
        }
        named
    }

    /// The list of free entries.
    fn free(self) -> BTreeSet<u32> {
        let mut free = BTreeSet::new();
        let mut number = self.heap().expect("a heap").load() as u32;
        while let Some(entry) = self.shared_entry(number) {
            assert_eq!(self.status(number).state, FREE, "entry {number} in the list");
            assert!(free.insert(number), "entry {number} is in the list twice");
            number = number.wrapping_add(1).wrapping_add(entry.link());
        }
        assert_eq!(number, ENTRIES, "the list ends behind the last entry");
        free
    }
}

/// How many entries are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    pub(crate) live: usize,
    pub(crate) free: usize,
    pub(crate) stray: usize,
}
