//! Fragments of IP packets: what is known of the packets that they are of, and those that wait for
//! the first one, which alone has ports.
//!
//! `datagrams4` and `datagrams6` hold sets of four packets each, found by a hash. `waiting` is a
//! ring of frames: the newest takes the place of the oldest. Frames that wait for the same packet
//! are a list that begins in [`Datagram::head`].

use super::{Addr4, Addr6, Ports, plain};

/// Packets of one set.
pub const DATAGRAMS_OF_SET: usize = 4;

/// Bytes of the longest frame that can wait: 9,000 of an IP packet, an Ethernet header and two tags,
/// rounded up.
pub const WAITING_BYTES: usize = 9_040;

/// Which packet a fragment is of (RFC 791, RFC 8200, 4.5), and where it is met.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatagramKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification, in the host's order.
    pub id: u32,
    /// Protocol; 0 in IPv6, where fragments are told apart without.
    pub protocol: u8,
    /// At which hook: a packet on its way through the node is met at several.
    pub hook: u8,
    /// Zero.
    pub pad: u16,
}
plain!(DatagramKey<Addr4> = 4, 4, 4, 1, 1, 2);
plain!(DatagramKey<Addr6> = 16, 16, 4, 1, 1, 2);

/// Nothing is known: the place is free.
pub const FATE_NONE: u8 = 0;
/// The first fragment has not come yet; others may wait for it.
pub const FATE_AWAITED: u8 = 1;
/// The first fragment has gone along its flow, and so do the others.
pub const FATE_FOLLOWS: u8 = 2;
/// The first fragment was passed to the stack, and so are the others.
pub const FATE_PASSES: u8 = 3;
/// The first fragment was refused or dropped, and so are the others.
pub const FATE_DROPS: u8 = 4;

/// What is known of a packet that comes in fragments.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Datagram<A> {
    /// Which packet.
    pub key: DatagramKey<A>,
    /// The first fragment's ports.
    pub ports: Ports,
    /// Jiffies (low 32 bits) when what is known was learnt.
    pub since: u32,
    /// The newest fragment that waits, as a ticket of [`Waiting`]; 0 if none does.
    pub head: u64,
    /// One of the `FATE_*`.
    pub fate: u8,
    /// The first fragment's transport protocol.
    pub protocol: u8,
    /// How many wait.
    pub waiting: u16,
    /// Zero.
    pub pad: u32,
}
plain!(Datagram<Addr4> = 16, 4, 4, 8, 1, 1, 2, 4);
plain!(Datagram<Addr6> = 40, 4, 4, 8, 1, 1, 2, 4);

/// A set of packets.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramSet<A> {
    /// 1 while a program is at it.
    pub lock: u64,
    /// The packets, in no order.
    pub datagrams: [Datagram<A>; DATAGRAMS_OF_SET],
}
plain!(DatagramSet<Addr4> = 8, 160);
plain!(DatagramSet<Addr6> = 8, 256);

/// A frame that waits.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Which one it is; its place is this modulo their number. 0 if none waits here, and with
    /// [`WAITING_BUSY`] while it is being written.
    pub ticket: u64,
    /// The one that waited before it for the same packet; 0 if none did.
    pub previous: u64,
    /// Jiffies (low 32 bits) when it came.
    pub since: u32,
    /// Its length in bytes.
    pub length: u32,
    /// The frame, from its Ethernet header on.
    pub frame: [u8; WAITING_BYTES],
}
plain!(Waiting = 8, 8, 4, 4, 9_040);

/// Set in [`Waiting::ticket`] while the frame is being written.
pub const WAITING_BUSY: u64 = 1 << 63;

/// The only element of the `fragments` array: sizes and limits, which the agent writes, and the
/// number of the last ticket.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragments {
    /// Number of the last frame that was kept.
    pub ticket: u64,
    /// Zero; what changes with each frame has a cache line of its own.
    pub pad: [u64; 7],
    /// Key of the hash that picks sets, random.
    pub seed: u64,
    /// Number of sets in each of `datagrams4` and `datagrams6`; 0 before the agent has written this.
    pub sets: u32,
    /// Number of frames that can wait.
    pub waiting: u32,
    /// Jiffies after which a packet is forgotten, and what waits for its first fragment is lost.
    pub timeout: u32,
    /// Zero; fills the cache line.
    pub pad2: [u32; 11],
}
plain!(Fragments = 8, 56, 8, 4, 4, 4, 44);
