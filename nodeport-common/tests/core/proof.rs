//! Only a client that has seen the backend's SYN-ACK proves itself.

use std::net::SocketAddr;

use nodeport_common::abi::{FLOW_PROVED, FlowState, IPPROTO_TCP};
use nodeport_common::core::proof::is_proof;
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::frames::tcp;
use proptest::prelude::*;

use crate::support::*;

/// The backend's first sequence number in these tests: what acknowledges it wraps.
const FIRST: u32 = u32::MAX;
/// What acknowledges it.
const RIGHT: u32 = 0;

/// A newcomer whose SYN the backend has answered; the source that the backend saw.
fn answered<F: Net>(node: &Node) -> SocketAddr {
    let seen = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    answer::<F>(node, seen);
    seen
}

fn answer<F: Net>(node: &Node, seen: SocketAddr) {
    let answer = tcp(remote::<F>(), seen, SYN | ACK).numbers(FIRST, 1);
    assert_eq!(node.xdp(&answer).view().dst, client::<F>());
}

/// A segment of the client; it is delivered, whatever it proves.
fn segment<F: Net>(node: &Node, flags: u8, acknowledges: u32) {
    let segment = tcp(client::<F>(), frontend::<F>(), flags).numbers(7, acknowledges);
    assert_eq!(node.xdp(&segment).view().dst, remote::<F>());
}

/// Whether each half has proved itself.
fn proved<F: Net>(node: &Node) -> Vec<bool> {
    node.halves::<F>().iter().map(|(_, _, half)| half.flags & FLOW_PROVED != 0).collect()
}

fn blind_segments_prove_nothing<F: Net>() {
    let node = Node::new();
    answered::<F>(&node);
    for flags in [ACK, ACK | FIN, FIN, 0, ACK | RST, RST] {
        for number in [0x8000_0000, FIRST, 65_536, 0x0506_0708] {
            segment::<F>(&node, flags, number);
        }
    }
    // A number that means nothing without the flag.
    segment::<F>(&node, FIN, RIGHT);
    assert_eq!(proved::<F>(&node), [false, false]);
    segment::<F>(&node, ACK, RIGHT);
    assert_eq!(proved::<F>(&node), [true, true]);
}
in_both_families!(blind_segments_prove_nothing);

/// Data that a backend sent behind its SYN (TCP Fast Open) is acknowledged as well; and the client's
/// first segment may bring data, or its end.
fn whatever_acknowledges_the_syn_proves<F: Net>() {
    for (flags, number) in [(ACK, RIGHT), (ACK, 1_460), (ACK, 65_535), (ACK | FIN, RIGHT)] {
        let node = Node::new();
        answered::<F>(&node);
        segment::<F>(&node, flags, number);
        assert_eq!(proved::<F>(&node), [true, true], "{flags:#x} {number}");
    }
}
in_both_families!(whatever_acknowledges_the_syn_proves);

fn segments_that_are_sent_again_change_nothing<F: Net>() {
    let node = Node::new();
    let seen = answered::<F>(&node);
    for _ in 0..3 {
        node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
        answer::<F>(&node, seen);
    }
    segment::<F>(&node, ACK, RIGHT);
    // The answer is under way once more.
    answer::<F>(&node, seen);
    assert_eq!(proved::<F>(&node), [true, true]);
    for (_, _, half) in node.halves::<F>() {
        assert_eq!(half.state, FlowState::Established as u8);
        assert!((half.packets, half.bytes) <= (5, 600), "{} {}", half.packets, half.bytes);
    }
}
in_both_families!(segments_that_are_sent_again_change_nothing);

fn packets_and_bytes_are_counted_throughout<F: Net>() {
    let node = Node::new();
    let size = tcp(client::<F>(), frontend::<F>(), SYN).packet().len() as u64;
    let seen = answered::<F>(&node);
    let forward = || node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).unwrap().1;
    for sent in 1..4 {
        assert_eq!((forward().packets, forward().bytes), (sent, sent * size));
        node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    }
    segment::<F>(&node, ACK, RIGHT);
    assert_eq!((forward().packets, forward().bytes), (5, 5 * size));
    let reply = node.half::<F>(IPPROTO_TCP, remote::<F>(), seen).unwrap().1;
    assert_eq!((reply.packets, reply.bytes), (1, size));
}
in_both_families!(packets_and_bytes_are_counted_throughout);

/// The client's half is lost before the answer: made anew, it knows the number.
fn a_half_that_is_made_anew_knows_the_number<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    answer::<F>(&node, seen);
    segment::<F>(&node, ACK, 0x8000_0000);
    assert_eq!(proved::<F>(&node), [false, false]);
    segment::<F>(&node, ACK, RIGHT);
    assert_eq!(proved::<F>(&node), [true, true]);
}
in_both_families!(a_half_that_is_made_anew_knows_the_number);

proptest! {
    #[test]
    fn the_window_is_that_of_a_syn(number: u32, behind: u32) {
        prop_assert_eq!(is_proof(number, number.wrapping_add(behind)), behind < 65_536);
    }
}
