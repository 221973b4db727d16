//! The life of a flow, as a total function.
//!
//! It follows what a NAT must know, not what an endpoint knows: whether both sides spoke, and
//! which side has closed (RFC 5382 for TCP, RFC 4787 for UDP). A RST ends nothing at once, since
//! it may be forged or stray: it shortens the time after which an idle flow expires, and a packet
//! that follows revives the flow, for as long as more come.

use crate::abi::{FlowState, IPPROTO_TCP};

/// TCP's FIN bit.
pub const FIN: u8 = 0x01;
/// TCP's SYN bit.
pub const SYN: u8 = 0x02;
/// TCP's RST bit.
pub const RST: u8 = 0x04;
/// TCP's ACK bit.
pub const ACK: u8 = 0x10;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    Forward,
    /// From the backend to the client.
    Reply,
}

/// Whether a TCP packet with these flags opens a connection.
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (SYN | ACK | RST | FIN) == SYN
}

/// Whether a packet may open a flow: any UDP packet, a TCP SYN.
#[inline(always)]
pub const fn may_open(protocol: u8, flags: u8) -> bool {
    protocol != IPPROTO_TCP || opens(flags)
}

/// Whether a client's SYN on a flow in this state begins a new connection on the same ports.
#[inline(always)]
pub const fn is_reusable(state: FlowState) -> bool {
    use FlowState::{BackendClosed, ClientClosed, Closed, Reset};
    // Not `Doubted`: a forged SYN could then end a live connection. If the client did begin anew,
    // the backend, which heard the RST, takes the SYN as one.
    matches!(state, ClientClosed | BackendClosed | Closed | Reset)
}

/// The state after a packet. `flags` are TCP's; for UDP they are 0.
#[inline(always)]
pub const fn next(state: FlowState, protocol: u8, flags: u8, direction: Direction) -> FlowState {
    if protocol != IPPROTO_TCP {
        return next_udp(state, direction);
    }
    if flags & RST != 0 {
        return after_rst(state);
    }
    if flags & FIN != 0 {
        return after_fin(state, direction);
    }
    after_segment(state, flags, direction)
}

#[inline(always)]
const fn next_udp(state: FlowState, direction: Direction) -> FlowState {
    match direction {
        Direction::Reply => FlowState::Established,
        Direction::Forward => state,
    }
}

/// A flow that never came about stays what it is: it expires soon enough.
#[inline(always)]
const fn after_rst(state: FlowState) -> FlowState {
    match state {
        FlowState::Opening | FlowState::Answered | FlowState::Closed => state,
        _ => FlowState::Reset,
    }
}

#[inline(always)]
const fn after_fin(state: FlowState, direction: Direction) -> FlowState {
    use FlowState::{Answered, BackendClosed, ClientClosed, Closed, Opening};
    match (state, direction) {
        // Nothing is there to be closed: a SYN and a FIN, both forged, must not get a flow among
        // the established ones.
        (Opening, _) | (Answered, Direction::Reply) => state,
        (Closed | BackendClosed, Direction::Forward) => Closed,
        (Closed | ClientClosed, Direction::Reply) => Closed,
        (_, Direction::Forward) => ClientClosed,
        (_, Direction::Reply) => BackendClosed,
    }
}

#[inline(always)]
const fn after_segment(state: FlowState, flags: u8, direction: Direction) -> FlowState {
    use FlowState::{Answered, Doubted, Established, Opening, Reset};
    match (state, direction) {
        (Opening, Direction::Reply) if flags & SYN != 0 => Answered,
        // A SYN sent again says nothing new.
        (Answered, Direction::Forward) if flags & SYN == 0 => Established,
        // Life after a RST. It lives as long as packets come, and not for hours without any: a
        // RST often overtakes the other side's last packets.
        (Reset, _) if flags & SYN == 0 => Doubted,
        _ => state,
    }
}

/// The state of a half that is put into state `to` by one who saw it before another CPU put it
/// into `current`: the two ends that close at the same time are both seen.
#[inline(always)]
pub const fn merge(current: FlowState, to: FlowState) -> FlowState {
    use FlowState::{BackendClosed, ClientClosed, Closed};
    match (current, to) {
        (ClientClosed | Closed, BackendClosed) | (BackendClosed | Closed, ClientClosed) => Closed,
        _ => to,
    }
}

/// Whether the flow has proved itself (both sides have spoken and, for TCP, the client has shown
/// that it is where it says) and packets without SYN, FIN or RST leave the state as it is.
#[inline(always)]
pub const fn is_settled(state: FlowState) -> bool {
    use FlowState::{BackendClosed, ClientClosed, Closed, Doubted, Established};
    matches!(state, Established | ClientClosed | BackendClosed | Closed | Doubted)
}
