//! Frontends, slots and backends: what the agent plans and the packet path reads when a flow
//! opens.

use super::plain;

/// What a client addresses.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey<A> {
    /// The address; all zero for "any node address".
    pub address: A,
    /// The port, host order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}
plain!(FrontendKey<super::Addr4> = 4, 2, 1, 1);
plain!(FrontendKey<super::Addr6> = 16, 2, 1, 1);

/// A service port, as found by its frontend: where its slots are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    /// Index of the service port in `service_stats`.
    pub service: u32,
    /// First slot in `slots`.
    pub slots_offset: u32,
    /// Number of slots; 0 if no backend is usable.
    pub slots_len: u32,
    /// `FRONTEND_*` bits.
    pub flags: u32,
    /// For how many seconds a client that opens no flow is known again; 0 for not at all
    /// (`sessionAffinity`).
    pub affinity: u32,
}
plain!(Frontend = 4, 4, 4, 4, 4);

/// Where no backend is usable, packets are dropped and not refused: there are endpoints, but none that
/// traffic from here may go to (`externalTrafficPolicy: Local`). Whoever balances before the nodes then
/// tries another one, as with kube-proxy.
pub const FRONTEND_DROPS: u32 = 1;
/// Only clients in a network that `ranges4` or `ranges6` has for the service port may open flows; of
/// others, packets are dropped, as with kube-proxy (`loadBalancerSourceRanges`).
pub const FRONTEND_GUARDED: u32 = 2;

/// It leads to a ClusterIP, whose endpoints may be others than those of the port's other frontends.
pub const FRONTEND_INTERNAL: u32 = 4;

/// It opens no flows: a process on the node listens there, and gets the packets. Flows that were opened
/// before it came keep their backends.
pub const FRONTEND_YIELDS: u32 = 8;

/// New flows go to a backend drawn by lot, and not to the one that Maglev names. Without this flag and
/// [`FRONTEND_LEAST`] Maglev chooses.
pub const FRONTEND_RANDOM: u32 = 16;

/// Of two backends drawn by lot, new flows go to the one that has fewer flows for its weight
/// ([`Load`]).
pub const FRONTEND_LEAST: u32 = 32;

/// The bits that number the times for which a service knows its clients: the agent raises them when
/// `sessionAffinity` is switched off, so that who was known then is not known when it comes back.
pub const FRONTEND_AFFINITY: u32 = 0xff << 24;
/// What they are raised by; the last one is followed by the first.
pub const FRONTEND_AFFINITY_STEP: u32 = 1 << 24;

/// A client of a service port.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey<A> {
    /// The client's address.
    pub client: A,
    /// Index of the service port in `service_stats`.
    pub service: u32,
    /// The frontend's `FRONTEND_INTERNAL` and [`FRONTEND_AFFINITY`] bits.
    pub scope: u32,
}
plain!(AffinityKey<super::Addr4> = 4, 4, 4);
plain!(AffinityKey<super::Addr6> = 16, 4, 4);

/// The backend that a client has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Index of the backend in `backends4` or `backends6`.
    pub backend: u32,
    /// The backend's generation then: another one now means that the backend is gone.
    pub generation: u32,
    /// Jiffies (low 32 bits) when the client last opened a flow.
    pub last_use: u32,
    /// Zero.
    pub pad: u32,
}
plain!(Affinity = 4, 4, 4, 4);

/// A network whose clients may use the guarded frontends of a service port. The key of an LPM trie has
/// the length of the prefix before it, in bits: that of the service and of the network's own.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRange<A> {
    /// Index of the service port in `service_stats`, host order: it is always matched as a whole.
    pub service: u32,
    /// The network's address.
    pub address: A,
}
plain!(SourceRange<super::Addr4> = 4, 4);
plain!(SourceRange<super::Addr6> = 4, 16);

impl<A> SourceRange<A> {
    /// Bits of the key that say whose it is.
    pub const SERVICE_BITS: u32 = u32::BITS;
}

/// Slots in one element of the `slots` array.
pub const SLOTS_PER_LINE: usize = 16;

/// One element of the `slots` array: sixteen slots, each the index of a backend, so that the
/// memory-mapped array wastes nothing (elements are rounded up to 8 bytes by the kernel).
pub type SlotLine = [u32; SLOTS_PER_LINE];

/// The backend takes new flows.
pub const BACKEND_USABLE: u8 = 1;
/// The backend keeps its flows and takes no new ones.
pub const BACKEND_DRAINING: u8 = 2;
/// No backend has this index now.
pub const BACKEND_GONE: u8 = 0;

/// The backend is on this node: its clients' addresses are kept, and its replies are met where
/// they leave the node.
pub const BACKEND_LOCAL: u8 = 1;

/// One endpoint of one service port.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend<A> {
    /// The endpoint's address.
    pub address: A,
    /// The endpoint's port, host order.
    pub port: u16,
    /// `BACKEND_LOCAL` or 0.
    pub flags: u8,
    /// One of `BACKEND_USABLE`, `BACKEND_DRAINING`, `BACKEND_GONE`.
    pub state: u8,
    /// Raised each time the index is given to another backend, or its backend is gone.
    pub generation: u32,
    /// How much it takes beside the service's other backends; 0 counts as 1. (How many slots it has says
    /// the table.)
    pub weight: u32,
}
plain!(Backend<super::Addr4> = 4, 2, 1, 1, 4, 4);
plain!(Backend<super::Addr6> = 16, 2, 1, 1, 4, 4);

/// How busy a backend is as far as this node knows: `base + opened`, wrapping, is the number of its flows
/// when the agent last counted them in the table, and of those that were opened since. What has ended
/// since still counts; nothing that is lost or counted twice lasts longer than to the next count.
///
/// Only of services that ask for it ([`FRONTEND_LEAST`]) are the words kept.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Its flows less `opened`, both at the time of the count; written by the agent.
    pub base: u32,
    /// Raised whenever a flow to it is opened; written by programs.
    pub opened: u32,
}
plain!(Load = 4, 4);

impl Load {
    /// How many flows it has, more or less.
    #[inline(always)]
    pub const fn flows(self) -> u32 {
        self.base.wrapping_add(self.opened)
    }
}

/// Counters of one service port on one CPU.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceStats {
    /// Flows opened.
    pub opened: u64,
    /// Packets that would have opened a flow while no backend was usable, refused or dropped.
    pub no_backend: u64,
    /// Packets dropped because no SNAT port was free towards the backend.
    pub no_port: u64,
    /// Flows that could not be stored because a table was full.
    pub table_full: u64,
    /// Packets dropped because their source is in none of the service's source ranges.
    pub denied: u64,
}
plain!(ServiceStats = 8, 8, 8, 8, 8);
