//! Which packets open a flow, and to whom.

use std::net::{IpAddr, SocketAddr};

use nodeport_common::abi::{
    BACKEND_DRAINING, BACKEND_GONE, FRONTEND_GUARDED, FRONTEND_YIELDS, Frontend, FrontendKey,
    IPPROTO_TCP, IPPROTO_UDP, PORT_FRONTEND, Reason, SourceRange,
};
use nodeport_common::core::choice::flow_hash;
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, tcp, udp};

use crate::support::*;

const ARRIVING: [Hook; 2] = [Hook::Xdp, Hook::Ingress];

/// The packet goes up as it came, nothing is stored, and that is counted as `reason`.
#[track_caller]
fn assert_left_alone<F: Net>(node: &Node, hook: Hook, packet: &Draft, reason: Option<Reason>) {
    let (before, counters) = (node.halves::<F>(), node.world.counters());
    let out = node.walk(hook, &packet.build());
    assert_eq!((out.action, out.bytes), (Action::Pass, packet.build()), "{hook:?}");
    assert_eq!(node.halves::<F>(), before);
    let mut expected = counters;
    // TC sees it again, and counts it.
    if let Some(reason) = reason.filter(|_| hook != Hook::Xdp) {
        *expected.entry(reason).or_default() += 1;
    }
    assert_eq!(node.world.counters(), expected);
}

fn what_is_not_ours_is_left_alone<F: Net>() {
    let node = Node::new();
    let elsewhere = |ip, port| SocketAddr::new(ip, port);
    for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
        for dst in [
            elsewhere(node_ip::<F>(), 22),
            elsewhere(F::party(1, 9), REMOTE_PORT),
            // Its port is in the range of ours, but it is an answer to somebody else.
            elsewhere(node_ip::<F>(), SNAT_FIRST),
        ] {
            assert_left_alone::<F>(&node, hook, &tcp(client::<F>(), dst, SYN), None);
            assert_left_alone::<F>(&node, hook, &udp(client::<F>(), dst), None);
        }
    }
}
in_both_families!(what_is_not_ours_is_left_alone);

fn an_exact_address_is_served<F: Net>() {
    let node = Node::new();
    let address = F::party(200, 200);
    let maps = F::maps(&node.world);
    let key = FrontendKey { address: F::bytes(address), port: 443, protocol: IPPROTO_TCP, pad: 0 };
    let frontend = Frontend { service: 40, slots_offset: 0, slots_len: 1, ..Frontend::default() };
    maps.frontends.borrow_mut().insert(key, frontend);
    node.world.mark_port(443, PORT_FRONTEND);
    let dst = SocketAddr::new(address, 443);
    assert_eq!(node.xdp(&tcp(client::<F>(), dst, SYN)).view().dst, remote::<F>());
    assert_eq!(node.world.stats.borrow()[&40].opened, 1);
    // On the node's own address nobody listens there, and UDP is another frontend.
    let own = SocketAddr::new(node_ip::<F>(), 443);
    assert_left_alone::<F>(&node, Hook::Xdp, &tcp(client::<F>(), own, SYN), None);
    assert_left_alone::<F>(&node, Hook::Xdp, &udp(client::<F>(), dst), None);
}
in_both_families!(an_exact_address_is_served);

fn what_is_left_to_a_listener_opens_nothing<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        for frontend in F::maps(&node.world).frontends.borrow_mut().values_mut() {
            frontend.flags = FRONTEND_YIELDS;
        }
        let new = SocketAddr::new(client_ip::<F>(), 41000);
        for packet in [tcp(new, frontend::<F>(), SYN), udp(new, frontend::<F>())] {
            assert_left_alone::<F>(&node, hook, &packet, None);
        }
        // The listener's own connections go on past us, and count as nothing odd.
        assert_left_alone::<F>(&node, hook, &tcp(new, frontend::<F>(), ACK), None);
        let old = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), ACK).build());
        assert_eq!(old.view().src, seen, "a flow that was opened before keeps its backend");
    }
}
in_both_families!(what_is_left_to_a_listener_opens_nothing);

fn one_address_may_be_left_to_a_listener<F: Net>() {
    let node = Node::new();
    let own = frontend::<F>();
    let key = FrontendKey {
        address: F::bytes(own.ip()),
        port: own.port(),
        protocol: IPPROTO_TCP,
        pad: 0,
    };
    let left = Frontend { flags: FRONTEND_YIELDS, ..Frontend::default() };
    F::maps(&node.world).frontends.borrow_mut().insert(key, left);
    for hook in ARRIVING {
        assert_left_alone::<F>(&node, hook, &tcp(client::<F>(), own, SYN), None);
    }
    assert_eq!(node.xdp(&udp(client::<F>(), own)).view().dst, remote::<F>(), "UDP is another");
}
in_both_families!(one_address_may_be_left_to_a_listener);

fn tcp_opens_by_a_syn_alone<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        for flags in [0, ACK, FIN, RST, SYN | ACK, SYN | FIN, SYN | RST, FIN | ACK, RST | ACK] {
            let packet = tcp(client::<F>(), frontend::<F>(), flags);
            assert_left_alone::<F>(&node, hook, &packet, Some(Reason::NoFlow));
        }
        assert_eq!(
            node.walk(hook, &tcp(client::<F>(), frontend::<F>(), SYN).build()).action,
            Action::Send(INSIDE)
        );
    }
}
in_both_families!(tcp_opens_by_a_syn_alone);

fn nothing_opens_where_packets_leave<F: Net>() {
    let node = Node::new();
    node.world.mark_port(client::<F>().port(), 0xff);
    let packet = tcp(client::<F>(), frontend::<F>(), SYN);
    assert_left_alone::<F>(&node, Hook::Egress, &packet, None);
}
in_both_families!(nothing_opens_where_packets_leave);

fn nothing_opens_before_the_agent_has_spoken<F: Net>() {
    let packet = tcp(client::<F>(), frontend::<F>(), SYN);
    for hook in ARRIVING {
        let node = Node::new();
        node.world.change_control(|control| control.epoch = 0);
        assert_left_alone::<F>(&node, hook, &packet, None);
        node.world.control.set(None);
        assert_left_alone::<F>(&node, hook, &packet, None);
    }
}
in_both_families!(nothing_opens_before_the_agent_has_spoken);

fn assert_martian<F: Net>(sources: &[&str]) {
    let node = Node::new();
    for source in sources {
        let source = SocketAddr::new(source.parse::<IpAddr>().expect("an address"), 5000);
        for hook in ARRIVING {
            for packet in [tcp(source, frontend::<F>(), SYN), udp(source, frontend::<F>())] {
                assert_left_alone::<F>(&node, hook, &packet, Some(Reason::MartianSource));
            }
        }
    }
}

#[test]
fn martians_open_nothing_ipv4() {
    let node = node_ip::<V4>().to_string();
    assert_martian::<V4>(&[
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        &node,
    ]);
}

#[test]
fn martians_open_nothing_ipv6() {
    let node = node_ip::<V6>().to_string();
    assert_martian::<V6>(&["::", "::1", "fe80::1", "febf::1", "ff02::1", "ff0e::1234", &node]);
}

#[test]
fn neighbours_of_martians_are_clients() {
    let node = Node::new();
    for source in ["1.0.0.1", "126.255.255.255", "128.0.0.1", "223.255.255.255"] {
        let source = SocketAddr::new(source.parse().expect("an address"), 5000);
        assert_eq!(node.xdp(&udp(source, frontend::<V4>())).view().dst, remote::<V4>());
    }
    for source in ["::2", "0:0:0:1::", "0:0:1::1", "feff::1", "fe7f::1", "fec0::1"] {
        let source = SocketAddr::new(source.parse().expect("an address"), 5000);
        assert_eq!(node.xdp(&udp(source, frontend::<V6>())).view().dst, remote::<V6>());
    }
}

/// Before a backend is looked for, so that nobody learns whether there is one.
fn guarded_frontends_let_their_clients_in<F: Net>() {
    let bits = u8::BITS * size_of::<F::Addr>() as u32;
    let range =
        |service, bits| (SourceRange { service, address: F::bytes(client_ip::<F>()) }, bits);
    for (ranges, slots, is_in) in [
        (vec![range(11, bits)], 1, true),
        (vec![range(11, 8)], 1, true),
        (vec![range(11, 0)], 1, true),
        (vec![range(12, bits)], 1, false),
        (vec![], 1, false),
        (vec![], 0, false),
    ] {
        for packet in
            [tcp(client::<F>(), frontend::<F>(), SYN), udp(client::<F>(), frontend::<F>())]
        {
            let node = Node::new();
            F::maps(&node.world).ranges.replace(ranges.clone());
            for one in F::maps(&node.world).frontends.borrow_mut().values_mut() {
                (one.flags, one.slots_len) = (FRONTEND_GUARDED, slots);
            }
            let out = node.xdp(&packet);
            let denied = node.world.stats.borrow().get(&11).map_or(0, |stats| stats.denied);
            assert_eq!(
                (denied, node.world.count_of(Reason::SourceRange)),
                match is_in {
                    true => (0, 0),
                    false => (1, 1),
                }
            );
            let action = if is_in { Action::Send(INSIDE) } else { Action::Drop };
            assert_eq!(out.action, action, "{ranges:?}");
        }
    }
}
in_both_families!(guarded_frontends_let_their_clients_in);

/// Who may open flows is asked when they open: a list that changes ends none.
fn what_is_open_goes_on_when_its_client_is_shut_out<F: Net>() {
    let node = Node::new();
    node.connect::<F>(client::<F>());
    for one in F::maps(&node.world).frontends.borrow_mut().values_mut() {
        one.flags = FRONTEND_GUARDED;
    }
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK));
    assert_eq!(out.action, Action::Send(INSIDE));
}
in_both_families!(what_is_open_goes_on_when_its_client_is_shut_out);

fn a_slot_out_of_date_is_passed_over<F: Net>() {
    let node = Node::new();
    // Every second slot names a backend that went a moment ago.
    *node.world.slots.borrow_mut() = (0..100).map(|n| if n % 2 == 0 { 3 } else { 1 }).collect();
    F::maps(&node.world).backends.borrow_mut()[3].state = BACKEND_GONE;
    for frontend in F::maps(&node.world).frontends.borrow_mut().values_mut() {
        (frontend.slots_offset, frontend.slots_len) = (0, 100);
    }
    let opened = (0..100)
        .filter(|n| {
            let client = SocketAddr::new(client_ip::<F>(), 2000 + n);
            node.xdp(&tcp(client, frontend::<F>(), SYN)).action == Action::Send(INSIDE)
        })
        .count();
    // Four picks, each right with one half: 94 of 100 on average. The hashes are fixed.
    assert!(opened >= 80, "{opened}");
}
in_both_families!(a_slot_out_of_date_is_passed_over);

fn a_draining_backend_keeps_what_it_has<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    F::maps(&node.world).backends.borrow_mut()[REMOTE_BACKEND as usize].state = BACKEND_DRAINING;
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
    assert_eq!((out.src, out.dst), (seen, remote::<F>()));
}
in_both_families!(a_draining_backend_keeps_what_it_has);

fn a_draining_node_serves_what_it_has<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        node.world.change_control(|control| control.draining = 1);
        let new = SocketAddr::new(client_ip::<F>(), 41000);
        let packet = tcp(new, frontend::<F>(), SYN);
        assert_left_alone::<F>(&node, hook, &packet, Some(Reason::Draining));
        let packet = udp(new, frontend::<F>());
        assert_left_alone::<F>(&node, hook, &packet, Some(Reason::Draining));
        let old = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), ACK).build());
        assert_eq!(old.view().src, seen);
        let back = node.walk(hook, &tcp(remote::<F>(), seen, FIN | ACK).build());
        assert_eq!(back.view().dst, client::<F>());
    }
}
in_both_families!(a_draining_node_serves_what_it_has);

/// All nodes that have the seed choose alike, and every part of the tuple counts.
fn the_choice_depends_on_the_tuple_and_the_seed<F: Net>() {
    let base = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    let other_port = SocketAddr::new(client_ip::<F>(), 40001);
    let variants = [
        key::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>()),
        key::<F>(IPPROTO_TCP, other_port, frontend::<F>()),
        key::<F>(IPPROTO_TCP, client::<F>(), local_frontend::<F>()),
        key::<F>(IPPROTO_TCP, SocketAddr::new(F::party(9, 8), 40000), frontend::<F>()),
        key::<F>(IPPROTO_TCP, client::<F>(), SocketAddr::new(F::party(1, 2), REMOTE_PORT)),
    ];
    let hash = flow_hash::<F>(&base, 7);
    for variant in variants {
        assert_ne!(flow_hash::<F>(&variant, 7), hash, "{variant:?}");
    }
    assert_ne!(flow_hash::<F>(&base, 8), hash);
}
in_both_families!(the_choice_depends_on_the_tuple_and_the_seed);

fn clients_are_shared_evenly<F: Net>() {
    const BACKENDS: u32 = 5;
    let mut hits = [0_u32; BACKENDS as usize];
    for net in 0..40 {
        for port in 0..250 {
            let client = SocketAddr::new(F::party(net, 7), 1024 + port);
            let hash = flow_hash::<F>(&key::<F>(IPPROTO_TCP, client, frontend::<F>()), 7);
            hits[nodeport_common::core::hash::index(hash, BACKENDS) as usize] += 1;
        }
    }
    // Chi-square with 4 degrees of freedom: 18.5 is passed once in a thousand. The hashes are
    // fixed, so this cannot come and go.
    let expected = f64::from(hits.iter().sum::<u32>()) / f64::from(BACKENDS);
    let chi: f64 = hits.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    assert!(chi < 18.5, "{hits:?}: {chi}");
}
in_both_families!(clients_are_shared_evenly);
