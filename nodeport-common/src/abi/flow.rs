//! The two halves of a flow.
//!
//! Each half is an entry of its own, complete in itself: the client's packets find one, the
//! backend's packets the other. A half names its partner: the partner's key is this half's
//! rewritten tuple turned round.

use super::{Mac, Ports, plain};

/// The 5-tuple of a packet, as on the wire. `A` is [`Addr4`](super::Addr4) or
/// [`Addr6`](super::Addr6).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source and destination port.
    pub ports: Ports,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}
plain!(FlowKey<super::Addr4> = 4, 4, 4, 1, 3);
plain!(FlowKey<super::Addr6> = 16, 16, 4, 1, 3);

impl<A: Copy> FlowKey<A> {
    /// The key of these addresses, ports and protocol.
    #[inline(always)]
    pub const fn new(src: A, dst: A, ports: Ports, protocol: u8) -> Self {
        // The last four bytes are one word: padding that is written by itself becomes a call of
        // `memset` in the kernel's programs.
        let [protocol, a, b, c] = (protocol as u32).to_le_bytes();
        Self { src, dst, ports, protocol, pad: [a, b, c] }
    }

    /// The tuple of a packet in the opposite direction.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, ports: self.ports.swapped(), ..*self }
    }
}

/// The next hop is not known: look it up.
pub const HOP_UNRESOLVED: u8 = 0;
/// Send the frame out of `ifindex` with the entry's Ethernet addresses.
pub const HOP_SEND: u8 = 1;
/// Give the rewritten packet to the node's own network stack.
pub const HOP_STACK: u8 = 2;
/// Send out of `ifindex`, and let the kernel find the neighbour's address: for devices that take
/// no finished frames (tunnels), and while a neighbour is not resolved. Only TC can do that; XDP
/// hands the packet up as it came.
pub const HOP_NEIGHBOUR: u8 = 3;
/// As [`HOP_SEND`], out of a VLAN device: XDP may send frames that have its tags already from the
/// device below it ([`Device::lower`](super::Device::lower)); TC sends from the device itself.
pub const HOP_TAGGED: u8 = 4;

/// Into the veth of a pod on this node whose near end `ifindex` is, past the node's own network stack.
/// Only TC can do that; XDP hands the packet up as it came.
pub const HOP_POD: u8 = 5;

/// Where a flow's packets go next: what the kernel's route look-up said.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Interface to send from; 0 with [`HOP_STACK`] and [`HOP_UNRESOLVED`].
    pub ifindex: u32,
    /// Destination Ethernet address.
    pub dst_mac: Mac,
    /// Source Ethernet address.
    pub src_mac: Mac,
    /// Largest IP packet on that path, in bytes; 0 if not known.
    pub mtu: u16,
    /// [`Control::hop_epoch`](super::Control::hop_epoch) at the time of the look-up. Another one
    /// now means that a route, link or neighbour changed since: look again.
    pub epoch: u16,
    /// Index of the interface in `exits`.
    pub exit: u16,
    /// One of the `HOP_*` kinds.
    pub kind: u8,
    /// Zero.
    pub pad: u8,
}
plain!(NextHop = 4, 6, 6, 2, 2, 2, 1, 1);

impl NextHop {
    /// Not known.
    pub const UNRESOLVED: Self = Self {
        ifindex: 0,
        dst_mac: [0; 6],
        src_mac: [0; 6],
        mtu: 0,
        epoch: 0,
        exit: 0,
        kind: HOP_UNRESOLVED,
        pad: 0,
    };
}

/// This half carries the backend's packets to the client.
pub const FLOW_REPLY: u8 = 1;
/// The backend is on this node: the client's address is kept, and the reply half is met where
/// packets leave the node, not where they arrive; unless it is [`FLOW_FAST`].
pub const FLOW_LOCAL: u8 = 2;
/// With [`FLOW_LOCAL`]: both halves go past the node's network stack. The client's packets go straight
/// into the pod's veth, and the pod's are met where they come out of it. A flow is opened so or
/// not, and stays so: connection tracking must see both halves, or none.
pub const FLOW_FAST: u8 = 4;
/// A packet without SYN, FIN or RST changes nothing about this flow, so it need not be looked
/// at more closely.
pub const FLOW_SETTLED: u8 = 8;
/// The flow has proved itself once: it is never pushed out.
pub const FLOW_PROVED: u8 = 16;
/// UDP, not TCP; in an entry, whose key has no protocol.
pub const FLOW_UDP: u8 = 32;

/// With [`FLOW_LOCAL`]: the node's own connection, from a port of the SNAT range. The half that it opened
/// is met where packets leave the node, the answers' where they arrive; the stack has both.
pub const FLOW_HOST: u8 = 64;

/// States of a flow, the value of [`Flow::state`]. See `core::state` for the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// The client spoke, the backend has not answered.
    Opening = 0,
    /// TCP: the backend answered the SYN, the client has not confirmed.
    Answered = 1,
    /// Both spoke (TCP: the handshake is complete).
    Established = 2,
    /// TCP: the client sent FIN.
    ClientClosed = 3,
    /// TCP: the backend sent FIN.
    BackendClosed = 4,
    /// TCP: both sent FIN.
    Closed = 5,
    /// TCP: one side sent RST, and nothing followed.
    Reset = 6,
    /// TCP: one side sent RST, and packets followed: it was stray, or they were on their way
    /// already.
    Doubted = 7,
}

impl FlowState {
    /// The state of that number; what is none (bytes of another version) counts as
    /// [`FlowState::Opening`], which expires soonest.
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Answered,
            2 => Self::Established,
            3 => Self::ClientClosed,
            4 => Self::BackendClosed,
            5 => Self::Closed,
            6 => Self::Reset,
            7 => Self::Doubted,
            _ => Self::Opening,
        }
    }
}

/// One half of a flow: all that a packet with this key needs.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow<A> {
    /// Source address after the rewrite.
    pub new_src: A,
    /// Destination address after the rewrite.
    pub new_dst: A,
    /// Ports after the rewrite.
    pub new_ports: Ports,
    /// Ones'-complement difference (RFC 1624, `~m + m'`) that the two addresses make, as 16-bit
    /// words of the host's order.
    pub address_diff: u16,
    /// The same for the two ports.
    pub port_diff: u16,
    /// Where to send it.
    pub hop: NextHop,
    /// Index of the backend in `backends4` or `backends6`.
    pub backend: u32,
    /// The backend's generation when the flow was opened. Another one now means that the backend
    /// is gone.
    pub generation: u32,
    /// Index of the service in `service_stats`.
    pub service: u32,
    /// Jiffies (low 32 bits) of the last packet of this half.
    pub last_seen: u32,
    /// Jiffies (low 32 bits) of the first packet of the flow.
    pub created: u32,
    /// TCP, the client's half of a flow that has not proved itself: the number by which the client
    /// acknowledges the backend's SYN, in host order.
    pub answered: u32,
    /// A [`FlowState`], as a number.
    pub state: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
    /// Version of the entry that this half was read from or stored in (see
    /// [`Handle`](crate::core::table::handle::Handle)).
    pub version: u16,
    /// Number of that entry, plus one; 0 of a half that lies in none.
    pub entry: u32,
    /// Packets of this half so far. One direction of a flow is served by one CPU at a time
    /// (RSS), so this is added to without a lock.
    pub packets: u64,
    /// Bytes of IP packets of this half so far.
    pub bytes: u64,
}
plain!(Flow<super::Addr4> = 4, 4, 4, 2, 2, 24, 4, 4, 4, 4, 4, 4, 1, 1, 2, 4, 8, 8);
plain!(Flow<super::Addr6> = 16, 16, 4, 2, 2, 24, 4, 4, 4, 4, 4, 4, 1, 1, 2, 4, 8, 8);
