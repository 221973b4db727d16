//! What a packet gets for which a service has no backend.

use std::net::SocketAddr;

use nodeport_common::abi::{
    BACKEND_DRAINING, BACKEND_GONE, FRONTEND_DROPS, Frontend, FrontendKey, IPPROTO_TCP,
    NO_BACKEND_DROPS, NO_BACKEND_RESETS, Reason,
};
use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{NODE_MAC, PEER_MAC, View, reset, tcp, udp};

use crate::support::*;

const ARRIVING: [Hook; 2] = [Hook::Xdp, Hook::Ingress];

/// A node whose services have no slots.
fn empty<F: Net>() -> Node {
    let node = Node::new();
    for frontend in F::maps(&node.world).frontends.borrow_mut().values_mut() {
        frontend.slots_len = 0;
    }
    node
}

fn refusals(node: &Node) -> u64 {
    node.world.stats.borrow().get(&11).map_or(0, |stats| stats.no_backend)
}

fn all_protocols_are_refused<F: Net>() {
    for hook in ARRIVING {
        for packet in [
            tcp(client::<F>(), frontend::<F>(), SYN),
            tcp(client::<F>(), frontend::<F>(), SYN).payload(&[7; 100]),
            udp(client::<F>(), frontend::<F>()),
        ] {
            let node = empty::<F>();
            let out = node.walk(hook, &packet.build());
            assert_eq!(out.action, Action::Back(NIC), "back where it came from");
            let View { dst_mac, src_mac, src, dst, ttl, payload, .. } = out.view();
            assert_eq!((dst_mac, src_mac, ttl), (PEER_MAC, NODE_MAC, 64));
            assert_eq!((src.ip(), dst.ip()), (frontend::<F>().ip(), client::<F>().ip()));
            // RFC 792 and RFC 4443, 3.1: port unreachable.
            assert_eq!(payload[..2], if F::VERSION == 4 { [3, 3] } else { [1, 4] });
            assert_eq!(payload[4..8], [0; 4]);
            assert!(packet.packet().starts_with(&payload[8..]), "quoted as it came");
            assert_eq!((refusals(&node), node.world.count_of(Reason::NoBackend)), (1, 1));
            assert!(node.halves::<F>().is_empty(), "it opened nothing");
        }
    }
}
in_both_families!(all_protocols_are_refused);

fn backends_that_are_not_usable_are_none<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let packet = tcp(client::<F>(), frontend::<F>(), SYN).build();
        for state in [BACKEND_GONE, BACKEND_DRAINING] {
            F::maps(&node.world).backends.borrow_mut()[REMOTE_BACKEND as usize].state = state;
            assert_eq!(node.walk(hook, &packet).action, Action::Back(NIC));
        }
        for bad in [999, u32::MAX] {
            node.set_slot(0, bad);
            assert_eq!(node.walk(hook, &packet).action, Action::Back(NIC));
        }
        assert_eq!((refusals(&node), node.world.count_of(Reason::NoBackend)), (4, 4));
    }
}
in_both_families!(backends_that_are_not_usable_are_none);

/// `externalTrafficPolicy: Local`, and endpoints on other nodes only: whoever balances before the
/// nodes shall try another one.
fn where_only_others_could_answer_packets_are_dropped<F: Net>() {
    for hook in ARRIVING {
        let node = empty::<F>();
        for frontend in F::maps(&node.world).frontends.borrow_mut().values_mut() {
            frontend.flags = FRONTEND_DROPS;
        }
        for rule in [0, NO_BACKEND_RESETS, NO_BACKEND_DROPS] {
            node.world.change_control(|control| control.no_backend = rule);
            let out = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), SYN).build());
            assert_eq!(out.action, Action::Drop);
        }
        assert_eq!((refusals(&node), node.world.count_of(Reason::NoLocalBackend)), (3, 3));
    }
}
in_both_families!(where_only_others_could_answer_packets_are_dropped);

fn the_budget_limits_refusals<F: Net>() {
    for hook in ARRIVING {
        let node = empty::<F>();
        let packet = udp(client::<F>(), frontend::<F>()).build();
        let sent = (0..15).filter(|_| node.walk(hook, &packet).action == Action::Back(NIC));
        assert_eq!(sent.count(), 5);
        assert_eq!(node.world.count_of(Reason::ErrorLimit), 10);
        assert_eq!(refusals(&node), 15);
        // The other half of the budget is for those that have something else to be told.
        let last_hop = udp(client::<F>(), local_frontend::<F>()).ttl(1);
        for frontend in F::maps(&node.world).frontends.borrow_mut().values_mut() {
            frontend.slots_len = 1;
        }
        node.set_slot(1, REMOTE_BACKEND);
        let told =
            (0..9).filter(|_| node.walk(hook, &last_hop.build()).action == Action::Back(NIC));
        assert_eq!(told.count(), 5);
    }
}
in_both_families!(the_budget_limits_refusals);

fn other_answers_can_be_chosen<F: Net>() {
    for hook in ARRIVING {
        let segment = tcp(client::<F>(), frontend::<F>(), SYN).build();
        let datagram = udp(client::<F>(), frontend::<F>()).build();
        for (rule, packet, action) in [
            (NO_BACKEND_RESETS, &datagram, Action::Back(NIC)),
            (NO_BACKEND_DROPS, &segment, Action::Drop),
            (NO_BACKEND_DROPS, &datagram, Action::Drop),
        ] {
            let node = empty::<F>();
            node.world.change_control(|control| control.no_backend = rule);
            assert_eq!(node.walk(hook, packet).action, action, "{hook:?}, rule {rule}");
            let is = (refusals(&node), node.world.count_of(Reason::NoBackend));
            assert_eq!(is, (1, 1), "{hook:?}, rule {rule}");
        }
    }
}
in_both_families!(other_answers_can_be_chosen);

/// At whichever address the frontend is, and within the same budget as other refusals.
fn connections_can_be_reset<F: Net>() {
    for hook in ARRIVING {
        let node = empty::<F>();
        node.world.change_control(|control| control.no_backend = NO_BACKEND_RESETS);
        let key = FrontendKey {
            address: F::bytes(F::party(9, 99)),
            port: REMOTE_PORT,
            protocol: IPPROTO_TCP,
            pad: 0,
        };
        let balanced = Frontend { service: 11, ..Frontend::default() };
        F::maps(&node.world).frontends.borrow_mut().insert(key, balanced);
        for to in [frontend::<F>(), SocketAddr::new(F::party(9, 99), REMOTE_PORT)] {
            let syn = tcp(client::<F>(), to, SYN).numbers(u32::MAX, 77).payload(&[5; 30]);
            let out = node.walk(hook, &syn.build());
            assert_eq!(out.action, Action::Back(NIC));
            let told = reset(to, client::<F>(), ACK).numbers(0, 30).macs(PEER_MAC, NODE_MAC);
            assert_eq!(out.bytes, told.build());
        }
        assert_eq!((refusals(&node), node.world.count_of(Reason::NoBackend)), (2, 2));
        let syn = tcp(client::<F>(), frontend::<F>(), SYN).build();
        let sent = (0..15).filter(|_| node.walk(hook, &syn).action == Action::Back(NIC));
        assert_eq!(sent.count(), 3);
        assert_eq!(node.world.count_of(Reason::ErrorLimit), 12);
    }
}
in_both_families!(connections_can_be_reset);

/// Kube-proxy's rule is for what would begin a connection; what belongs to none the stack resets.
fn what_opens_nothing_is_left_to_the_stack<F: Net>() {
    for hook in ARRIVING {
        let node = empty::<F>();
        let out = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), ACK).build());
        assert_eq!(out.action, Action::Pass);
        assert_eq!(refusals(&node), 0);
    }
}
in_both_families!(what_opens_nothing_is_left_to_the_stack);
