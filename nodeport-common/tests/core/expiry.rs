//! Flows that have been silent for too long, and those that only seem so.

use nodeport_common::abi::{Flow, FlowState, IPPROTO_TCP};
use nodeport_common::core::expiry::age;

use crate::support::{HZ, limits};

const NOW: u32 = 10_000_000;

/// A half in this state that was seen so many seconds ago.
fn half(state: FlowState, seconds_ago: u32) -> Flow<[u8; 4]> {
    Flow { state: state as u8, last_seen: NOW - seconds_ago * HZ, ..Flow::default() }
}

#[test]
fn a_flow_lives_while_either_half_does() {
    let old = half(FlowState::Closed, 100);
    let over = |partner| limits().are_over(&old, &partner, IPPROTO_TCP, NOW);
    assert!(limits().is_over(&old, IPPROTO_TCP, NOW));
    assert!(over(half(FlowState::Closed, 11)));
    assert!(!over(half(FlowState::Closed, 9)));
    // The partner has not heard yet that the connection is closed, or knows better.
    assert!(!over(half(FlowState::Established, 100)));
    let partner = half(FlowState::Established, 8_001);
    assert!(limits().are_over(&half(FlowState::Closed, 8_001), &partner, IPPROTO_TCP, NOW));
}

#[test]
fn an_established_half_alone_is_not_over() {
    assert!(!limits().is_over(&half(FlowState::Established, 7_000), IPPROTO_TCP, NOW));
}

#[test]
fn the_clock_wraps_and_runs_ahead() {
    assert_eq!(age(u32::MAX - 9, 10), 20);
    assert_eq!(age(11, 10), 0);
    assert_eq!(age(10, 10), 0);
}
