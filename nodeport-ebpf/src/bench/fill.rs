//! Fills the maps: the settings once, then a flow with each run.

use aya_ebpf::bindings::BPF_ANY;
use nodeport_common::abi::{
    BACKEND_USABLE, Backend, Control, DEVICE_ATTACHED, DEVICE_REDIRECT, Device, Flow, FlowKey,
    FlowState, Frontend, FrontendKey, HOP_SEND, IPPROTO_TCP, NextHop, PORT_BACKEND, PORT_FRONTEND,
    PORTS_PER_LINE, Ports,
};
use nodeport_common::core::family::{Family, V4, V6};
use nodeport_common::core::flow::{self, Opening, partner, partner_key};

use super::fresh::{FRONTEND_PORT, IFINDEX, NODE4, NODE6, config};
use crate::maps;

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
        ..Device::default()
    };
    // SAFETY: nothing else runs while the benchmark fills the maps.
    unsafe {
        *maps::CONTROL.get_ptr_mut(0)? = control;
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
                Backend { address: address4(index), port, state, generation, flags: 0, pad: 0 };
            *maps::BACKENDS6.get_ptr_mut(index)? =
                Backend { address: address6(index), port, state, generation, flags: 0, pad: 0 };
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

/// Stores both halves of an established flow.
#[inline(always)]
pub(crate) fn flow4(key: &FlowKey<[u8; 4]>, number: u32, now: u32) -> Option<()> {
    let index = number % BACKENDS;
    let half = established::<V4>(key, NODE4, address4(index), number, now);
    maps::FLOWS4.insert(key, half, BPF_ANY as u64).ok()?;
    maps::FLOWS4.insert(partner_key(key, &half), partner(key, &half), BPF_ANY as u64).ok()
}

/// Stores both halves of an established flow.
#[inline(always)]
pub(crate) fn flow6(key: &FlowKey<[u8; 16]>, number: u32, now: u32) -> Option<()> {
    let index = number % BACKENDS;
    let half = established::<V6>(key, NODE6, address6(index), number, now);
    maps::FLOWS6.insert(key, half, BPF_ANY as u64).ok()?;
    maps::FLOWS6.insert(partner_key(key, &half), partner(key, &half), BPF_ANY as u64).ok()
}

/// The forward half of flow `number`. The backend's port varies with the number, so that no two
/// flows share the key of their answers, however many they are.
#[inline(always)]
fn established<F: Family>(
    key: &FlowKey<F::Addr>,
    node: F::Addr,
    backend: F::Addr,
    number: u32,
    now: u32,
) -> Flow<F::Addr> {
    let port = SNAT_FIRST + (number / BACKENDS % SNAT_COUNT as u32) as u16;
    let opening = Opening {
        new_src: node,
        new_dst: backend,
        new_ports: Ports::new(port, 80 + (number / BACKENDS / SNAT_COUNT as u32) as u16),
        backend: (number % BACKENDS, 1),
        service: 0,
        flags: 0,
    };
    let mut half = Flow::default();
    flow::open::<F>(key, &opening, now, &mut half);
    flow::set_state(&mut half, FlowState::Established);
    let (dst_mac, src_mac) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    half.hop =
        NextHop { ifindex: 1, epoch: EPOCH, dst_mac, src_mac, mtu: 1_500, kind: HOP_SEND, pad: 0 };
    half
}
