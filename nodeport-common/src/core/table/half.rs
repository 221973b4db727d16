//! A half of a flow as the packet path has it, and as it lies in the table.

use super::status::Status;
use crate::abi::{
    BACKEND_BITS, EXIT_BITS, Exit, FLOW_UDP, Flow, FlowDetails, FlowEntry, FlowKey,
    GENERATION_BITS, IPPROTO_TCP, IPPROTO_UDP, NextHop,
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
    let (epoch, mtu) = (flow.hop.epoch, Status::usable(flow.hop.mtu));
    Status { epoch, mtu, version: 0, state: flow.state + 1, flags: flow.flags | udp }
}

/// Writes a half into its entry. The word of its status stays as it is.
#[inline(always)]
pub fn put<A: Copy, P>(entry: &mut FlowEntry<A, P>, key: &FlowKey<A>, flow: &Flow<A>) {
    entry.src = key.src;
    entry.dst = key.dst;
    entry.ports = key.ports;
    entry.new_ports = flow.new_ports;
    entry.new_src = flow.new_src;
    entry.new_dst = flow.new_dst;
    entry.address_diff = flow.address_diff;
    entry.port_diff = flow.port_diff;
    entry.backend = backend_word(flow.backend, flow.generation);
    entry.dst_mac = flow.hop.dst_mac;
    entry.exit = exit_word(&flow.hop);
    entry.last_seen = flow.last_seen;
    entry.packets = flow.packets as u32;
    entry.bytes = flow.bytes;
}

/// What lies beside the entry of a half, which has this version.
#[inline(always)]
pub const fn details<A>(flow: &Flow<A>, version: u16) -> FlowDetails {
    let Flow { service, created, answered, .. } = *flow;
    FlowDetails { service, created, answered, version, pad: 0 }
}

/// The key of the half that lies in an entry with these flags.
#[inline(always)]
pub fn key<A: Copy, P>(entry: &FlowEntry<A, P>, flags: u8) -> FlowKey<A> {
    FlowKey::new(entry.src, entry.dst, entry.ports, protocol(flags))
}

/// The half that lies in an entry of this status, but for what is in its details and which entry it
/// is. `exit` is the element of `exits` that it names (see [`exit_index`]).
#[inline(always)]
pub fn get<A: Copy, P>(entry: &FlowEntry<A, P>, status: Status, exit: Exit) -> Flow<A> {
    let hop = NextHop {
        ifindex: exit.ifindex,
        dst_mac: entry.dst_mac,
        src_mac: exit.mac,
        mtu: status.mtu,
        epoch: status.epoch,
        exit: exit_index(entry.exit),
        kind: (entry.exit >> EXIT_BITS) as u8,
        pad: 0,
    };
    Flow {
        new_src: entry.new_src,
        new_dst: entry.new_dst,
        new_ports: entry.new_ports,
        address_diff: entry.address_diff,
        port_diff: entry.port_diff,
        hop,
        backend: entry.backend & ((1 << BACKEND_BITS) - 1),
        generation: entry.backend >> BACKEND_BITS,
        service: 0,
        last_seen: entry.last_seen,
        created: 0,
        answered: 0,
        state: status.state.wrapping_sub(1),
        flags: status.flags & !FLOW_UDP,
        version: 0,
        entry: 0,
        packets: entry.packets as u64,
        bytes: entry.bytes,
    }
}

/// The index in `exits` that an entry's word for its next hop holds.
#[inline(always)]
pub const fn exit_index(word: u16) -> u16 {
    word & ((1 << EXIT_BITS) - 1)
}

/// The half in a copy of an entry and its details. Interface and source address of its next hop
/// are those of its exit, and not filled in.
pub fn unpack<A: Copy, P>(entry: &FlowEntry<A, P>, details: &FlowDetails) -> (FlowKey<A>, Flow<A>) {
    let status = Status::of(entry);
    let flow = get(entry, status, Exit::default());
    let FlowDetails { service, created, answered, .. } = *details;
    (key(entry, status.flags), Flow { service, created, answered, ..flow })
}
