//! The layout of everything that lies in an eBPF map.
//!
//! Rules, held by the assertions beside each type and by [`Plain`]:
//! - no implicit padding: what pads is a field;
//! - no `bool`, no Rust `enum`: bytes written by another version may hold any value, so states
//!   and flags are integers with named constants;
//! - byte order is in the type: byte arrays ([`Addr4`], [`Addr6`], [`Port`], [`Mac`]) hold what
//!   is on the wire, integers are in the host's order.

mod address;
mod control;
mod device;
mod entry;
mod expiry;
mod flow;
mod fragment;
pub mod maps;
mod net;
mod reason;
mod service;

pub use address::{ADDRESS_NAMED, ADDRESS_OWN, ADDRESS_SERVED};
pub use control::{
    Control, ErrorBudget, NO_BACKEND_DROPS, NO_BACKEND_REFUSES, NO_BACKEND_RESETS, PORT_BACKEND,
    PORT_FRONTEND, PORT_SNAT, PORTS_PER_LINE, PortLine,
};
pub use device::{DEVICE_ATTACHED, DEVICE_POD, DEVICE_REDIRECT, Device, TAG_MASK, Tags};
pub use entry::{
    BACKEND_BITS, EXIT_BITS, Exit, FlowDetails, FlowEntry, FlowEntry4, FlowEntry6, GENERATION_BITS,
    Heap, IndexLine, SLOTS_OF_LINE, SLOTS_PER_ENTRY,
};
pub use expiry::{SWEEP_ANY_USED, SweepRequest};
pub use flow::{
    FLOW_FAST, FLOW_HOST, FLOW_LOCAL, FLOW_PROVED, FLOW_REPLY, FLOW_SETTLED, FLOW_UDP, Flow,
    FlowKey, FlowState, HOP_NEIGHBOUR, HOP_POD, HOP_SEND, HOP_STACK, HOP_TAGGED, HOP_UNRESOLVED,
    NextHop,
};
pub use fragment::{
    DATAGRAMS_OF_SET, Datagram, DatagramKey, DatagramSet, FATE_AWAITED, FATE_DROPS, FATE_FOLLOWS,
    FATE_NONE, FATE_PASSES, Fragments, WAITING_BUSY, WAITING_BYTES, Waiting,
};
pub use net::{
    Addr4, Addr6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Mac, Port, Ports,
};
pub use reason::Reason;
pub use service::{
    Affinity, AffinityKey, BACKEND_DRAINING, BACKEND_GONE, BACKEND_LOCAL, BACKEND_USABLE, Backend,
    FRONTEND_AFFINITY, FRONTEND_AFFINITY_STEP, FRONTEND_DROPS, FRONTEND_GUARDED, FRONTEND_INTERNAL,
    FRONTEND_LEAST, FRONTEND_RANDOM, FRONTEND_YIELDS, Frontend, FrontendKey, Load, SLOTS_PER_LINE,
    ServiceStats, SlotLine, SourceRange,
};

/// Version of the layout of the maps. It is part of the path under which they are pinned, so
/// that programs and agents of different layouts never meet in one map.
pub const LAYOUT_VERSION: u32 = 7;

/// A type whose every byte is a byte of one of its fields, and for which every bit pattern is a
/// value. Only such types go into maps.
///
/// Implementors assert beside the type that it has no padding.
pub trait Plain: Copy + 'static {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Asserts at compile time that the sizes of a type's fields add up to its own.
macro_rules! plain {
    ($type:ty = $($size:expr),+ $(,)?) => {
        const _: () = assert!(::core::mem::size_of::<$type>() == 0 $(+ $size)+);
        impl $crate::abi::Plain for $type {}
    };
}
pub(crate) use plain;
