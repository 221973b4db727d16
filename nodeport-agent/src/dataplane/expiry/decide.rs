//! Has a flow been silent for too long? From values alone.

use std::time::Duration;

use nodeport_common::abi::{Flow, FlowState, IPPROTO_TCP};

use crate::config::Timeouts;

/// A connection that both sides have closed, or one has reset, gives its port back soon: what may
/// still come are the last segments, sent again.
const CLOSED: Duration = Duration::from_secs(10);
/// Longest that one direction waits for a first answer. TCP sends its SYN again after 1, 3, 7 and
/// 15 seconds.
const UNANSWERED: Duration = Duration::from_secs(30);

/// How long flows may be silent, in jiffies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Limits {
    tcp: u32,
    tcp_answered: u32,
    tcp_opening: u32,
    tcp_closed: u32,
    udp: u32,
    udp_opening: u32,
}

impl Limits {
    /// In ticks of a clock with `hz` of them a second.
    pub(in super::super) fn new(timeouts: &Timeouts, hz: u32) -> Self {
        let Timeouts { tcp, tcp_transient, udp } = *timeouts;
        let ticks = |time: Duration| {
            let ticks = (time.as_millis() * u128::from(hz)).div_ceil(1_000);
            // Half of the clock's range: what is above counts as the future.
            u32::try_from(ticks).unwrap_or(u32::MAX).min(i32::MAX as u32)
        };
        Self {
            tcp: ticks(tcp),
            tcp_answered: ticks(tcp_transient),
            tcp_opening: ticks(tcp_transient.min(UNANSWERED)),
            tcp_closed: ticks(tcp_transient.min(CLOSED)),
            udp: ticks(udp),
            udp_opening: ticks(udp.min(UNANSWERED)),
        }
    }

    /// A connection that one side has closed may still carry data the other way for as long as an
    /// open one (RFC 5382, requirement 5 leaves that to us).
    fn of(&self, state: FlowState, protocol: u8) -> u32 {
        use FlowState::{
            Answered, BackendClosed, ClientClosed, Closed, Established, Opening, Reset,
        };
        if protocol != IPPROTO_TCP {
            return if state == Opening { self.udp_opening } else { self.udp };
        }
        match state {
            Opening => self.tcp_opening,
            Answered => self.tcp_answered,
            Established | ClientClosed | BackendClosed => self.tcp,
            Closed | Reset => self.tcp_closed,
        }
    }

    /// Whether a half in this state, of a flow that has been silent for `age`, is over.
    pub(super) fn is_expired(&self, state: FlowState, protocol: u8, age: u32) -> bool {
        age > self.of(state, protocol)
    }

    /// Whether a flow is over: a half that has been silent for too long, and its partner, if it
    /// is there. A packet of either keeps both.
    pub(super) fn is_over<A>(
        &self,
        half: &Flow<A>,
        partner: Option<&Flow<A>>,
        protocol: u8,
        now: u32,
    ) -> bool {
        let age = |half: &Flow<A>| age(half.last_seen, now);
        let younger = partner.map_or(age(half), |partner| age(partner).min(age(half)));
        let expired =
            |half: &Flow<A>| self.is_expired(FlowState::from_u8(half.state), protocol, younger);
        expired(half) && partner.is_none_or(expired)
    }
}

/// Ticks since `seen`. A packet may have come since `now` was read: that is no age at all.
pub(super) fn age(seen: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(seen);
    if age > i32::MAX as u32 { 0 } else { age }
}

#[cfg(test)]
mod tests {
    use nodeport_common::abi::IPPROTO_UDP;

    use super::*;

    const HZ: u32 = 250;
    const ALL: [FlowState; 7] = [
        FlowState::Opening,
        FlowState::Answered,
        FlowState::Established,
        FlowState::ClientClosed,
        FlowState::BackendClosed,
        FlowState::Closed,
        FlowState::Reset,
    ];

    fn limits() -> Limits {
        Limits::new(
            &Timeouts {
                tcp: Duration::from_secs(8_000),
                tcp_transient: Duration::from_secs(60),
                udp: Duration::from_secs(120),
            },
            HZ,
        )
    }

    #[test]
    fn each_state_has_its_time() {
        for (protocol, seconds) in [
            (IPPROTO_TCP, [30, 60, 8_000, 8_000, 8_000, 10, 10]),
            (IPPROTO_UDP, [30, 120, 120, 120, 120, 120, 120]),
        ] {
            for (state, seconds) in ALL.into_iter().zip(seconds) {
                let limit = seconds * HZ;
                let name = format!("{state:?} of protocol {protocol}");
                assert!(!limits().is_expired(state, protocol, limit), "{name}");
                assert!(limits().is_expired(state, protocol, limit + 1), "{name}");
            }
        }
    }

    #[test]
    fn what_the_user_shortens_shortens_what_depends_on_it() {
        let timeouts = Timeouts {
            tcp: Duration::from_secs(5),
            tcp_transient: Duration::from_secs(2),
            udp: Duration::from_secs(3),
        };
        let limits = Limits::new(&timeouts, 100);
        for (state, protocol, limit) in [
            (FlowState::Opening, IPPROTO_TCP, 200),
            (FlowState::Answered, IPPROTO_TCP, 200),
            (FlowState::Closed, IPPROTO_TCP, 200),
            (FlowState::Established, IPPROTO_TCP, 500),
            (FlowState::Opening, IPPROTO_UDP, 300),
        ] {
            assert_eq!(limits.of(state, protocol), limit, "{state:?} {protocol}");
        }
    }

    fn half(state: FlowState, last_seen: u32) -> Flow<[u8; 4]> {
        Flow { state: state as u8, last_seen, ..Flow::default() }
    }

    #[test]
    fn a_flow_lives_while_either_half_does() {
        let now = 10_000_000;
        let seconds_ago = |seconds: u32| now - seconds * HZ;
        let old = half(FlowState::Closed, seconds_ago(100));
        let over = |half: &Flow<_>, partner: Option<&Flow<_>>| {
            limits().is_over(half, partner, IPPROTO_TCP, now)
        };
        assert!(over(&old, None));
        assert!(over(&old, Some(&half(FlowState::Closed, seconds_ago(11)))));
        assert!(!over(&old, Some(&half(FlowState::Closed, seconds_ago(9)))));
        // The partner has not heard yet that the connection is closed, or knows better.
        assert!(!over(&old, Some(&half(FlowState::Established, seconds_ago(100)))));
        let [older, partner] = [FlowState::Closed, FlowState::Established]
            .map(|state| half(state, seconds_ago(8_001)));
        assert!(over(&older, Some(&partner)));
    }

    #[test]
    fn a_missing_partner_is_no_reason() {
        let established = half(FlowState::Established, 0);
        assert!(!limits().is_over(&established, None, IPPROTO_TCP, 7_000 * HZ));
    }

    #[test]
    fn the_clock_wraps_and_runs_ahead() {
        assert_eq!(age(u32::MAX - 9, 10), 20);
        assert_eq!(age(11, 10), 0);
        assert_eq!(age(10, 10), 0);
    }
}
