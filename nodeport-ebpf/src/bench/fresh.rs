//! The next packet: written over what the run before has left.

use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::btf_map;
use nodeport_common::abi::{Addr4, Addr6, FlowKey, IPPROTO_TCP, Ports};
use nodeport_common::core::env::{Packet, Window};

/// What a run is to do, written by the benchmark: see the constants below for the elements.
#[btf_map(name = "bench_config")]
static CONFIG: Array<u64, 8> = Array::new();

/// Number of packets so far.
#[btf_map(name = "bench_next")]
static NEXT: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Number of flows less one: a power of two less one.
pub(crate) const MASK: u32 = 0;
/// Destination port, host order.
pub(crate) const PORT: u32 = 1;
/// Interface towards the backends.
pub(crate) const IFINDEX: u32 = 2;
/// Not 0: flows come in the order of their numbers, each of them new.
pub(crate) const IN_ORDER: u32 = 3;

/// Lines of each index.
pub(crate) const LINES: u32 = 4;
/// Entries of each table: a power of two.
pub(crate) const ENTRIES: u32 = 5;

/// Port of the frontend that the benchmark's flows have.
pub(crate) const FRONTEND_PORT: u16 = 30_007;
/// Address of the node.
pub(crate) const NODE4: Addr4 = [192, 0, 2, 1];
/// Address of the node.
pub(crate) const NODE6: Addr6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// An element of the configuration; 0 if it is not there.
#[inline(always)]
pub(crate) fn config(index: u32) -> u64 {
    CONFIG.get(index).copied().unwrap_or(0)
}

/// Number of the next flow: all of them before one comes again, in an order that no cache
/// foresees.
#[inline(always)]
pub(crate) fn next_flow() -> u32 {
    let Some(next) = NEXT.get_ptr_mut(0) else { return 0 };
    // SAFETY: the element is this CPU's own.
    let number = unsafe {
        *next += 1;
        *next as u32
    };
    if config(IN_ORDER) != 0 {
        return number;
    }
    number.wrapping_mul(0x9e37_79b1) & config(MASK) as u32
}

/// Client port: the part of the number above the 24 bits that the address has.
#[inline(always)]
fn ports(number: u32) -> Ports {
    Ports::new(40_000 + (number >> 24) as u16, config(PORT) as u16)
}

/// The key of an IPv4 flow's packets.
#[inline(always)]
pub(crate) fn key4(number: u32) -> FlowKey<Addr4> {
    let [_, a, b, c] = number.to_be_bytes();
    FlowKey::new([10, a, b, c], NODE4, ports(number), IPPROTO_TCP)
}

/// The key of an IPv6 flow's packets.
#[inline(always)]
pub(crate) fn key6(number: u32) -> FlowKey<Addr6> {
    let [_, a, b, c] = number.to_be_bytes();
    let src = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, a, b, c];
    FlowKey::new(src, NODE6, ports(number), IPPROTO_TCP)
}

/// Writes the packet of an IPv4 flow.
#[inline(always)]
pub(crate) fn write4<P: Packet>(packet: &mut P, key: &FlowKey<Addr4>) -> bool {
    let Some(mut frame) = packet.window::<54>(0) else { return false };
    frame.store::<u32, 22>(u32::from_ne_bytes([64, IPPROTO_TCP, 0x12, 0x34]));
    frame.store::<[u8; 4], 26>(key.src);
    frame.store::<[u8; 4], 30>(key.dst);
    frame.store::<u32, 34>(key.ports.word());
    frame.store::<u16, 50>(0x5678);
    true
}

/// Writes the packet of an IPv6 flow.
#[inline(always)]
pub(crate) fn write6<P: Packet>(packet: &mut P, key: &FlowKey<Addr6>) -> bool {
    let Some(mut frame) = packet.window::<74>(0) else { return false };
    frame.store::<u8, 21>(64);
    frame.store::<[u8; 16], 22>(key.src);
    frame.store::<[u8; 16], 38>(key.dst);
    frame.store::<u32, 54>(key.ports.word());
    frame.store::<u16, 70>(0x5678);
    true
}
