//! The maps. What each is for and how large it is stands in `nodeport_common::abi::maps`.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;
use nodeport_common::abi::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, Control, DatagramSet, Device, ErrorBudget, Exit,
    FlowDetails, FlowEntry4, FlowEntry6, Fragments, Frontend, FrontendKey, Heap, IndexLine, Load,
    PortLine, Reason, ServiceStats, SlotLine, SourceRange, Waiting, maps,
};
use nodeport_common::core::work::Work;

/// The agent reads and writes these through memory, without a system call.
const SHARED: usize = BPF_F_MMAPABLE as usize;

/// What is known of addresses. Most nodes have a few, and frontends may name thousands.
type Addresses<A> = HashMap<A, u32, { maps::NODE_ADDRESS_ENTRIES }, { BPF_F_NO_PREALLOC as usize }>;

#[btf_map(name = "heap")]
pub(crate) static HEAP: Array<Heap, 2, SHARED> = Array::new();
#[btf_map(name = "index4")]
pub(crate) static INDEX4: Array<IndexLine, { maps::INDEX_LINES }, SHARED> = Array::new();
#[btf_map(name = "index6")]
pub(crate) static INDEX6: Array<IndexLine, { maps::INDEX_LINES }, SHARED> = Array::new();
#[btf_map(name = "flows4")]
pub(crate) static FLOWS4: Array<FlowEntry4, { maps::FLOW_ENTRIES }, SHARED> = Array::new();
#[btf_map(name = "flows6")]
pub(crate) static FLOWS6: Array<FlowEntry6, { maps::FLOW_ENTRIES }, SHARED> = Array::new();
#[btf_map(name = "details4")]
pub(crate) static DETAILS4: Array<FlowDetails, { maps::FLOW_ENTRIES }, SHARED> = Array::new();
#[btf_map(name = "details6")]
pub(crate) static DETAILS6: Array<FlowDetails, { maps::FLOW_ENTRIES }, SHARED> = Array::new();
#[btf_map(name = "exits")]
pub(crate) static EXITS: Array<Exit, { maps::DEVICE_ENTRIES }, SHARED> = Array::new();
#[btf_map(name = "frontends4")]
pub(crate) static FRONTENDS4: HashMap<FrontendKey<Addr4>, Frontend, { maps::FRONTEND_ENTRIES }> =
    HashMap::new();
#[btf_map(name = "frontends6")]
pub(crate) static FRONTENDS6: HashMap<FrontendKey<Addr6>, Frontend, { maps::FRONTEND_ENTRIES }> =
    HashMap::new();
#[btf_map(name = "ranges4")]
pub(crate) static RANGES4: LpmTrie<SourceRange<Addr4>, u32, { maps::RANGE_ENTRIES }> =
    LpmTrie::new();
#[btf_map(name = "ranges6")]
pub(crate) static RANGES6: LpmTrie<SourceRange<Addr6>, u32, { maps::RANGE_ENTRIES }> =
    LpmTrie::new();
#[btf_map(name = "affinity4")]
pub(crate) static AFFINITY4: LruHashMap<AffinityKey<Addr4>, Affinity, { maps::AFFINITY_ENTRIES }> =
    LruHashMap::new();
#[btf_map(name = "affinity6")]
pub(crate) static AFFINITY6: LruHashMap<AffinityKey<Addr6>, Affinity, { maps::AFFINITY_ENTRIES }> =
    LruHashMap::new();
#[btf_map(name = "backends4")]
pub(crate) static BACKENDS4: Array<Backend<Addr4>, { maps::BACKEND_ENTRIES }, SHARED> =
    Array::new();
#[btf_map(name = "backends6")]
pub(crate) static BACKENDS6: Array<Backend<Addr6>, { maps::BACKEND_ENTRIES }, SHARED> =
    Array::new();
#[btf_map(name = "loads4")]
pub(crate) static LOADS4: Array<Load, { maps::BACKEND_ENTRIES }, SHARED> = Array::new();
#[btf_map(name = "loads6")]
pub(crate) static LOADS6: Array<Load, { maps::BACKEND_ENTRIES }, SHARED> = Array::new();
#[btf_map(name = "slots")]
pub(crate) static SLOTS: Array<SlotLine, { maps::SLOT_LINES }, SHARED> = Array::new();
#[btf_map(name = "node_addrs4")]
pub(crate) static NODE_ADDRS4: Addresses<Addr4> = HashMap::new();
#[btf_map(name = "node_addrs6")]
pub(crate) static NODE_ADDRS6: Addresses<Addr6> = HashMap::new();
#[btf_map(name = "devices")]
pub(crate) static DEVICES: HashMap<u32, Device, { maps::DEVICE_ENTRIES }> = HashMap::new();
#[btf_map(name = "ports")]
pub(crate) static PORTS: Array<PortLine, { maps::PORT_LINES }, SHARED> = Array::new();
#[btf_map(name = "control")]
pub(crate) static CONTROL: Array<Control, 1, SHARED> = Array::new();
#[btf_map(name = "jump_xdp")]
pub(crate) static JUMP_XDP: ProgramArray<1> = ProgramArray::new();
#[btf_map(name = "jump_ingress")]
pub(crate) static JUMP_INGRESS: ProgramArray<2> = ProgramArray::new();
#[btf_map(name = "jump_egress")]
pub(crate) static JUMP_EGRESS: ProgramArray<2> = ProgramArray::new();
#[btf_map(name = "jump_pod")]
pub(crate) static JUMP_POD: ProgramArray<2> = ProgramArray::new();
#[btf_map(name = "work4")]
pub(crate) static WORK4: PerCpuArray<Work<Addr4>, 2> = PerCpuArray::new();
#[btf_map(name = "work6")]
pub(crate) static WORK6: PerCpuArray<Work<Addr6>, 2> = PerCpuArray::new();
#[btf_map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<u64, { Reason::ALL.len() }> = PerCpuArray::new();
#[btf_map(name = "service_stats")]
pub(crate) static SERVICE_STATS: PerCpuArray<ServiceStats, { maps::SERVICE_ENTRIES }> =
    PerCpuArray::new();
#[btf_map(name = "datagrams4")]
pub(crate) static DATAGRAMS4: Array<DatagramSet<Addr4>, { maps::DATAGRAM_SETS }, SHARED> =
    Array::new();
#[btf_map(name = "datagrams6")]
pub(crate) static DATAGRAMS6: Array<DatagramSet<Addr6>, { maps::DATAGRAM_SETS }, SHARED> =
    Array::new();
#[btf_map(name = "waiting")]
pub(crate) static WAITING: Array<Waiting, { maps::WAITING_FRAMES }, SHARED> = Array::new();
#[btf_map(name = "fragments")]
pub(crate) static FRAGMENTS: Array<Fragments, 1, SHARED> = Array::new();
#[btf_map(name = "error_budget")]
pub(crate) static ERROR_BUDGET: PerCpuArray<ErrorBudget, 1> = PerCpuArray::new();
