//! How long flows may be silent, from the user's settings.

use std::time::Duration;

use nodeport_common::core::expiry::Limits;

use crate::config::Timeouts;

/// In ticks of a clock with `hz` of them a second. A connection that is closed or reset gives its port
/// back no later than one that is closing, and nothing waits longer for an answer than it lives.
pub(in super::super) fn limits(timeouts: &Timeouts, hz: u32) -> Limits {
    let Timeouts { tcp, tcp_transient, tcp_closed, tcp_doubted, unanswered, udp } = *timeouts;
    let ticks = |time: Duration| {
        let ticks = (time.as_millis() * u128::from(hz)).div_ceil(1_000);
        // Half of the clock's range: what is above counts as the future.
        u32::try_from(ticks).unwrap_or(u32::MAX).min(i32::MAX as u32)
    };
    Limits {
        tcp: ticks(tcp),
        tcp_answered: ticks(tcp_transient),
        tcp_opening: ticks(tcp_transient.min(unanswered)),
        tcp_closed: ticks(tcp_transient.min(tcp_closed)),
        tcp_doubted: ticks(tcp.min(tcp_doubted)),
        udp: ticks(udp),
        udp_opening: ticks(udp.min(unanswered)),
    }
}

#[cfg(test)]
mod tests {
    use nodeport_common::abi::{FlowState, IPPROTO_TCP, IPPROTO_UDP};

    use super::*;

    const HZ: u32 = 250;
    const ALL: [FlowState; 8] = [
        FlowState::Opening,
        FlowState::Answered,
        FlowState::Established,
        FlowState::ClientClosed,
        FlowState::BackendClosed,
        FlowState::Closed,
        FlowState::Reset,
        FlowState::Doubted,
    ];

    /// Those of the command line.
    const DEFAULTS: Timeouts = Timeouts {
        tcp: Duration::from_secs(8_000),
        tcp_transient: Duration::from_secs(60),
        tcp_closed: Duration::from_secs(10),
        tcp_doubted: Duration::from_secs(120),
        unanswered: Duration::from_secs(30),
        udp: Duration::from_secs(120),
    };

    fn usual() -> Limits {
        limits(&DEFAULTS, HZ)
    }

    #[test]
    fn each_timer_is_the_users() {
        let timeouts = Timeouts {
            tcp: Duration::from_secs(90),
            tcp_transient: Duration::from_secs(80),
            tcp_closed: Duration::from_secs(70),
            tcp_doubted: Duration::from_secs(60),
            unanswered: Duration::from_secs(50),
            udp: Duration::from_secs(75),
        };
        for (protocol, seconds) in [
            (IPPROTO_TCP, [50, 80, 90, 90, 90, 70, 70, 60]),
            (IPPROTO_UDP, [50, 75, 75, 75, 75, 75, 75, 75]),
        ] {
            for (state, seconds) in ALL.into_iter().zip(seconds) {
                assert_eq!(
                    limits(&timeouts, 1).of(state, protocol),
                    seconds,
                    "{state:?} {protocol}"
                );
            }
        }
    }

    #[test]
    fn each_state_has_its_time() {
        for (protocol, seconds) in [
            (IPPROTO_TCP, [30, 60, 8_000, 8_000, 8_000, 10, 10, 120]),
            (IPPROTO_UDP, [30, 120, 120, 120, 120, 120, 120, 120]),
        ] {
            for (state, seconds) in ALL.into_iter().zip(seconds) {
                let limit = seconds * HZ;
                let name = format!("{state:?} of protocol {protocol}");
                assert_eq!(usual().of(state, protocol), limit, "{name}");
            }
        }
    }

    #[test]
    fn what_the_user_shortens_shortens_what_depends_on_it() {
        let timeouts = Timeouts {
            tcp: Duration::from_secs(5),
            tcp_transient: Duration::from_secs(2),
            udp: Duration::from_secs(3),
            ..DEFAULTS
        };
        let limits = limits(&timeouts, 100);
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
}
