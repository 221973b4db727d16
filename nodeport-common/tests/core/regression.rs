//! Inputs that once failed in a fuzzer, each by the name of what it showed; and the fuzzers'
//! targets on some random inputs, so that they stay alive between two runs of the fuzzers.

use proptest::prelude::*;

use crate::targets;

fn input() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

/// One half had proved itself, there was no room for the other, and the other's new state was taken
/// for stored.
#[test]
fn halves_without_room_for_both_disagreed() {
    targets::flow_state(&[
        0x20, 0x00, 0x98, 0x00, 0x98, 0x98, 0x98, 0x00, 0x98, 0x98, 0x98, 0x98, 0x98, 0x98, 0x98,
        0x98, 0x98, 0x98, 0xff, 0x06, 0x51, 0x51, 0x98, 0x98, 0x98, 0x98, 0x98, 0x98, 0x98, 0x98,
        0x3f, 0x00, 0xfd, 0x38, 0x00, 0xff, 0x34, 0x98, 0x98, 0x00, 0x98, 0x98, 0x98, 0x98, 0x98,
        0x98, 0x98, 0x98, 0x98, 0x98, 0xff, 0x06, 0x51, 0x51, 0x98, 0x98, 0x98, 0x98, 0x98, 0x98,
        0x98, 0x98, 0x3f, 0x00, 0xfd, 0x38, 0x00, 0xff, 0x34, 0x8a,
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn walk_stays_alive(data in input()) {
        targets::walk(&data);
    }

    #[test]
    fn icmp_error_stays_alive(data in input()) {
        targets::icmp_error(&data);
    }

    #[test]
    fn rewrite_roundtrip_stays_alive(data in input()) {
        targets::rewrite_roundtrip(&data);
    }

    #[test]
    fn flow_state_stays_alive(data in input()) {
        targets::flow_state(&data);
    }
}
