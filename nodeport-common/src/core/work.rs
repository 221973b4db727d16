//! The working area of everything that is not routine.
//!
//! A program in the kernel has 512 bytes of stack for all its functions together, and two halves
//! of an IPv6 flow with their keys are more than half of that. So whatever leaves the straight
//! line works in this one value, which lies in a map of the CPU's own.

use super::env::Route;
use super::parse::{Network, Parsed};
use crate::abi::{Backend, Control, Flow, FlowKey, Frontend};

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
    /// The key of the other half.
    pub other_key: FlowKey<A>,
    /// The other half.
    pub other: Flow<A>,
    /// The frontend that the packet addresses.
    pub frontend: Frontend,
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
}
