//! The end of a flow, decided in the instant in which it is removed.

use std::net::SocketAddr;

use nodeport_common::abi::{FlowState, IPPROTO_TCP, IPPROTO_UDP};
use nodeport_common::core::expiry::{Limits, end};
use nodeport_common::core::flow::set_state;
use nodeport_common::core::host::{At, XDP};
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::work::Work;
use nodeport_common::frames::{tcp, udp};

use crate::support::*;

/// Another number for each state, so that none is taken for another.
const LIMITS: Limits = Limits {
    tcp: 8000,
    tcp_answered: 60,
    tcp_opening: 30,
    tcp_closed: 90,
    tcp_doubted: 95,
    udp: 120,
    udp_opening: 40,
};

/// Asks for the end of the flow of one half, as the program does for the agent.
fn ask<F: Net>(node: &Node, protocol: u8, src: SocketAddr, dst: SocketAddr) -> bool {
    let mut work = Work { key: key::<F>(protocol, src, dst), ..Work::default() };
    end::<F, _>(&At::<XDP> { world: &node.world, ifindex: 0 }, &mut work, &LIMITS)
}

/// The flow ends when it was silent for longer than `limit`, asked by either half.
#[track_caller]
fn assert_limit<F: Net>(protocol: u8, limit: u32, open: impl Fn(&Node) -> SocketAddr) {
    for forward in [true, false] {
        let node = Node::new();
        let seen = open(&node);
        let halves = node.halves::<F>();
        let (src, dst) =
            if forward { (client::<F>(), frontend::<F>()) } else { (remote::<F>(), seen) };
        node.world.wait(limit);
        assert!(!ask::<F>(&node, protocol, src, dst), "at the limit");
        assert_eq!(node.halves::<F>(), halves);
        node.world.wait(1);
        assert!(ask::<F>(&node, protocol, src, dst), "beyond it");
        assert!(node.halves::<F>().is_empty(), "both halves went");
        assert!(!ask::<F>(&node, protocol, src, dst), "there is nothing more to end");
    }
}

fn each_state_has_its_limit<F: Net>() {
    let step = |node: &Node, draft| node.xdp(&draft).view();
    let syn = |node: &Node| step(node, tcp(client::<F>(), frontend::<F>(), SYN)).src;
    assert_limit::<F>(IPPROTO_TCP, LIMITS.tcp_opening, syn);
    assert_limit::<F>(IPPROTO_TCP, LIMITS.tcp_answered, |node| {
        let seen = syn(node);
        step(node, tcp(remote::<F>(), seen, SYN | ACK));
        seen
    });
    assert_limit::<F>(IPPROTO_TCP, LIMITS.tcp, |node| node.connect::<F>(client::<F>()));
    assert_limit::<F>(IPPROTO_TCP, LIMITS.tcp, |node| {
        let seen = node.connect::<F>(client::<F>());
        step(node, tcp(client::<F>(), frontend::<F>(), FIN | ACK));
        seen
    });
    assert_limit::<F>(IPPROTO_TCP, LIMITS.tcp_closed, |node| {
        let seen = node.connect::<F>(client::<F>());
        step(node, tcp(client::<F>(), frontend::<F>(), FIN | ACK));
        step(node, tcp(remote::<F>(), seen, FIN | ACK));
        seen
    });
    assert_limit::<F>(IPPROTO_TCP, LIMITS.tcp_closed, |node| {
        let seen = node.connect::<F>(client::<F>());
        step(node, tcp(remote::<F>(), seen, RST));
        seen
    });
    let datagram = |node: &Node| step(node, udp(client::<F>(), frontend::<F>())).src;
    assert_limit::<F>(IPPROTO_UDP, LIMITS.udp_opening, datagram);
    assert_limit::<F>(IPPROTO_UDP, LIMITS.udp, |node| {
        let seen = datagram(node);
        step(node, udp(remote::<F>(), seen));
        seen
    });
}
in_both_families!(each_state_has_its_limit);

fn one_half_that_speaks_keeps_both<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    node.xdp(&udp(remote::<F>(), seen)).view();
    for _ in 0..5 {
        node.world.wait(LIMITS.udp);
        node.xdp(&udp(remote::<F>(), seen)).view();
        node.world.wait(1);
        assert!(!ask::<F>(&node, IPPROTO_UDP, client::<F>(), frontend::<F>()));
        assert!(!ask::<F>(&node, IPPROTO_UDP, remote::<F>(), seen));
    }
}
in_both_families!(one_half_that_speaks_keeps_both);

fn a_half_alone_ends_by_itself<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    assert!(!ask::<F>(&node, IPPROTO_TCP, remote::<F>(), seen));
    node.world.wait(LIMITS.tcp + 1);
    assert!(ask::<F>(&node, IPPROTO_TCP, remote::<F>(), seen));
    assert!(node.halves::<F>().is_empty());
}
in_both_families!(a_half_alone_ends_by_itself);

/// Its partner's place is another flow's by now: that one lives on.
fn an_orphan_ends_alone<F: Net>() {
    let node = Node::new();
    let first = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    node.lose::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>());
    node.world.wait(LIMITS.udp_opening + 1);
    let second = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    assert_ne!(first, second);
    assert!(ask::<F>(&node, IPPROTO_UDP, remote::<F>(), first));
    assert_eq!(node.halves::<F>().len(), 2);
    assert!(node.half::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>()).is_some());
    assert!(node.half::<F>(IPPROTO_UDP, remote::<F>(), second).is_some());
}
in_both_families!(an_orphan_ends_alone);

/// But for connections, whose clients are to be told (`gone.rs`).
fn a_flow_whose_backend_is_gone_ends_at_once<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    node.xdp(&udp(remote::<F>(), seen)).view();
    node.end_backend::<F>(REMOTE_BACKEND);
    assert!(ask::<F>(&node, IPPROTO_UDP, remote::<F>(), seen));
    assert!(node.halves::<F>().is_empty());
}
in_both_families!(a_flow_whose_backend_is_gone_ends_at_once);

/// Between the agent's look and its question the client has begun anew on the same ports.
fn a_connection_on_the_same_ports_is_not_ended<F: Net>() {
    let node = Node::new();
    node.connect::<F>(client::<F>());
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    node.world.wait(LIMITS.tcp_closed + 1);
    node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    assert!(!ask::<F>(&node, IPPROTO_TCP, client::<F>(), frontend::<F>()));
    let (proved, half) = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).unwrap();
    assert_eq!((proved, half.state), (false, FlowState::Opening as u8));
}
in_both_families!(a_connection_on_the_same_ports_is_not_ended);

/// Two CPUs have seen one end each, and neither the other's: together they have seen both.
fn ends_seen_by_one_half_each_are_both_ends<F: Net>() {
    use FlowState::{BackendClosed, ClientClosed, Closed, Established};
    for (ours, theirs, limit) in [
        (ClientClosed, BackendClosed, LIMITS.tcp_closed),
        (BackendClosed, ClientClosed, LIMITS.tcp_closed),
        (Closed, ClientClosed, LIMITS.tcp_closed),
        (BackendClosed, Closed, LIMITS.tcp_closed),
        (ClientClosed, Established, LIMITS.tcp),
        (Closed, Established, LIMITS.tcp),
    ] {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
        let reply = key::<F>(IPPROTO_TCP, remote::<F>(), seen);
        let flows = &F::maps(&node.world).flows;
        assert!(flows.change(&forward, |half| set_state(half, ours)));
        assert!(flows.change(&reply, |half| set_state(half, theirs)));
        node.world.wait(limit);
        assert!(!ask::<F>(&node, IPPROTO_TCP, remote::<F>(), seen), "{ours:?} {theirs:?}");
        node.world.wait(1);
        assert!(ask::<F>(&node, IPPROTO_TCP, remote::<F>(), seen), "{ours:?} {theirs:?}");
    }
}
in_both_families!(ends_seen_by_one_half_each_are_both_ends);
