//! The life of a flow.

use nodeport_common::abi::{FlowState, IPPROTO_TCP, IPPROTO_UDP};
use nodeport_common::core::state::{
    ACK, Direction, FIN, RST, SYN, is_reusable, is_settled, may_open, next, opens,
};
use proptest::prelude::*;

use FlowState::{
    Answered, BackendClosed, ClientClosed, Closed, Doubted, Established, Opening, Reset,
};

const ALL: [FlowState; 8] =
    [Opening, Answered, Established, ClientClosed, BackendClosed, Closed, Reset, Doubted];
const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reply];

/// The state after these TCP packets, from [`Opening`].
fn after(packets: &[(Direction, u8)]) -> FlowState {
    packets.iter().fold(Opening, |state, (way, flags)| next(state, IPPROTO_TCP, *flags, *way))
}

const TO: Direction = Direction::Forward;
const FROM: Direction = Direction::Reply;

#[test]
fn every_state_has_its_number() {
    for state in ALL {
        assert_eq!(FlowState::from_u8(state as u8), state);
    }
    for number in 8..=u8::MAX {
        assert_eq!(FlowState::from_u8(number), Opening, "{number}");
    }
}

#[test]
fn there_is_a_next_state_for_everything() {
    for state in ALL {
        for flags in 0..=u8::MAX {
            for way in BOTH {
                for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
                    assert!(ALL.contains(&next(state, protocol, flags, way)));
                }
            }
        }
    }
}

#[test]
fn a_connection_is_established_when_the_client_confirms() {
    assert_eq!(after(&[(TO, SYN)]), Opening);
    assert_eq!(after(&[(TO, SYN), (FROM, SYN | ACK)]), Answered);
    assert_eq!(after(&[(TO, SYN), (FROM, SYN | ACK), (TO, ACK)]), Established);
    let resent = [(TO, SYN), (FROM, SYN | ACK), (TO, SYN), (FROM, SYN | ACK)];
    assert_eq!(after(&resent), Answered);
}

#[test]
fn a_client_alone_establishes_nothing() {
    // A flood of SYNs, ACKs and data from forged addresses: the backend says nothing.
    for flags in 0..=u8::MAX {
        let state = next(Opening, IPPROTO_TCP, flags, TO);
        assert_eq!(state, Opening, "{flags:#x}");
    }
}

#[test]
fn who_has_not_confirmed_is_not_established_by_the_other_sides_end() {
    assert_eq!(next(Opening, IPPROTO_TCP, FIN | ACK, FROM), Opening);
    assert_eq!(next(Answered, IPPROTO_TCP, FIN | ACK, FROM), Answered);
    // The client's FIN has its confirmation in it.
    assert_eq!(next(Answered, IPPROTO_TCP, FIN | ACK, TO), ClientClosed);
}

#[test]
fn both_sides_close_in_either_order() {
    let open = [(TO, SYN), (FROM, SYN | ACK), (TO, ACK)];
    let client_first = [&open[..], &[(TO, FIN | ACK)]].concat();
    assert_eq!(after(&client_first), ClientClosed);
    assert_eq!(after(&[&client_first[..], &[(TO, FIN | ACK)]].concat()), ClientClosed);
    assert_eq!(after(&[&client_first[..], &[(FROM, FIN | ACK)]].concat()), Closed);
    let backend_first = [&open[..], &[(FROM, FIN | ACK)]].concat();
    assert_eq!(after(&backend_first), BackendClosed);
    assert_eq!(after(&[&backend_first[..], &[(TO, FIN | ACK), (FROM, ACK)]].concat()), Closed);
}

#[test]
fn a_half_closed_connection_still_carries_data() {
    for state in [ClientClosed, BackendClosed, Closed] {
        for way in BOTH {
            assert_eq!(next(state, IPPROTO_TCP, ACK, way), state);
        }
    }
}

#[test]
fn a_stray_reset_is_survived() {
    for state in [Established, ClientClosed, BackendClosed, Doubted] {
        for way in BOTH {
            let reset = next(state, IPPROTO_TCP, RST, way);
            assert_eq!(reset, Reset);
            assert!(!is_settled(reset), "packets after it must be looked at");
            for way in BOTH {
                assert_eq!(next(reset, IPPROTO_TCP, ACK, way), Doubted);
            }
        }
    }
}

#[test]
fn a_syn_does_not_revive() {
    for flags in [SYN, SYN | ACK] {
        for way in BOTH {
            assert_eq!(next(Reset, IPPROTO_TCP, flags, way), Reset);
        }
    }
}

#[test]
fn a_reset_does_not_open_or_reopen() {
    for state in [Opening, Answered, Closed] {
        for way in BOTH {
            assert_eq!(next(state, IPPROTO_TCP, RST | ACK, way), state);
        }
    }
}

#[test]
fn only_ends_can_be_used_again() {
    for state in ALL {
        let over = matches!(state, ClientClosed | BackendClosed | Closed | Reset);
        assert_eq!(is_reusable(state), over, "{state:?}");
    }
}

#[test]
fn only_a_bare_syn_opens() {
    for flags in 0..=u8::MAX {
        let bare = flags & (SYN | ACK | RST | FIN) == SYN;
        assert_eq!(opens(flags), bare, "{flags:#x}");
        assert_eq!(may_open(IPPROTO_TCP, flags), bare, "{flags:#x}");
        assert!(may_open(IPPROTO_UDP, flags));
    }
}

#[test]
fn udp_is_established_by_an_answer() {
    assert_eq!(next(Opening, IPPROTO_UDP, 0, TO), Opening);
    assert_eq!(next(Opening, IPPROTO_UDP, 0, FROM), Established);
    assert_eq!(next(Established, IPPROTO_UDP, 0, TO), Established);
}

proptest! {
    #[test]
    fn settled_flows_do_not_heed_plain_packets(flags: u8, state in 0_u8..7, to: bool) {
        let (state, way) = (FlowState::from_u8(state), if to { TO } else { FROM });
        let plain = flags & !(SYN | FIN | RST);
        if is_settled(state) {
            // What the straight line of the walk relies on.
            prop_assert_eq!(next(state, IPPROTO_TCP, plain, way), state);
            prop_assert_eq!(next(state, IPPROTO_UDP, 0, way) == state, state == Established || to);
        }
    }

    #[test]
    fn no_packets_settle_a_flow_that_the_backend_never_answered(
        flags in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let packets: Vec<_> = flags.into_iter().map(|flags| (TO, flags)).collect();
        prop_assert!(!is_settled(after(&packets)), "{:?}", packets);
    }
}
