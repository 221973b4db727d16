//! Source ports towards backends elsewhere: no two flows share one, and none is lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use nodeport_common::abi::{FlowState, FrontendKey, IPPROTO_TCP, Reason};
use nodeport_common::core::family::V4;
use nodeport_common::core::flow::set_state;
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::tcp;
use proptest::prelude::*;

use crate::support::*;

fn with_range(count: u16) -> Node {
    let node = Node::new();
    node.world.change_control(|control| control.snat_count = count);
    node
}

fn nth_client<F: Net>(number: u16) -> SocketAddr {
    SocketAddr::new(client_ip::<F>(), 1024 + number)
}

/// A range of any size is used to its end, and only then is there no port.
fn a_range_is_used_to_its_end<F: Net>() {
    for count in [1, 2, 3, 7, 16] {
        let node = with_range(count);
        let ports: BTreeSet<u16> =
            (0..count).map(|n| node.connect::<F>(nth_client::<F>(n)).port()).collect();
        assert_eq!(ports, (SNAT_FIRST..SNAT_FIRST + count).collect());

        let refused = node.xdp(&tcp(nth_client::<F>(count), frontend::<F>(), SYN));
        assert_eq!(refused.action, Action::Drop);
        assert_eq!(node.world.count_of(Reason::NoPort), 1);
        assert_eq!(node.world.stats.borrow()[&11].no_port, 1);
        assert_eq!(node.halves::<F>().len(), 2 * usize::from(count), "nothing is left of it");
    }
}
in_both_families!(a_range_is_used_to_its_end);

fn a_port_is_free_again_when_its_flow_ends<F: Net>() {
    let node = with_range(1);
    let first = node.connect::<F>(client::<F>());
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    // The client itself on the same port, at once.
    let again = node.connect::<F>(client::<F>());
    assert_eq!(first, again);
    // The flow expires: the agent removes both halves.
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    node.lose::<F>(IPPROTO_TCP, remote::<F>(), again);
    assert_eq!(node.connect::<F>(nth_client::<F>(1)), first);
}
in_both_families!(a_port_is_free_again_when_its_flow_ends);

/// A client that begins anew on its ports is known to the backend by the same port as before, where
/// it may be in TIME_WAIT; unless the backend is another one, or the port was given to somebody else.
fn who_begins_anew_keeps_its_port<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    for _ in 0..20 {
        node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
        assert_eq!(node.connect::<F>(client::<F>()), seen);
    }
    assert_eq!(node.halves::<F>().len(), 2);

    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    node.set_slot(0, OTHER_BACKEND);
    let elsewhere = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    assert_ne!((elsewhere.src, elsewhere.dst), (seen, remote::<F>()));
    assert_ne!(elsewhere.src.port(), seen.port(), "it is drawn anew");
}
in_both_families!(who_begins_anew_keeps_its_port);

/// The range was changed in between: a port outside of it would never come back to us.
fn a_port_that_is_no_longer_ours_is_not_kept<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    node.world.change_control(|control| {
        (control.snat_first, control.snat_count) = (seen.port() + 1, 1);
    });
    let again = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    assert_eq!(again.src.port(), seen.port() + 1);
}
in_both_families!(a_port_that_is_no_longer_ours_is_not_kept);

/// No step between two tries may be a multiple of the range, whatever its size.
#[test]
fn a_taken_port_leads_to_a_free_one_in_ranges_of_any_size() {
    let sizes = (2..=200).chain([1000, 1021, 2042, 1021 * 7, 1021 * 64, 28232, 32768, 65535]);
    for count in sizes {
        for random in 72..80 {
            let node = with_range(count);
            node.world.script.borrow_mut().extend([random, random]);
            let first = node.xdp(&tcp(nth_client::<V4>(0), frontend::<V4>(), SYN)).view().src;
            let second = node.xdp(&tcp(nth_client::<V4>(1), frontend::<V4>(), SYN));
            assert_eq!(second.action, Action::Send(INSIDE), "of {count} ports one is taken");
            assert_ne!(second.view().src, first);
        }
    }
}

fn one_port_serves_many_backends<F: Net>() {
    let node = with_range(1);
    let first = node.connect::<F>(client::<F>());
    node.set_slot(0, OTHER_BACKEND);
    let second = node.xdp(&tcp(nth_client::<F>(1), frontend::<F>(), SYN)).view();
    assert_eq!((second.src, second.dst.ip()), (first, F::party(8, 21)));
    let back = node.xdp(&tcp(second.dst, second.src, SYN | ACK)).view();
    assert_eq!(back.dst, nth_client::<F>(1));
    let back = node.xdp(&tcp(remote::<F>(), first, ACK)).view();
    assert_eq!(back.dst, client::<F>());
}
in_both_families!(one_port_serves_many_backends);

/// The client uses one port for two frontends with the same backend on this node.
fn a_local_backend_is_reached_through_two_frontends_from_one_port<F: Net>() {
    let node = Node::new();
    let second_port = 30009;
    node.world.mark_port(second_port, nodeport_common::abi::PORT_FRONTEND);
    let maps = F::maps(&node.world);
    let key =
        |port| FrontendKey { address: F::Addr::default(), port, protocol: IPPROTO_TCP, pad: 0 };
    let frontend = maps.frontends.borrow()[&key(LOCAL_PORT)];
    maps.frontends.borrow_mut().insert(key(second_port), frontend);
    let second_frontend = SocketAddr::new(node_ip::<F>(), second_port);

    node.connect_local::<F>(client::<F>());
    let out = node.ingress(&tcp(client::<F>(), second_frontend, SYN)).view();
    assert_eq!((out.src.ip(), out.dst), (client_ip::<F>(), local::<F>()));
    assert_ne!(out.src.port(), client::<F>().port(), "or the answers could not be told apart");
    let back = node.egress(&tcp(local::<F>(), out.src, SYN | ACK)).view();
    assert_eq!((back.src, back.dst), (second_frontend, client::<F>()));
    let back = node.egress(&tcp(local::<F>(), client::<F>(), ACK)).view();
    assert_eq!((back.src, back.dst), (local_frontend::<F>(), client::<F>()));
}
in_both_families!(a_local_backend_is_reached_through_two_frontends_from_one_port);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn answers_go_to_whom_they_are_for(
        count in 1_u16..40,
        random in prop::collection::vec(any::<u32>(), 0..60),
        steps in prop::collection::vec((0_u16..60, 0_u8..4), 1..120),
    ) {
        let node = with_range(count);
        node.world.script.borrow_mut().extend(random);
        let mut open: std::collections::BTreeMap<u16, SocketAddr> = Default::default();
        for (number, what) in steps {
            let client = nth_client::<V4>(number);
            match (what, open.get(&number).copied()) {
                // A new connection, unless it has one.
                (0 | 1, None) => {
                    let out = node.xdp(&tcp(client, frontend::<V4>(), SYN));
                    if out.action == Action::Drop {
                        // All tries are of different ports.
                        prop_assert!(open.len() >= usize::from(count.min(32)), "{}", open.len());
                    } else {
                        // The handshake is finished: what has not proved itself may lose its port.
                        let seen = out.view().src;
                        node.xdp(&tcp(remote::<V4>(), seen, SYN | ACK)).view();
                        node.xdp(&tcp(client, frontend::<V4>(), ACK)).view();
                        prop_assert!(!open.values().any(|other| *other == seen), "{seen} twice");
                        open.insert(number, seen);
                    }
                }
                // Its end, seen by the agent.
                (2, Some(seen)) => {
                    node.lose::<V4>(IPPROTO_TCP, client, frontend::<V4>());
                    node.lose::<V4>(IPPROTO_TCP, remote::<V4>(), seen);
                    open.remove(&number);
                }
                _ => {}
            }
            for (number, seen) in &open {
                let back = node.xdp(&tcp(remote::<V4>(), *seen, SYN | ACK)).view();
                prop_assert_eq!(back.dst, nth_client::<V4>(*number));
            }
        }
        prop_assert_eq!(node.halves::<V4>().len(), 2 * open.len());
    }
}

/// A flood holds every port: a newcomer takes one of them, and the flood's flow is gone as a whole,
/// whether its backend has answered it (to nobody) or not. What has proved itself keeps its port.
fn a_flood_keeps_nobody_out<F: Net>() {
    for is_answered in [false, true] {
        let node = with_range(1);
        let seen = node.xdp(&tcp(nth_client::<F>(1), frontend::<F>(), SYN)).view().src;
        if is_answered {
            node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
        }
        node.world.wait(HZ / 8);
        assert_eq!(node.connect::<F>(client::<F>()), seen);
        assert!(node.half::<F>(IPPROTO_TCP, nth_client::<F>(1), frontend::<F>()).is_none());
        assert_eq!(node.halves::<F>().len(), 2);
        let refused = node.xdp(&tcp(nth_client::<F>(1), frontend::<F>(), SYN));
        assert_eq!(refused.action, Action::Drop);
        assert_eq!(node.halves::<F>().len(), 2);
    }
}
in_both_families!(a_flood_keeps_nobody_out);

/// Whoever was sent a SYN-ACK a moment ago finishes its handshake, however many want its port.
fn a_handshake_under_way_keeps_its_port<F: Net>() {
    let node = with_range(1);
    let seen = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
    node.world.wait(HZ / 8 - 1);
    let next = tcp(nth_client::<F>(1), frontend::<F>(), SYN);
    assert_eq!(node.xdp(&next).action, Action::Drop);
    assert_eq!(node.world.count_of(Reason::NoPort), 1);
    node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
    assert_paired::<F>(&node);
}
in_both_families!(a_handshake_under_way_keeps_its_port);

/// Closed flows hold most ports: they give them away, and a newcomer among them finishes its handshake.
fn closed_flows_give_their_ports_away_before_newcomers<F: Net>() {
    for ending in [&[FIN | ACK][..], &[RST]] {
        let node = with_range(16);
        for number in 0..15 {
            let seen = node.connect::<F>(nth_client::<F>(number));
            for flags in ending {
                node.xdp(&tcp(nth_client::<F>(number), frontend::<F>(), *flags)).view();
                node.xdp(&tcp(remote::<F>(), seen, *flags)).view();
            }
        }
        let seen = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
        node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
        // What is over was silent for a second by then.
        node.world.wait(HZ + 1);
        for number in 20..23 {
            let theirs = node.connect::<F>(nth_client::<F>(number));
            assert_ne!(theirs, seen, "client {number}");
        }
        node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
        assert_eq!(node.halves::<F>().len(), 32);
        assert_paired::<F>(&node);
    }
}
in_both_families!(closed_flows_give_their_ports_away_before_newcomers);

/// A flow that closed a moment ago keeps its port: its last segments may still be on their way.
fn what_has_just_closed_keeps_its_port<F: Net>() {
    let node = with_range(1);
    node.connect::<F>(client::<F>());
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    let refused = tcp(nth_client::<F>(1), frontend::<F>(), SYN);
    assert_eq!(node.xdp(&refused).action, Action::Drop);
    node.world.wait(HZ + 1);
    assert_eq!(node.xdp(&refused).action, Action::Send(INSIDE));
}
in_both_families!(what_has_just_closed_keeps_its_port);

/// A flow whose backend is gone waits to tell its client, and keeps no port from the backend's next
/// flows meanwhile: that it is there again under another generation happens when a Service is made anew.
fn flows_of_a_backend_that_is_gone_give_their_ports_away<F: Net>() {
    let node = with_range(1);
    node.connect::<F>(client::<F>());
    let next = tcp(nth_client::<F>(1), frontend::<F>(), SYN);
    assert_eq!(node.xdp(&next).action, Action::Drop);
    F::maps(&node.world).backends.borrow_mut()[REMOTE_BACKEND as usize].generation += 1;
    assert_eq!(node.xdp(&next).action, Action::Send(INSIDE));
    assert_paired::<F>(&node);
}
in_both_families!(flows_of_a_backend_that_is_gone_give_their_ports_away);

/// Where most ports are of flows that have proved themselves, the few newcomers are still found.
#[test]
fn the_one_newcomer_among_the_established_is_found_in_a_few_tries() {
    let node = with_range(4);
    for number in 0..3 {
        node.connect::<V4>(nth_client::<V4>(number));
    }
    for number in 3..50 {
        node.world.wait(HZ / 8);
        let out = node.xdp(&tcp(nth_client::<V4>(number), frontend::<V4>(), SYN));
        assert_eq!(out.action, Action::Send(INSIDE), "newcomer {number}");
    }
    assert_eq!(node.halves::<V4>().len(), 8);
}

/// One that has proved itself keeps its port, even if one of its halves looks as if nobody had
/// answered: another CPU may have written that late.
fn what_has_proved_itself_keeps_its_port<F: Net>() {
    let node = with_range(1);
    node.connect::<F>(client::<F>());
    let flows = &F::maps(&node.world).flows;
    for (_, key, _) in node.halves::<F>() {
        assert!(flows.change(&key, |half| set_state(half, FlowState::Opening)));
    }
    assert_eq!(node.xdp(&tcp(nth_client::<F>(1), frontend::<F>(), SYN)).action, Action::Drop);
    assert_eq!(node.world.count_of(Reason::NoPort), 1);
    assert!(node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).is_some());
}
in_both_families!(what_has_proved_itself_keeps_its_port);

/// The newcomer whose port is taken had lost its other half, and that half's place is another
/// flow's by now.
fn taking_a_port_over_from_an_orphan_ends_no_other_flow<F: Net>() {
    let node = with_range(1);
    node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    node.set_slot(0, OTHER_BACKEND);
    let elsewhere = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    node.set_slot(0, REMOTE_BACKEND);
    node.world.wait(HZ / 8);
    let out = node.xdp(&tcp(nth_client::<F>(1), frontend::<F>(), SYN)).view();
    assert_eq!(out.dst, remote::<F>(), "the port was the orphan's");
    let (_, alive) = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).expect("alive");
    assert_eq!(alive.backend, OTHER_BACKEND);
    let back = node.xdp(&tcp(elsewhere.dst, elsewhere.src, SYN | ACK)).view();
    assert_eq!(back.dst, client::<F>());
}
in_both_families!(taking_a_port_over_from_an_orphan_ends_no_other_flow);

/// The client's ACK is on another CPU while a newcomer looks for a port: the port stays.
fn what_proves_itself_in_this_instant_keeps_its_port<F: Net>() {
    let node = with_range(1);
    let seen = node.xdp(&tcp(nth_client::<F>(1), frontend::<F>(), SYN)).view().src;
    node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
    let (_, key, _) = node.halves::<F>().into_iter().find(|(_, _, half)| is_reply(half)).unwrap();
    F::maps(&node.world).flows.meanwhile(&key, 1, |mut half| {
        set_state(&mut half, FlowState::Established);
        Some(half)
    });
    node.world.wait(HZ / 8);
    assert_eq!(node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).action, Action::Drop);
    assert_eq!(node.world.count_of(Reason::NoPort), 1);
    node.xdp(&tcp(nth_client::<F>(1), frontend::<F>(), ACK)).view();
    assert_eq!(node.halves::<F>().len(), 2);
    assert_paired::<F>(&node);
}
in_both_families!(what_proves_itself_in_this_instant_keeps_its_port);

/// The client's half has proved itself, and the news has not reached the other one yet.
fn a_client_that_has_just_proved_itself_keeps_its_port<F: Net>() {
    let node = with_range(1);
    let seen = node.xdp(&tcp(nth_client::<F>(1), frontend::<F>(), SYN)).view().src;
    node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
    let halves = node.halves::<F>();
    let (_, key, _) = halves.iter().find(|(_, _, half)| !is_reply(half)).unwrap();
    let flows = &F::maps(&node.world).flows;
    assert!(flows.change(key, |half| set_state(half, FlowState::Established)));
    node.world.wait(HZ / 8);
    assert_eq!(node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).action, Action::Drop);
    assert_eq!(node.world.count_of(Reason::NoPort), 1);
    assert_eq!(node.halves::<F>().len(), 2);
}
in_both_families!(a_client_that_has_just_proved_itself_keeps_its_port);
