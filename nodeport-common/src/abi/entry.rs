//! The table of flows: two arrays that a look-up goes through, and two beside them.
//!
//! `index4` and `index6` hold lines of sixteen slots, a cache line each; a slot names an entry of
//! `flows4` or `flows6`, where a half of a flow lies, a cache line of its own (IPv6: two). Entries
//! are given out from the front, so that few flows lie in few pages. What no packet of a live
//! flow needs is in `details4` and `details6`, and free entries are a list that `heap` begins.

use super::{Mac, Ports, plain};

/// Slots of one line of the index.
pub const SLOTS_OF_LINE: usize = 16;

/// Slots of the index for each entry. A key has two lines, and takes the first that is not full:
/// with half of all slots in use, one key in a hundred needs the second line, and one in some
/// fifteen thousand finds both full of halves that stay. (With lines of eight slots these would be
/// one in twenty and one in four hundred.)
pub const SLOTS_PER_ENTRY: usize = 2;

/// A line of the index. Each slot is 0 or names an entry: bits 0 to 21, its number plus one; 22,
/// it may be pushed out; 23 to 31, some bits of the key's hash. All else is in the entry.
pub type IndexLine = [u32; SLOTS_OF_LINE];

/// One half of a flow.
///
/// What another CPU may change while it is read is the word from `epoch` to `flags`, the counters
/// and the next hop; the rest stays as it is from one version to the next.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry<A, P> {
    /// Source address of the packets.
    pub src: A,
    /// Their destination address.
    pub dst: A,
    /// Their ports.
    pub ports: Ports,
    /// Ports after the rewrite.
    pub new_ports: Ports,
    /// Source address after the rewrite.
    pub new_src: A,
    /// Destination address after the rewrite.
    pub new_dst: A,
    /// Ones'-complement difference that the addresses make (RFC 1624).
    pub address_diff: u16,
    /// The same for the ports.
    pub port_diff: u16,
    /// Index of the backend, and the low [`GENERATION_BITS`] bits of its generation above it; of a
    /// free entry, how far it is from the entry behind it to the next free one. (Not in a field
    /// that packets of live flows write to: one may be late.)
    pub backend: u32,
    /// Ethernet address of the next hop.
    pub dst_mac: Mac,
    /// The kind of next hop above [`EXIT_BITS`] bits of its index in `exits`.
    pub exit: u16,
    /// Low bits of [`Control::epoch`](super::Control) when the next hop was looked up; 0 if it
    /// is to be looked up.
    pub epoch: u16,
    /// Largest IP packet on the path, in bytes.
    pub mtu: u16,
    /// Raised each time a half in the entry ends.
    pub version: u16,
    /// A [`FlowState`](super::FlowState) plus one; 0 if the entry is free, and above 252 what
    /// `core::table::status` says.
    pub state: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
    /// Jiffies (low 32 bits) of the last packet.
    pub last_seen: u32,
    /// Packets so far.
    pub packets: u32,
    /// Bytes of IP packets so far.
    pub bytes: u64,
    /// Zero; fills the cache line.
    pub pad: P,
}

/// A half of an IPv4 flow.
pub type FlowEntry4 = FlowEntry<super::Addr4, [u64; 0]>;
/// A half of an IPv6 flow.
pub type FlowEntry6 = FlowEntry<super::Addr6, [u64; 2]>;
plain!(FlowEntry4 = 4, 4, 4, 4, 4, 4, 2, 2, 4, 6, 2, 2, 2, 2, 1, 1, 4, 4, 8, 0);
plain!(FlowEntry6 = 16, 16, 4, 4, 16, 16, 2, 2, 4, 6, 2, 2, 2, 2, 1, 1, 4, 4, 8, 16);

/// Bits of [`FlowEntry::backend`] that hold the index.
pub const BACKEND_BITS: u32 = 18;
/// Bits of [`FlowEntry::backend`] that hold the generation.
pub const GENERATION_BITS: u32 = 32 - BACKEND_BITS;
/// Bits of [`FlowEntry::exit`] that hold the index.
pub const EXIT_BITS: u32 = 12;

/// What only few packets of a half need to know, beside its entry.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowDetails {
    /// Index of the service in `service_stats`.
    pub service: u32,
    /// Jiffies (low 32 bits) of the first packet of the flow.
    pub created: u32,
    /// See [`Flow::answered`](super::Flow::answered). It changes together with what follows, as a word.
    pub answered: u32,
    /// Version of the entry that these are the details of.
    pub version: u16,
    /// Zero.
    pub pad: u16,
}
plain!(FlowDetails = 4, 4, 4, 2, 2);

impl FlowDetails {
    /// `answered` and `version` as the word that they lie in, on little-endian machines.
    #[inline(always)]
    pub const fn answer_word(answered: u32, version: u16) -> u64 {
        answered as u64 | (version as u64) << 32
    }
}

/// The way out through an interface, in the array `exits`; its index is
/// [`Device::exit`](super::Device::exit).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// The interface.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Zero.
    pub pad: [u8; 6],
}
plain!(Exit = 4, 6, 6);

/// Where the table of one family begins, an element of `heap`: 0 for IPv4, 1 for IPv6.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// Number of the first free entry, and above 32 bits a count of all changes.
    pub first: u64,
    /// Zero; what changes with each flow has a cache line of its own.
    pub pad: [u64; 7],
    /// Key of the hash, random.
    pub seed: u64,
    /// Number of lines of the index less one; a power of two less one.
    pub lines: u32,
    /// Number of entries.
    pub entries: u32,
    /// Zero; fills the cache line.
    pub pad2: [u64; 6],
}
plain!(Heap = 8, 56, 8, 4, 4, 48);
