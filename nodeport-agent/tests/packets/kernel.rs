//! The programs in the kernel, run by `BPF_PROG_TEST_RUN`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use nodeport_common::abi::{
    DatagramSet, ErrorBudget, Exit, Flow, FlowKey, Fragments, PORTS_PER_LINE, Reason,
    SLOTS_PER_LINE, SWEEP_ANY_USED, ServiceStats, SlotLine, SourceRange, SweepRequest,
    WAITING_BYTES, Waiting, maps,
};
use nodeport_common::core::env::Hook;
use nodeport_common::core::expiry::Limits;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::frames::Net;

use crate::network::OUT;
use crate::state::{EMPTY, Side, State};
use crate::table::{ENTRIES, LINES, Memory, Table};

/// A value as it lies in a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Raw<T>(T);

// SAFETY: used with the types of `abi` only, which have no padding and take every bit pattern.
unsafe impl<T: Copy + 'static> aya::Pod for Raw<T> {}

/// A value's bytes, as they lie in a map.
fn bytes_of<T: Copy + 'static>(value: &T) -> Vec<u8> {
    // SAFETY: as above: every byte is a byte of a field.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }.to_vec()
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// The program's return value.
    pub(crate) code: i32,
    /// Whether XDP has noted that it is done with the frame.
    pub(crate) done: bool,
    /// The frame.
    pub(crate) bytes: Vec<u8>,
}

/// The loaded object.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    v4: Memory,
    v6: Memory,
    exits: Vec<Exit>,
    lines: BTreeSet<u32>,
}

impl Kernel {
    pub(crate) fn new(object: &[u8]) -> Self {
        let mut loader = EbpfLoader::new();
        for name in [maps::FLOWS4, maps::FLOWS6, maps::DETAILS4, maps::DETAILS6] {
            loader.map_max_entries(name, ENTRIES);
        }
        for name in [maps::INDEX4, maps::INDEX6] {
            loader.map_max_entries(name, LINES);
        }
        let mut ebpf = loader.load(object).expect("the object loads");
        let names = ["ingress", "egress", "pod"];
        for name in names
            .iter()
            .flat_map(|hook| ["nodeport", "slow", "parts"].map(|p| format!("{p}_{hook}")))
        {
            let program: &mut SchedClassifier =
                ebpf.program_mut(&name).expect("it is there").try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for name in ["nodeport_expire", "nodeport_xdp", "slow_xdp"] {
            let program: &mut Xdp =
                ebpf.program_mut(name).expect("it is there").try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for hook in ["xdp", "ingress", "egress", "pod"] {
            link(&mut ebpf, &format!("jump_{hook}"), 0, &format!("slow_{hook}"));
        }
        for hook in names {
            link(&mut ebpf, &format!("jump_{hook}"), 1, &format!("parts_{hook}"));
        }
        let xdp: &mut Xdp =
            ebpf.program_mut("nodeport_xdp").expect("it is there").try_into().unwrap();
        // A test run on an interface wants receive queues, which a veth has with XDP only.
        xdp.attach_to_if_index(OUT, XdpMode::Driver).expect("veth takes native XDP");
        let (v4, v6) = (Memory::new(&ebpf, 4), Memory::new(&ebpf, 6));
        Self { ebpf, v4, v6, exits: Vec::new(), lines: BTreeSet::new() }
    }

    fn map(&self, name: &str) -> &Map {
        self.ebpf.map(name).unwrap_or_else(|| panic!("{name}: no such map"))
    }

    fn map_mut(&mut self, name: &str) -> &mut Map {
        self.ebpf.map_mut(name).unwrap_or_else(|| panic!("{name}: no such map"))
    }

    /// The table of one family.
    pub(crate) fn table<F: Net>(&self) -> Table<'_, F> {
        Table::new(if F::VERSION == 4 { &self.v4 } else { &self.v6 })
    }

    /// Empties both tables. Of each, only so many entries and lines are in use from now on.
    pub(crate) fn clear_tables(&self, entries: u32, lines: u32) {
        self.v4.clear(entries, lines);
        self.v6.clear(entries, lines);
    }

    /// Empties what packets have written.
    pub(crate) fn clear(&mut self) {
        self.clear_tables(ENTRIES, LINES);
        let cpus = aya::util::nr_cpus().expect("the number of processors");
        let mut counters: PerCpuArray<_, u64> = self.map_mut(maps::COUNTERS).try_into().unwrap();
        for reason in Reason::ALL {
            let zeros = PerCpuValues::try_from(vec![0; cpus]).unwrap();
            counters.set(*reason as u32, zeros, 0).unwrap();
        }
        let mut budget: PerCpuArray<_, Raw<ErrorBudget>> =
            self.map_mut(maps::ERROR_BUDGET).try_into().unwrap();
        let empty = vec![Raw(ErrorBudget::default()); cpus];
        budget.set(0, PerCpuValues::try_from(empty).unwrap(), 0).unwrap();
        self.clear_fragments();
        let mut stats: PerCpuArray<_, Raw<ServiceStats>> =
            self.map_mut(maps::SERVICE_STATS).try_into().unwrap();
        for service in 0..=EMPTY {
            let zeros = vec![Raw(ServiceStats::default()); cpus];
            stats.set(service, PerCpuValues::try_from(zeros).unwrap(), 0).unwrap();
        }
    }

    /// Forgets all fragments. The limits are those of a host's world, but for the time, whose clock
    /// stands still there.
    fn clear_fragments(&mut self) {
        let mut settings: Array<_, Raw<Fragments>> =
            self.map_mut(maps::FRAGMENTS).try_into().unwrap();
        let (sets, waiting) = (maps::DATAGRAM_SETS as u32, maps::WAITING_FRAMES as u32);
        let limits = Fragments { seed: 1, sets, waiting, timeout: 1 << 30, ..Fragments::default() };
        settings.set(0, Raw(limits), 0).unwrap();
        self.clear_datagrams::<[u8; 4]>(maps::DATAGRAMS4);
        self.clear_datagrams::<[u8; 16]>(maps::DATAGRAMS6);
        let mut frames: Array<_, Raw<Waiting>> = self.map_mut(maps::WAITING).try_into().unwrap();
        let none =
            Waiting { ticket: 0, previous: 0, since: 0, length: 0, frame: [0; WAITING_BYTES] };
        for place in 0..waiting {
            frames.set(place, Raw(none), 0).unwrap();
        }
    }

    fn clear_datagrams<A: Copy + Default + 'static>(&mut self, name: &str) {
        let mut sets: Array<_, Raw<DatagramSet<A>>> = self.map_mut(name).try_into().unwrap();
        for set in 0..sets.len() {
            sets.set(set, Raw(DatagramSet::default()), 0).unwrap();
        }
    }

    /// Fills the maps that the agent writes.
    pub(crate) fn fill(&mut self, state: &State) {
        let mut control: Array<_, Raw<_>> = self.map_mut(maps::CONTROL).try_into().unwrap();
        control.set(0, Raw(state.control), 0).unwrap();
        let mut slots: Array<_, Raw<SlotLine>> = self.map_mut(maps::SLOTS).try_into().unwrap();
        for (index, line) in state.slots.chunks(SLOTS_PER_LINE).enumerate() {
            let mut whole = [u32::MAX; SLOTS_PER_LINE];
            whole[..line.len()].copy_from_slice(line);
            slots.set(index as u32, Raw(whole), 0).unwrap();
        }
        self.fill_ports(&state.ports);
        self.exits.clone_from(&state.exits);
        let mut exits: Array<_, Raw<Exit>> = self.map_mut(maps::EXITS).try_into().unwrap();
        for (index, exit) in state.exits.iter().enumerate() {
            exits.set(index as u32, Raw(*exit), 0).unwrap();
        }
        let mut devices: HashMap<_, u32, Raw<_>> = self.map_mut(maps::DEVICES).try_into().unwrap();
        for (index, device) in &state.devices {
            devices.insert(index, Raw(*device), 0).unwrap();
        }
        self.fill_side::<V4>(&state.v4);
        self.fill_side::<V6>(&state.v6);
    }

    fn fill_ports(&mut self, ports: &BTreeMap<u16, u8>) {
        let mut lines: BTreeMap<u32, [u8; PORTS_PER_LINE]> =
            std::mem::take(&mut self.lines).into_iter().map(|line| (line, [0; _])).collect();
        for (port, bits) in ports {
            let (line, place) = (*port as usize / PORTS_PER_LINE, *port as usize % PORTS_PER_LINE);
            lines.entry(line as u32).or_insert([0; _])[place] |= bits;
        }
        let mut map: Array<_, Raw<[u8; PORTS_PER_LINE]>> =
            self.map_mut(maps::PORTS).try_into().unwrap();
        for (index, line) in &lines {
            map.set(*index, Raw(*line), 0).unwrap();
        }
        self.lines = lines.into_keys().collect();
    }

    fn fill_side<F: Net>(&mut self, side: &Side<F::Addr>) {
        let name = |what: &str| format!("{what}{}", F::VERSION);
        let map = self.map_mut(&name("frontends"));
        let mut frontends: HashMap<_, Raw<_>, Raw<_>> = map.try_into().unwrap();
        empty(&mut frontends);
        for (key, frontend) in &side.frontends {
            frontends.insert(Raw(*key), Raw(*frontend), 0).unwrap();
        }
        let map = self.map_mut(&name("ranges"));
        let mut ranges: LpmTrie<_, Raw<_>, u32> = map.try_into().unwrap();
        for (range, bits) in &side.ranges {
            let key = Key::new(SourceRange::<F::Addr>::SERVICE_BITS + bits, Raw(*range));
            ranges.insert(&key, 1, 0).unwrap();
        }
        let map = self.map_mut(&name("backends"));
        let mut backends: Array<_, Raw<_>> = map.try_into().unwrap();
        for (index, backend) in side.backends.iter().enumerate() {
            backends.set(index as u32, Raw(*backend), 0).unwrap();
        }
        let map = self.map_mut(&name("node_addrs"));
        let mut addresses: HashMap<_, Raw<F::Addr>, u32> = map.try_into().unwrap();
        empty(&mut addresses);
        for (address, bits) in &side.addresses {
            addresses.insert(Raw(*address), bits, 0).unwrap();
        }
    }

    /// Runs the program of a hook on a frame, as one of the outer interface. `None` if the kernel
    /// does not take such a frame for a test.
    pub(crate) fn run(&self, hook: Hook, frame: &[u8], gso_size: u16) -> Option<Ran> {
        let (name, context) = match hook {
            Hook::Xdp => ("nodeport_xdp", xdp_context(frame.len())),
            Hook::Ingress => ("nodeport_ingress", skb_context(gso_size)),
            Hook::Egress => ("nodeport_egress", skb_context(gso_size)),
            Hook::Pod => ("nodeport_pod", skb_context(gso_size)),
        };
        let mut context_out = context.clone();
        let mut bytes = vec![0; frame.len() + 512];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut bytes),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::new()
        };
        let program = self.ebpf.program(name).expect("it is there");
        let result = match hook {
            Hook::Xdp => <&Xdp>::try_from(program).unwrap().test_run(options),
            _ => <&SchedClassifier>::try_from(program).unwrap().test_run(options),
        };
        let result = match result {
            Ok(result) => result,
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32) =>
            {
                return None;
            }
            Err(error) => panic!("{name} on {} bytes: {error:?}", frame.len()),
        };
        bytes.truncate(result.data_size_out as usize);
        // What XDP wrote before the frame comes out with it.
        let meta = if hook == Hook::Xdp { word(&context_out, 0) as usize } else { 0 };
        let done = bytes[..meta] == *b"done";
        assert!(done || meta == 0, "{:?} before the frame", &bytes[..meta]);
        Some(Ran { code: result.return_value as i32, done, bytes: bytes.split_off(meta) })
    }

    /// Runs the program that ends flows over so many entries from `first` on; returns how many it
    /// has ended.
    pub(crate) fn sweep<F: Net>(&self, first: u32, count: u32, limits: Limits) -> u32 {
        self.sweep_and_tell::<F>(first, count, limits) & !SWEEP_ANY_USED
    }

    /// The same, with what it says of the entries.
    pub(crate) fn sweep_and_tell<F: Net>(&self, first: u32, count: u32, limits: Limits) -> u32 {
        let family = u32::from(F::VERSION);
        self.sweep_with(&bytes_of(&SweepRequest { family, first, count, limits }))
    }

    /// The same, with a request that may be wrong.
    pub(crate) fn sweep_with(&self, request: &[u8]) -> u32 {
        let options = TestRunOptions { data_in: Some(request), ..TestRunOptions::new() };
        let program = self.ebpf.program("nodeport_expire").expect("it is there");
        <&Xdp>::try_from(program).unwrap().test_run(options).expect("it runs").return_value
    }

    /// The TC program of a hook.
    pub(crate) fn classifier(&self, hook: Hook) -> BorrowedFd<'_> {
        let name = if hook == Hook::Egress { "nodeport_egress" } else { "nodeport_ingress" };
        let program = self.ebpf.program(name).expect("it is there");
        <&SchedClassifier>::try_from(program).unwrap().fd().unwrap().as_fd()
    }

    /// All halves.
    pub(crate) fn flows<F: Net>(&self) -> BTreeMap<FlowKey<F::Addr>, Flow<F::Addr>> {
        self.table::<F>().halves(&self.exits)
    }

    /// All counters that are not zero.
    pub(crate) fn counters(&self) -> BTreeMap<Reason, u64> {
        let counters: PerCpuArray<_, u64> = self.map(maps::COUNTERS).try_into().unwrap();
        let sum =
            |reason: &Reason| -> u64 { counters.get(&(*reason as u32), 0).unwrap().iter().sum() };
        Reason::ALL.iter().map(|reason| (*reason, sum(reason))).filter(|(_, n)| *n > 0).collect()
    }

    /// Counters of all services that are not zero.
    pub(crate) fn stats(&self) -> BTreeMap<u32, ServiceStats> {
        let map: PerCpuArray<_, Raw<ServiceStats>> =
            self.map(maps::SERVICE_STATS).try_into().unwrap();
        let sum = |service: u32| {
            let mut sum = ServiceStats::default();
            for Raw(cpu) in map.get(&service, 0).unwrap().iter() {
                let ServiceStats { opened, no_backend, no_port, table_full, denied } = cpu;
                sum.opened += opened;
                sum.no_backend += no_backend;
                sum.no_port += no_port;
                sum.table_full += table_full;
                sum.denied += denied;
            }
            (service, sum)
        };
        (0..=EMPTY).map(sum).filter(|(_, stats)| *stats != ServiceStats::default()).collect()
    }
}

/// Tells the programs where what is not routine goes.
fn link(ebpf: &mut Ebpf, map: &str, index: u32, program: &str) {
    let program = ebpf.program(program).expect("it is there");
    let fd = program.fd().expect("it is loaded").try_clone().expect("a descriptor");
    let mut jump: ProgramArray<_> = ebpf.map_mut(map).expect("it is there").try_into().unwrap();
    jump.set(index, &fd, 0).expect("the program fits");
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// `struct xdp_md`: begin and end of the data, metadata, interface, queue, egress interface.
fn xdp_context(length: usize) -> Vec<u8> {
    [0, length as u32, 0, OUT, 0, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

/// `struct __sk_buff`; only the interface and the size of segments are given.
pub(crate) fn skb_context(gso_size: u16) -> Vec<u8> {
    let mut bytes = vec![0; 192];
    bytes[40..44].copy_from_slice(&OUT.to_ne_bytes());
    bytes[176..180].copy_from_slice(&u32::from(gso_size).to_ne_bytes());
    bytes
}

/// Jiffies (low 32 bits), the clock of the programs.
pub(crate) fn jiffies() -> u32 {
    let text = std::fs::read_to_string("/proc/timer_list").expect("needs root");
    let jiffies = text.lines().find_map(|line| line.strip_prefix("jiffies: "));
    jiffies.expect("a line of jiffies").parse::<u64>().expect("a number") as u32
}

/// Removes all that tests before have written.
fn empty<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<&mut aya::maps::MapData, K, V>) {
    let keys: Vec<K> = map.keys().map(Result::unwrap).collect();
    keys.iter().for_each(|key| map.remove(key).unwrap());
}
