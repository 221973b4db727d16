//! Fills the maps: the settings once, then a flow with each run.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::macros::btf_map;
use nodeport_common::abi::{
    Addr4, Addr6, BACKEND_USABLE, Backend, Control, DEVICE_ATTACHED, DEVICE_REDIRECT, Device, Exit,
    Flow, FlowKey, FlowState, Frontend, FrontendKey, HOP_SEND, IPPROTO_TCP, NextHop, PORT_BACKEND,
    PORT_FRONTEND, PORTS_PER_LINE, Ports, maps as sizes,
};
use nodeport_common::core::env::Inserted;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::flow::{self, Opening, partner_key};
use nodeport_common::core::track;
use nodeport_common::core::work::Work;

use super::fresh::{ENTRIES, FRONTEND_PORT, IFINDEX, LINES, NODE4, NODE6, config};
use crate::maps;
use crate::table::{InMaps, Table};

/// What a look-up in the kernel's own hash map costs, if it holds the same flows.
#[btf_map(name = "lookup4")]
pub(crate) static LOOKUP4: HashMap<FlowKey<Addr4>, Flow<Addr4>, { sizes::FLOW_ENTRIES }> =
    HashMap::new();
/// The same for IPv6.
#[btf_map(name = "lookup6")]
pub(crate) static LOOKUP6: HashMap<FlowKey<Addr6>, Flow<Addr6>, { sizes::FLOW_ENTRIES }> =
    HashMap::new();

/// Backends, each in one slot.
const BACKENDS: u32 = 16;
/// Epoch of the settings.
const EPOCH: u32 = 1;
/// First port of the SNAT range.
const SNAT_FIRST: u16 = 10_000;
/// Ports of the SNAT range.
const SNAT_COUNT: u16 = 20_000;

/// Writes everything but flows.
#[inline(always)]
pub(crate) fn settings() -> Option<()> {
    let control = Control {
        epoch: EPOCH,
        hz: 250,
        hash_seed: 7,
        snat_first: SNAT_FIRST,
        snat_count: SNAT_COUNT,
        errors_per_second: 1_000,
        ..Control::default()
    };
    let frontend = Frontend { slots_len: BACKENDS, ..Frontend::default() };
    let key4 = FrontendKey { address: [0; 4], port: FRONTEND_PORT, protocol: IPPROTO_TCP, pad: 0 };
    let key6 = FrontendKey { address: [0; 16], port: FRONTEND_PORT, protocol: IPPROTO_TCP, pad: 0 };
    let device = Device {
        flags: DEVICE_ATTACHED | DEVICE_REDIRECT,
        address4: NODE4,
        address6: NODE6,
        exit: 2,
        ..Device::default()
    };
    // SAFETY: nothing else runs while the benchmark fills the maps.
    unsafe {
        *maps::CONTROL.get_ptr_mut(0)? = control;
        // Flows that are there leave by the interface that the packet comes in by.
        *maps::EXITS.get_ptr_mut(1)? = Exit { ifindex: 1, mac: [2, 0, 0, 0, 0, 1], pad: [0; 6] };
        let ifindex = config(IFINDEX) as u32;
        *maps::EXITS.get_ptr_mut(2)? = Exit { ifindex, mac: [2, 0, 0, 0, 0, 1], pad: [0; 6] };
        for family in 0..2 {
            let heap = maps::HEAP.get_ptr_mut(family)?;
            (*heap).seed = 0x1234_5678_9abc_def1;
            (*heap).lines = config(LINES) as u32 - 1;
        }
        let line = maps::PORTS.get_ptr_mut(FRONTEND_PORT as u32 / PORTS_PER_LINE as u32)?;
        (*line)[FRONTEND_PORT as usize % PORTS_PER_LINE] = PORT_FRONTEND | PORT_BACKEND;
    }
    maps::FRONTENDS4.insert(key4, frontend, BPF_ANY as u64).ok()?;
    maps::FRONTENDS6.insert(key6, frontend, BPF_ANY as u64).ok()?;
    maps::NODE_ADDRS4.insert(NODE4, 1, BPF_ANY as u64).ok()?;
    maps::NODE_ADDRS6.insert(NODE6, 1, BPF_ANY as u64).ok()?;
    maps::DEVICES.insert(config(IFINDEX) as u32, device, BPF_ANY as u64).ok()?;
    backends()
}

#[inline(always)]
fn backends() -> Option<()> {
    for index in 0..BACKENDS {
        let (port, state, generation) = (80, BACKEND_USABLE, 1);
        // SAFETY: as in `settings`.
        unsafe {
            *maps::BACKENDS4.get_ptr_mut(index)? =
                Backend { address: address4(index), port, state, generation, flags: 0, weight: 1 };
            *maps::BACKENDS6.get_ptr_mut(index)? =
                Backend { address: address6(index), port, state, generation, flags: 0, weight: 1 };
            (*maps::SLOTS.get_ptr_mut(0)?)[(index & 15) as usize] = index;
        }
    }
    Some(())
}

const fn address4(index: u32) -> [u8; 4] {
    [198, 51, 100, index as u8]
}

const fn address6(index: u32) -> [u8; 16] {
    [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, index as u8]
}

/// What differs between the families.
pub(crate) trait Fill: InMaps {
    /// The node's address.
    const NODE: Self::Addr;
    /// The address of a backend.
    fn backend(index: u32) -> Self::Addr;
    /// The area that a flow is made in.
    fn work() -> Option<*mut Work<Self::Addr>>;
    /// Stores a half in the map that look-ups are measured in.
    fn store(key: &FlowKey<Self::Addr>, flow: &Flow<Self::Addr>) -> Option<()>;
    /// Stores a half in its table.
    fn put(key: &FlowKey<Self::Addr>, flow: &mut Flow<Self::Addr>, now: u32) -> Inserted;
}

impl Fill for V4 {
    const NODE: Addr4 = NODE4;

    #[inline(always)]
    fn backend(index: u32) -> Addr4 {
        address4(index)
    }

    #[inline(always)]
    fn work() -> Option<*mut Work<Addr4>> {
        maps::WORK4.get_ptr_mut(1)
    }

    #[inline(always)]
    fn store(key: &FlowKey<Addr4>, flow: &Flow<Addr4>) -> Option<()> {
        LOOKUP4.insert(key, flow, BPF_ANY as u64).ok()
    }

    #[inline(always)]
    fn put(key: &FlowKey<Addr4>, flow: &mut Flow<Addr4>, now: u32) -> Inserted {
        Table::<V4>::claim(key, flow, now)
    }
}

impl Fill for V6 {
    const NODE: Addr6 = NODE6;

    #[inline(always)]
    fn backend(index: u32) -> Addr6 {
        address6(index)
    }

    #[inline(always)]
    fn work() -> Option<*mut Work<Addr6>> {
        maps::WORK6.get_ptr_mut(1)
    }

    #[inline(always)]
    fn store(key: &FlowKey<Addr6>, flow: &Flow<Addr6>) -> Option<()> {
        LOOKUP6.insert(key, flow, BPF_ANY as u64).ok()
    }

    #[inline(always)]
    fn put(key: &FlowKey<Addr6>, flow: &mut Flow<Addr6>, now: u32) -> Inserted {
        Table::<V6>::claim(key, flow, now)
    }
}

/// Stores both halves of an established flow, in the table and in the map that look-ups are
/// measured in.
#[inline(always)]
pub(crate) fn flow<F: Fill>(key: &FlowKey<F::Addr>, number: u32, now: u32) -> Option<()> {
    // SAFETY: the element is this CPU's own, and nothing else runs while the maps are filled.
    let work = unsafe { &mut *F::work()? };
    work.key = *key;
    establish::<F>(work, number, now);
    work.other_key = partner_key(&work.key, &work.flow);
    track::make_partner(work);
    F::store(&work.key, &work.flow)?;
    F::store(&work.other_key, &work.other)?;
    let forward = F::put(&work.key, &mut work.flow, now);
    let reply = F::put(&work.other_key, &mut work.other, now);
    (forward == Inserted::Done && reply == Inserted::Done).then_some(())
}

/// Makes an entry and a line of the index what they were at the start. The first to be forgotten
/// makes the list of free entries begin at 0.
#[inline(always)]
pub(crate) fn forget<F: Fill>(number: u32) -> Option<()> {
    let (entries, lines) = (config(ENTRIES) as u32, config(LINES) as u32);
    let (entry, line) = (F::entry(number & (entries - 1))?, F::line(number & (lines - 1))?);
    // SAFETY: nothing else runs meanwhile, and all zero is a value of both.
    unsafe {
        *line = core::mem::zeroed();
        *entry = core::mem::zeroed();
        (*F::heap()?).first = 0;
    }
    Some(())
}

/// Makes the forward half of flow `number`. The backend's port varies with the number, so that no
/// two flows share the key of their answers, however many they are.
#[inline(never)]
fn establish<F: Fill>(work: &mut Work<F::Addr>, number: u32, now: u32) {
    let port = SNAT_FIRST + (number / BACKENDS % SNAT_COUNT as u32) as u16;
    let opening = Opening {
        new_src: F::NODE,
        new_dst: F::backend(number % BACKENDS),
        new_ports: Ports::new(port, 80 + (number / BACKENDS / SNAT_COUNT as u32) as u16),
        backend: (number % BACKENDS, 1),
        service: 0,
        flags: 0,
    };
    flow::open::<F>(&work.key, &opening, now, &mut work.flow);
    flow::set_state(&mut work.flow, FlowState::Established);
    work.flow.hop = NextHop {
        dst_mac: [2, 0, 0, 0, 0, 2],
        mtu: 1_500,
        epoch: EPOCH as u16,
        exit: 1,
        kind: HOP_SEND,
        ..NextHop::UNRESOLVED
    };
}
