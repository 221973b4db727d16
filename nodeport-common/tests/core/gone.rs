//! Connections whose backend is gone, and the resets that their clients get.

use std::net::SocketAddr;

use nodeport_common::abi::{BACKEND_DRAINING, FlowState, IPPROTO_TCP, IPPROTO_UDP, Reason};
use nodeport_common::core::env::Hook;
use nodeport_common::core::expiry::end;
use nodeport_common::core::host::{At, Checksum, SkbFrame, World, XDP};
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::core::work::Work;
use nodeport_common::frames::{Draft, NODE_MAC, PEER_MAC, reset, tcp, udp};

use crate::support::*;

const ARRIVING: [Hook; 2] = [Hook::Xdp, Hook::Ingress];

/// A node with a connection to a backend that is gone, of each service.
fn node<F: Net>() -> (Node, SocketAddr) {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.connect_local::<F>(client::<F>());
    node.end_backend::<F>(REMOTE_BACKEND);
    node.end_backend::<F>(LOCAL_BACKEND);
    (node, seen)
}

/// The reset that the client gets from that frontend.
fn told<F: Net>(from: SocketAddr, flags: u8, sequence: u32, acknowledges: u32) -> Draft {
    reset(from, client::<F>(), flags).numbers(sequence, acknowledges).macs(PEER_MAC, NODE_MAC)
}

fn state<F: Net>(node: &Node) -> Option<u8> {
    node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).map(|(_, half)| half.state)
}

/// RFC 9293, 3.10.7.1: "If the ACK bit is off, sequence number zero is used,
/// <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>; if the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>".
fn each_segment_is_reset_as_the_rfc_says<F: Net>() {
    for hook in ARRIVING {
        for (flags, payload, answer) in [
            (ACK, 0, (0, 0x99, 0)),
            (ACK, 700, (0, 0x99, 0)),
            (FIN | ACK, 5, (0, 0x99, 0)),
            (SYN | ACK, 0, (0, 0x99, 0)),
            (0, 0, (ACK, 0, 0xffff_fffe)),
            (0, 9, (ACK, 0, 7)),
            (FIN, 1, (ACK, 0, 0)),
            (SYN | FIN, 0, (ACK, 0, 0)),
        ] {
            for to in [frontend::<F>(), local_frontend::<F>()] {
                let (node, _) = node::<F>();
                let segment = tcp(client::<F>(), to, flags)
                    .numbers(0xffff_fffe, 0x99)
                    .payload(&vec![3; payload]);
                let out = node.walk(hook, &segment.build());
                assert_eq!(out.action, Action::Back(NIC), "{hook:?}, {flags:#x}");
                let (flags, sequence, acknowledges) = answer;
                let wanted = told::<F>(to, flags, sequence, acknowledges);
                assert_eq!(out.bytes, wanted.build(), "{hook:?}, {flags:#x}, {payload} bytes");
                assert_eq!(node.world.count_of(Reason::ConnectionReset), 1);
                assert_eq!(node.world.count_of(Reason::StaleBackend), 0);
            }
        }
    }
}
in_both_families!(each_segment_is_reset_as_the_rfc_says);

/// What stands between IP's and TCP's header is no part of the answer; tags are.
fn options_are_left_out_and_tags_stay<F: Net>() {
    let plain = tcp(client::<F>(), frontend::<F>(), ACK).numbers(1, 2).payload(b"some");
    let long = match F::VERSION {
        4 => plain.clone().options(&[1; 40]),
        _ => plain.clone().extension(0, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    };
    for hook in ARRIVING {
        let (node, _) = node::<F>();
        assert_eq!(
            node.walk(hook, &long.build()).bytes,
            told::<F>(frontend::<F>(), 0, 2, 0).build()
        );
    }
    let (node, _) = node::<F>();
    let tagged = told::<F>(frontend::<F>(), 0, 2, 0).tag(0x88a8, 7).tag(0x8100, 9);
    assert_eq!(node.xdp(&plain.tag(0x88a8, 7).tag(0x8100, 9)).bytes, tagged.build());
}
in_both_families!(options_are_left_out_and_tags_stay);

/// The network card adds the sum of the segment to that of the pseudo-header.
fn a_checksum_that_the_card_finishes_is_begun<F: Net>() {
    let (node, _) = node::<F>();
    let segment = tcp(client::<F>(), frontend::<F>(), ACK).numbers(1, 2).payload(b"payload");
    let mut frame = SkbFrame::new(segment.build());
    frame.checksum = Checksum::Partial;
    let verdict = World::ingress(&node.world, NIC, &mut frame);
    assert_eq!(verdict.action(), Action::Back(NIC));
    let l4 = 14 + F::HEADER;
    let sum = |bytes: &[u8]| {
        let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let total: u32 = words.sum();
        let folded = (total & 0xffff) + (total >> 16);
        ((folded & 0xffff) + (folded >> 16)) as u16
    };
    let finished = !sum(&frame.bytes[l4..]);
    frame.bytes[l4 + 16..l4 + 18].copy_from_slice(&finished.to_be_bytes());
    assert_eq!(frame.bytes, told::<F>(frontend::<F>(), 0, 2, 0).build());
}
in_both_families!(a_checksum_that_the_card_finishes_is_begun);

fn a_reset_is_not_answered<F: Net>() {
    for hook in ARRIVING {
        for flags in [RST, RST | ACK, RST | SYN, RST | FIN | ACK] {
            let (node, _) = node::<F>();
            let out = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), flags).build());
            assert_eq!(out.action, Action::Drop, "{hook:?}, {flags:#x}");
            assert_eq!(node.world.count_of(Reason::ConnectionReset), 0);
            assert_eq!(node.world.count_of(Reason::StaleBackend), 1);
        }
    }
}
in_both_families!(a_reset_is_not_answered);

/// The first reset may get lost.
fn a_client_is_told_as_often_as_it_asks<F: Net>() {
    for hook in ARRIVING {
        let (node, _) = node::<F>();
        let segment = tcp(client::<F>(), frontend::<F>(), ACK).payload(b"again").build();
        for times in 1..40 {
            assert_eq!(node.walk(hook, &segment).action, Action::Back(NIC), "whatever the budget");
            assert_eq!(node.world.count_of(Reason::ConnectionReset), times);
            assert_eq!(state::<F>(&node), Some(FlowState::Doubted as u8));
            assert_paired::<F>(&node);
        }
    }
}
in_both_families!(a_client_is_told_as_often_as_it_asks);

fn a_client_that_begins_anew_gets_another_backend_at_once<F: Net>() {
    for hook in ARRIVING {
        for was_told in [false, true] {
            let (node, _) = node::<F>();
            if was_told {
                node.walk(hook, &tcp(client::<F>(), frontend::<F>(), ACK).build());
            }
            node.set_slot(0, OTHER_BACKEND);
            let out = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), SYN).build());
            assert_eq!(out.view().dst.ip(), F::party(8, 21));
            assert_eq!(node.world.count_of(Reason::StaleBackend), 1);
            assert_eq!(state::<F>(&node), Some(FlowState::Opening as u8));
        }
    }
}
in_both_families!(a_client_that_begins_anew_gets_another_backend_at_once);

/// Whoever has not shown that it is where it says does not get among those that have by a segment to
/// a backend that is gone.
fn a_newcomer_does_not_prove_itself_by_it<F: Net>() {
    let node = Node::new();
    node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    node.end_backend::<F>(REMOTE_BACKEND);
    assert_eq!(node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).action, Action::Back(NIC));
    assert_eq!(state::<F>(&node), Some(FlowState::Opening as u8));
    assert!(node.halves::<F>().iter().all(|(proved, ..)| !proved));
}
in_both_families!(a_newcomer_does_not_prove_itself_by_it);

/// It ends, and takes no new connections: those that it has go on.
fn a_backend_that_ends_keeps_its_connections<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        F::maps(&node.world).backends.borrow_mut()[REMOTE_BACKEND as usize].state =
            BACKEND_DRAINING;
        for flags in [ACK, FIN | ACK] {
            let there = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), flags).build());
            assert_eq!((there.action, there.view().dst), (Action::Send(INSIDE), remote::<F>()));
            let back = node.walk(hook, &tcp(remote::<F>(), seen, flags).build());
            assert_eq!((back.action, back.view().dst), (Action::Send(NIC), client::<F>()));
        }
        assert_eq!(node.world.count_of(Reason::ConnectionReset), 0);
    }
}
in_both_families!(a_backend_that_ends_keeps_its_connections);

/// To the node's own address: its stack refuses it. To the client: under an address that it never
/// spoke to, it must not get there.
fn what_the_backend_still_sends_does_not_reach_the_client<F: Net>() {
    for hook in ARRIVING {
        let (node, seen) = node::<F>();
        let late = tcp(remote::<F>(), seen, ACK).payload(b"late").build();
        let out = node.walk(hook, &late);
        assert_eq!((out.action, out.bytes), (Action::Pass, late));
    }
    for was_told in [false, true] {
        let (node, _) = node::<F>();
        if was_told {
            node.ingress(&tcp(client::<F>(), local_frontend::<F>(), ACK));
        }
        // Sent again after longer and longer times (RFC 6298), it keeps the flow for that long.
        for _ in 0..4 {
            node.world.wait(119 * HZ);
            assert!(!ends::<F>(&node, IPPROTO_TCP, client::<F>(), local_frontend::<F>()));
            assert_eq!(node.egress(&tcp(local::<F>(), client::<F>(), ACK)).action, Action::Drop);
        }
        assert_eq!(node.world.count_of(Reason::StaleBackend), 4);
    }
    let node = Node::new();
    node.ingress(&udp(client::<F>(), local_frontend::<F>())).view();
    node.end_backend::<F>(LOCAL_BACKEND);
    assert_eq!(node.egress(&udp(local::<F>(), client::<F>())).action, Action::Drop);
}
in_both_families!(what_the_backend_still_sends_does_not_reach_the_client);

/// Whether the flow ends now, asked as the agent asks.
fn ends<F: Net>(node: &Node, protocol: u8, src: SocketAddr, dst: SocketAddr) -> bool {
    let mut work = Work { key: key::<F>(protocol, src, dst), ..Work::default() };
    end::<F, _>(&At::<XDP> { world: &node.world, ifindex: 0 }, &mut work, &limits())
}

/// A connection stays until its client could be told, and not for long after that. A datagram's client
/// is told by nothing.
fn a_connection_waits_for_its_client<F: Net>() {
    let (node, _) = node::<F>();
    let ends = |node: &Node| ends::<F>(node, IPPROTO_TCP, client::<F>(), frontend::<F>());
    node.world.wait(7_999 * HZ);
    assert!(!ends(&node));
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK));
    assert_eq!(out.action, Action::Back(NIC));
    node.world.wait(120 * HZ);
    assert!(!ends(&node));
    node.world.wait(1);
    assert!(ends(&node));

    let node = Node::new();
    let seen = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    node.xdp(&udp(remote::<F>(), seen)).view();
    node.end_backend::<F>(REMOTE_BACKEND);
    assert!(self::ends::<F>(&node, IPPROTO_UDP, client::<F>(), frontend::<F>()));
}
in_both_families!(a_connection_waits_for_its_client);

/// RFC 5382, REQ-5: no less than 2 hours and 4 minutes.
fn an_idle_connection_lives_for_two_hours_and_four_minutes<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        for _ in 0..3 {
            node.world.wait((2 * 60 + 4) * 60 * HZ);
            assert!(!ends::<F>(&node, IPPROTO_TCP, client::<F>(), frontend::<F>()));
            assert!(!ends::<F>(&node, IPPROTO_TCP, remote::<F>(), seen));
            // What keeps it is the probe of either side (RFC 9293, 3.8.4).
            let probe = node.walk(hook, &tcp(remote::<F>(), seen, ACK).build());
            assert_eq!(probe.view().dst, client::<F>());
            let answer = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), ACK).build());
            assert_eq!(answer.view().dst, remote::<F>());
        }
    }
}
in_both_families!(an_idle_connection_lives_for_two_hours_and_four_minutes);

/// One RST that is forged or stray ends nothing while data flows; one that ends a connection ends it
/// soon.
fn one_reset_ends_what_is_silent_alone<F: Net>() {
    for hook in ARRIVING {
        for from_client in [true, false] {
            let node = Node::new();
            let seen = node.connect::<F>(client::<F>());
            let walk = |draft: Draft| node.walk(hook, &draft.build()).view();
            match from_client {
                true => walk(tcp(client::<F>(), frontend::<F>(), RST)),
                false => walk(tcp(remote::<F>(), seen, RST)),
            };
            for _ in 0..100 {
                node.world.wait(9 * HZ);
                assert!(!ends::<F>(&node, IPPROTO_TCP, client::<F>(), frontend::<F>()));
                assert_eq!(walk(tcp(client::<F>(), frontend::<F>(), ACK)).dst, remote::<F>());
                assert_eq!(walk(tcp(remote::<F>(), seen, ACK)).dst, client::<F>());
            }
            walk(tcp(remote::<F>(), seen, RST));
            node.world.wait(10 * HZ + 1);
            assert!(ends::<F>(&node, IPPROTO_TCP, client::<F>(), frontend::<F>()));
        }
    }
}
in_both_families!(one_reset_ends_what_is_silent_alone);
