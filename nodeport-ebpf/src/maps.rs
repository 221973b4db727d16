//! The maps. What each is for and how large it is stands in `nodeport_common::abi::maps`.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use nodeport_common::abi::{
    Addr4, Addr6, Backend, Control, Device, ErrorBudget, Flow, FlowKey, Frontend, FrontendKey,
    PortLine, Reason, ServiceStats, SlotLine, maps,
};
use nodeport_common::core::work::Work;

/// The agent writes these through memory, without a system call.
const SHARED: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "flows4")]
pub(crate) static FLOWS4: HashMap<FlowKey<Addr4>, Flow<Addr4>, { maps::FLOW_ENTRIES }> =
    HashMap::new();
#[btf_map(name = "flows6")]
pub(crate) static FLOWS6: HashMap<FlowKey<Addr6>, Flow<Addr6>, { maps::FLOW_ENTRIES }> =
    HashMap::new();
#[btf_map(name = "nursery4")]
pub(crate) static NURSERY4: LruHashMap<FlowKey<Addr4>, Flow<Addr4>, { maps::NURSERY_ENTRIES }> =
    LruHashMap::new();
#[btf_map(name = "nursery6")]
pub(crate) static NURSERY6: LruHashMap<FlowKey<Addr6>, Flow<Addr6>, { maps::NURSERY_ENTRIES }> =
    LruHashMap::new();
#[btf_map(name = "frontends4")]
pub(crate) static FRONTENDS4: HashMap<FrontendKey<Addr4>, Frontend, { maps::FRONTEND_ENTRIES }> =
    HashMap::new();
#[btf_map(name = "frontends6")]
pub(crate) static FRONTENDS6: HashMap<FrontendKey<Addr6>, Frontend, { maps::FRONTEND_ENTRIES }> =
    HashMap::new();
#[btf_map(name = "backends4")]
pub(crate) static BACKENDS4: Array<Backend<Addr4>, { maps::BACKEND_ENTRIES }, SHARED> =
    Array::new();
#[btf_map(name = "backends6")]
pub(crate) static BACKENDS6: Array<Backend<Addr6>, { maps::BACKEND_ENTRIES }, SHARED> =
    Array::new();
#[btf_map(name = "slots")]
pub(crate) static SLOTS: Array<SlotLine, { maps::SLOT_LINES }, SHARED> = Array::new();
#[btf_map(name = "node_addrs4")]
pub(crate) static NODE_ADDRS4: HashMap<Addr4, u32, { maps::NODE_ADDRESS_ENTRIES }> = HashMap::new();
#[btf_map(name = "node_addrs6")]
pub(crate) static NODE_ADDRS6: HashMap<Addr6, u32, { maps::NODE_ADDRESS_ENTRIES }> = HashMap::new();
#[btf_map(name = "devices")]
pub(crate) static DEVICES: HashMap<u32, Device, { maps::DEVICE_ENTRIES }> = HashMap::new();
#[btf_map(name = "ports")]
pub(crate) static PORTS: Array<PortLine, { maps::PORT_LINES }, SHARED> = Array::new();
#[btf_map(name = "control")]
pub(crate) static CONTROL: Array<Control, 1, SHARED> = Array::new();
#[btf_map(name = "work4")]
pub(crate) static WORK4: PerCpuArray<Work<Addr4>, 2> = PerCpuArray::new();
#[btf_map(name = "work6")]
pub(crate) static WORK6: PerCpuArray<Work<Addr6>, 2> = PerCpuArray::new();
#[btf_map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<u64, { Reason::ALL.len() }> = PerCpuArray::new();
#[btf_map(name = "service_stats")]
pub(crate) static SERVICE_STATS: PerCpuArray<ServiceStats, { maps::SERVICE_ENTRIES }> =
    PerCpuArray::new();
#[btf_map(name = "error_budget")]
pub(crate) static ERROR_BUDGET: PerCpuArray<ErrorBudget, 1> = PerCpuArray::new();
