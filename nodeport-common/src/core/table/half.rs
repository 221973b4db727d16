//! A half of a flow as the packet path has it, and as it lies in the table.

use super::status::Status;
use crate::abi::{
    BACKEND_BITS, EXIT_BITS, FLOW_UDP, Flow, FlowDetails, FlowEntry, FlowKey, GENERATION_BITS,
    IPPROTO_TCP, IPPROTO_UDP, NextHop,
};
use crate::core::family::Family;
use crate::core::hash;

/// The bits of a generation that a flow keeps. An index is given to another backend far less
/// often than the sweep, which ends flows of backends that are gone, looks at every flow.
#[inline(always)]
pub const fn kept(generation: u32) -> u32 {
    generation & ((1 << GENERATION_BITS) - 1)
}

/// Index and generation of a backend in one word.
#[inline(always)]
pub const fn backend_word(index: u32, generation: u32) -> u32 {
    index & ((1 << BACKEND_BITS) - 1) | generation << BACKEND_BITS
}

/// Kind and exit of a next hop in one word.
#[inline(always)]
pub const fn exit_word(hop: &NextHop) -> u16 {
    (hop.kind as u16) << EXIT_BITS | hop.exit & ((1 << EXIT_BITS) - 1)
}

/// The hash of a key, by `seed` that nobody outside knows.
#[inline(always)]
pub fn key_hash<F: Family>(key: &FlowKey<F::Addr>, seed: u64) -> u64 {
    let tail = key.ports.word() as u64 | (key.protocol as u64) << 32;
    let addresses = F::fold_pair(&key.src, &key.dst, seed);
    hash::finish64(addresses.wrapping_add(hash::share64(tail, seed, 4)))
}

/// The protocol of a half with these flags.
#[inline(always)]
pub const fn protocol(flags: u8) -> u8 {
    if flags & FLOW_UDP == 0 { IPPROTO_TCP } else { IPPROTO_UDP }
}

/// The status of a half, but for its version.
#[inline(always)]
pub fn status<A>(flow: &Flow<A>, protocol: u8) -> Status {
    let udp = if protocol == IPPROTO_UDP { FLOW_UDP } else { 0 };
    let (epoch, mtu) = (flow.hop.epoch, flow.hop.mtu);
    Status { epoch, mtu, version: 0, state: flow.state + 1, flags: flow.flags | udp }
}

/// What lies in the entry, but for the fields of its status, which are zero.
#[inline(always)]
pub fn pack<A: Copy, P: Default>(key: &FlowKey<A>, flow: &Flow<A>) -> FlowEntry<A, P> {
    FlowEntry {
        src: key.src,
        dst: key.dst,
        ports: key.ports,
        new_ports: flow.new_ports,
        new_src: flow.new_src,
        new_dst: flow.new_dst,
        address_diff: flow.address_diff,
        port_diff: flow.port_diff,
        backend: backend_word(flow.backend, flow.generation),
        dst_mac: flow.hop.dst_mac,
        exit: exit_word(&flow.hop),
        epoch: 0,
        mtu: 0,
        version: 0,
        state: 0,
        flags: 0,
        last_seen: flow.last_seen,
        packets: flow.packets as u32,
        bytes: flow.bytes,
        pad: P::default(),
    }
}

/// The half that lies in an entry. Interface and source address of its next hop are those of its
/// exit, and not filled in.
#[inline(always)]
pub fn unpack<A: Copy, P>(entry: &FlowEntry<A, P>, details: &FlowDetails) -> (FlowKey<A>, Flow<A>) {
    let key = FlowKey::new(entry.src, entry.dst, entry.ports, protocol(entry.flags));
    let hop = NextHop {
        ifindex: 0,
        dst_mac: entry.dst_mac,
        src_mac: [0; 6],
        mtu: entry.mtu,
        epoch: entry.epoch,
        exit: entry.exit & ((1 << EXIT_BITS) - 1),
        kind: (entry.exit >> EXIT_BITS) as u8,
        pad: 0,
    };
    let flow = Flow {
        new_src: entry.new_src,
        new_dst: entry.new_dst,
        new_ports: entry.new_ports,
        address_diff: entry.address_diff,
        port_diff: entry.port_diff,
        hop,
        backend: entry.backend & ((1 << BACKEND_BITS) - 1),
        generation: entry.backend >> BACKEND_BITS,
        service: details.service,
        last_seen: entry.last_seen,
        created: details.created,
        state: entry.state.wrapping_sub(1),
        flags: entry.flags & !FLOW_UDP,
        pad: 0,
        packets: entry.packets as u64,
        bytes: entry.bytes,
    };
    (key, flow)
}
