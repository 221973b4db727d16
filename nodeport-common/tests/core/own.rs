//! The node's own connections from ports of the SNAT range.

use std::net::SocketAddr;

use nodeport_common::abi::{ADDRESS_OWN, FLOW_HOST, FLOW_PROVED, IPPROTO_TCP, IPPROTO_UDP, Reason};
use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, tcp, udp};

use crate::support::*;

/// A node that knows the address by which it sends to backends for its own.
fn node<F: Net>() -> Node {
    let node = Node::new();
    let address = F::bytes(inside_ip::<F>());
    F::maps(&node.world).addresses.borrow_mut().insert(address, ADDRESS_OWN);
    node
}

/// The node's end of a connection of its own, from that port of the range.
fn own<F: Net>(port: u16) -> SocketAddr {
    SocketAddr::new(inside_ip::<F>(), SNAT_FIRST + port)
}

/// Sends a packet of the node's own; the source that the backend sees.
#[track_caller]
fn leaves(node: &Node, packet: &Draft) -> SocketAddr {
    let out = node.egress(packet);
    assert_eq!(out.action, Action::Stack);
    out.view().src
}

/// Sends an answer of the backend; whom the stack takes it to be for.
#[track_caller]
fn arrives<F: Net>(node: &Node, hook: Hook, packet: &Draft) -> SocketAddr {
    let out = node.walk(hook, &packet.build());
    assert_eq!(out.action, Action::Stack);
    let view = out.view();
    assert_eq!(view.src, remote::<F>());
    view.dst
}

/// Opens a connection of the node's own to the backend; the source that the backend sees.
fn connect_own<F: Net>(node: &Node, from: SocketAddr) -> SocketAddr {
    let seen = leaves(node, &tcp(from, remote::<F>(), SYN));
    assert_eq!(arrives::<F>(node, Hook::Xdp, &tcp(remote::<F>(), seen, SYN | ACK)), from);
    assert_eq!(leaves(node, &tcp(from, remote::<F>(), ACK)), seen);
    seen
}

/// A connection of the node's own keeps its port, which no flow of ours gets from then on.
fn a_port_of_the_nodes_own_is_taken<F: Net>() {
    let node = node::<F>();
    node.world.change_control(|control| control.snat_count = 2);
    assert_eq!(connect_own::<F>(&node, own::<F>(0)), own::<F>(0));
    let seen = node.connect::<F>(client::<F>());
    assert_eq!(seen, own::<F>(1));
    let refused = SocketAddr::new(client_ip::<F>(), 40_001);
    assert_eq!(node.xdp(&tcp(refused, frontend::<F>(), SYN)).action, Action::Drop);
    assert_eq!(node.world.count_of(Reason::NoPort), 1);
    for hook in [Hook::Xdp, Hook::Ingress] {
        let answer = tcp(remote::<F>(), own::<F>(0), ACK).payload(b"to the node");
        assert_eq!(arrives::<F>(&node, hook, &answer), own::<F>(0));
        let answer = tcp(remote::<F>(), seen, ACK).payload(b"to the client");
        assert_eq!(node.walk(hook, &answer.build()).view().dst, client::<F>());
    }
    assert_paired::<F>(&node);
}
in_both_families!(a_port_of_the_nodes_own_is_taken);

/// Where a flow of ours has the port, the backend sees the node's own connection by another one.
fn a_port_that_is_ours_is_exchanged<F: Net>() {
    let node = node::<F>();
    let ours = node.connect::<F>(client::<F>());
    let seen = connect_own::<F>(&node, ours);
    assert_ne!(seen, ours);
    assert_eq!(seen.ip(), ours.ip());
    assert!((SNAT_FIRST..SNAT_FIRST + SNAT_COUNT).contains(&seen.port()), "{seen}");
    for packet in [ACK, ACK | FIN] {
        let answer = tcp(remote::<F>(), seen, packet).payload(b"to the node");
        assert_eq!(arrives::<F>(&node, Hook::Xdp, &answer), ours);
        let answer = tcp(remote::<F>(), ours, packet).payload(b"to the client");
        assert_eq!(node.xdp(&answer).view().dst, client::<F>());
    }
    assert_paired::<F>(&node);
    // The node begins anew on the port, after the end.
    assert_eq!(leaves(&node, &tcp(ours, remote::<F>(), ACK | FIN)), seen);
    let again = connect_own::<F>(&node, ours);
    assert_ne!(again, ours);
    assert_eq!(node.halves::<F>().len(), 4, "the one before is gone");
}
in_both_families!(a_port_that_is_ours_is_exchanged);

/// The same for UDP, where there is no handshake.
fn datagrams_are_told_apart<F: Net>() {
    let node = node::<F>();
    let ours = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    node.xdp(&udp(remote::<F>(), ours)).view();
    let seen = leaves(&node, &udp(ours, remote::<F>()));
    assert_ne!(seen, ours);
    assert_eq!(arrives::<F>(&node, Hook::Ingress, &udp(remote::<F>(), seen)), ours);
    assert_eq!(node.xdp(&udp(remote::<F>(), ours)).view().dst, client::<F>());
    // Of UDP the port is another's than of TCP.
    assert_eq!(connect_own::<F>(&node, ours), ours);
    let kinds = [IPPROTO_TCP, IPPROTO_UDP].map(|protocol| {
        node.halves::<F>().iter().filter(|(_, key, _)| key.protocol == protocol).count()
    });
    assert_eq!(kinds, [2, 4]);
}
in_both_families!(datagrams_are_told_apart);

/// Who sends one way only has proved nothing, however long: else the table could be filled.
fn datagrams_without_answers_prove_nothing<F: Net>() {
    let node = node::<F>();
    for _ in 0..20 {
        leaves(&node, &udp(own::<F>(0), remote::<F>()));
        node.world.wait(HZ);
    }
    assert!(node.halves::<F>().iter().all(|(_, _, flow)| flow.flags & FLOW_PROVED == 0));
    assert_eq!(node.halves::<F>().len(), 2);
}
in_both_families!(datagrams_without_answers_prove_nothing);

/// A connection whose port was exchanged goes on when no backend has the other end's port any more.
fn an_exchange_outlives_the_backends<F: Net>() {
    let node = node::<F>();
    let ours = node.connect::<F>(client::<F>());
    let seen = connect_own::<F>(&node, ours);
    node.world.clear_port(remote::<F>().port());
    assert_eq!(leaves(&node, &tcp(ours, remote::<F>(), ACK).payload(b"more")), seen);
}
in_both_families!(an_exchange_outlives_the_backends);

/// What cannot be of a flow of ours, or does not begin anything, leaves as it came and makes none.
fn what_is_not_towards_a_backend_makes_no_flow<F: Net>() {
    let node = node::<F>();
    let port = |address: SocketAddr, port| SocketAddr::new(address.ip(), port);
    for packet in [
        tcp(port(own::<F>(0), 40_000), remote::<F>(), SYN),
        tcp(own::<F>(0), port(remote::<F>(), 443), SYN),
        tcp(own::<F>(0), remote::<F>(), ACK),
        tcp(own::<F>(0), remote::<F>(), RST),
        tcp(own::<F>(0), remote::<F>(), SYN | ACK),
        udp(own::<F>(0), port(remote::<F>(), 53)),
        // The node routes for others, who may have any port.
        tcp(port(client::<F>(), SNAT_FIRST), remote::<F>(), SYN),
        udp(port(client::<F>(), SNAT_FIRST), remote::<F>()),
    ] {
        let frame = packet.build();
        let out = node.egress(&packet);
        assert_eq!((out.action, out.bytes), (Action::Pass, frame));
    }
    assert_eq!(node.halves::<F>().len(), 0);
}
in_both_families!(what_is_not_towards_a_backend_makes_no_flow);

/// Where all ports are of live flows, the node's own connection from one of them is dropped: its answers
/// would be another's. From a port outside it goes on.
fn without_a_port_nothing_is_mistaken<F: Net>() {
    let node = node::<F>();
    node.world.change_control(|control| control.snat_count = 1);
    let ours = node.connect::<F>(client::<F>());
    assert_eq!(node.egress(&tcp(ours, remote::<F>(), SYN)).action, Action::Drop);
    assert_eq!(node.world.count_of(Reason::NoPort), 1);
    let answer = tcp(remote::<F>(), ours, ACK).payload(b"to the client");
    assert_eq!(node.xdp(&answer).view().dst, client::<F>());
    // When it is over, the port is whoever's.
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    node.world.now.set(node.world.now.get() + 2 * HZ);
    assert_eq!(connect_own::<F>(&node, ours), ours);
    assert_eq!(node.halves::<F>().len(), 2);
    assert!(node.halves::<F>().iter().all(|(_, _, flow)| flow.flags & FLOW_HOST != 0));
}
in_both_families!(without_a_port_nothing_is_mistaken);
