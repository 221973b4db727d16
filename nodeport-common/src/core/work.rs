//! The working area of everything that is not routine.
//!
//! A program in the kernel has 512 bytes of stack for all its functions together, and two halves
//! of an IPv6 flow with their keys are more than half of that. So whatever leaves the straight
//! line works in this one value, which lies in a map of the CPU's own.

use super::env::Route;
use super::fragment::Part;
use super::parse::{Network, Parsed};
use super::snat::Candidates;
use super::table::handle::Handle;
use crate::abi::{
    Affinity, AffinityKey, Backend, Control, FLOW_LOCAL, FLOW_REPLY, Flow, FlowKey, Frontend, Port,
};

/// The packet, its flow and what is being made of them.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Work<A> {
    /// The settings of the data path.
    pub control: Control,
    /// The packet; of an ICMP error, the one that it quotes.
    pub parsed: Parsed<A>,
    /// The flow's key: the packet's, or that of the quoted packet turned round.
    pub key: FlowKey<A>,
    /// The half of the flow with this key.
    pub flow: Flow<A>,
    /// Of a newcomer's TCP segment: from the client the acknowledgment number, from the backend the
    /// one that acknowledges its SYN. In the host's order.
    pub acknowledges: u32,
    /// Zero.
    pub pad: u32,
    /// What the packet's ports had before, if its flow was ended a moment ago.
    pub former: Former,
    /// The key of the other half.
    pub other_key: FlowKey<A>,
    /// The other half.
    pub other: Flow<A>,
    /// Which ports are tried.
    pub candidates: Candidates,
    /// The half that has the port which is tried.
    pub holder: Handle,
    /// The key of the other half of that flow.
    pub rival_key: FlowKey<A>,
    /// The frontend that the packet addresses.
    pub frontend: Frontend,
    /// Who asks, where a service is to know its clients again.
    pub affinity_key: AffinityKey<A>,
    /// The backend that the client has.
    pub affinity: Affinity,
    /// The backend that was picked.
    pub backend: Backend<A>,
    /// Its index.
    pub backend_index: u32,
    /// The way to where the packet goes.
    pub way: Route<A>,
    /// The packet's IP header.
    pub outer: Network<A>,
    /// The IP header of the packet that an ICMP error quotes.
    pub quote: Network<A>,
    /// The packet as a fragment, if it is one.
    pub part: Part<A>,
}

/// The source port by which a backend knew a client that begins anew. It gets the same again: the
/// backend may keep it in TIME_WAIT, and takes there a SYN of that client (RFC 6191), but seldom one
/// of another client, whose numbers and timestamps are not behind the old ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Former {
    backend: u32,
    generation: u32,
    port: Port,
    pad: u16,
}

impl Former {
    /// Of nobody.
    pub const NONE: Self = Self { backend: 0, generation: 0, port: [0; 2], pad: 0 };

    /// Of the client of this half, if it is the client's. Whoever is known by its own port needs none.
    #[inline(always)]
    pub const fn of<A: Copy>(flow: &Flow<A>) -> Self {
        if flow.flags & (FLOW_LOCAL | FLOW_REPLY) != 0 {
            return Self::NONE;
        }
        let Flow { backend, generation, new_ports, .. } = *flow;
        Self { backend, generation, port: new_ports.src, pad: 0 }
    }

    /// The port, if the backend is the same and the port is one of the `count` from `first` on.
    #[inline(always)]
    pub fn port<A>(&self, flow: &Flow<A>, first: u16, count: u16) -> Option<Port> {
        let is_known = self.backend == flow.backend && self.generation == flow.generation;
        let is_ours = u16::from_be_bytes(self.port).wrapping_sub(first) < count;
        (is_known && is_ours).then_some(self.port)
    }
}
