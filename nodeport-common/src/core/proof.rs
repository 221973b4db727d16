//! What proves that a TCP client is where it says: that it has seen the backend's SYN-ACK.
//!
//! An ACK from a forged source opens nothing on the backend, which knows its own sequence number
//! (RFC 9293, 3.10.7.4: in SYN-RECEIVED, SND.UNA < SEG.ACK =< SND.NXT). Nor must it make a newcomer
//! a flow that is never pushed out. So the number that acknowledges the backend's SYN is kept
//! ([`Flow::answered`]) until the client's segment has it.
//!
//! A backend may have sent data behind its SYN (TCP Fast Open, RFC 7413), as much as the window of
//! the client's SYN allows, which is never scaled (RFC 7323, 2.2): at most 65,535 bytes. Whoever
//! guesses is right once in 65,536 times.

use crate::abi::{FLOW_PROVED, FLOW_REPLY, Flow, FlowState};

/// Bytes that a backend can have sent before its client proves itself.
const WINDOW: u32 = 65_535;

/// Whether a segment of this half has to prove something: it is the client's, of a flow that the
/// backend has answered and that has not proved itself. The flow must be of TCP.
#[inline(always)]
pub const fn is_wanted<A>(half: &Flow<A>) -> bool {
    half.flags & (FLOW_PROVED | FLOW_REPLY) == 0 && half.state == FlowState::Answered as u8
}

/// Whether `acknowledges` is a number that only a client knows who has seen the SYN-ACK.
#[inline(always)]
pub const fn is_proof(answered: u32, acknowledges: u32) -> bool {
    acknowledges.wrapping_sub(answered) <= WINDOW
}
