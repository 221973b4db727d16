//! The way to the next hop: asked for once, again after a change, and never a reason to break a
//! live connection.

use nodeport_common::abi::{
    ADDRESS_OWN, FLOW_LOCAL, HOP_NEIGHBOUR, HOP_STACK, HOP_UNRESOLVED, IPPROTO_TCP, NextHop, Reason,
};
use nodeport_common::core::env::Hook;
use nodeport_common::core::host::{Answer, SkbFrame};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{tcp, udp};

use crate::support::*;

fn change_route<F: Net>(node: &Node, to: std::net::IpAddr, change: impl Fn(&mut Answer<F::Addr>)) {
    let mut routes = F::maps(&node.world).routes.borrow_mut();
    change(routes.get_mut(&F::bytes(to)).expect("there is one"));
}

fn asked<F: Net>(node: &Node) -> usize {
    F::maps(&node.world).asked.borrow().len()
}

fn a_way_is_asked_for_once<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    let before = asked::<F>(&node);
    assert_eq!(before, 2, "one for each direction");
    for _ in 0..10 {
        node.world.wait(HZ);
        node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
        node.xdp(&tcp(remote::<F>(), seen, ACK)).view();
    }
    assert_eq!(asked::<F>(&node), before);
}
in_both_families!(a_way_is_asked_for_once);

fn a_change_makes_every_flow_ask_again<F: Net>() {
    let node = Node::new();
    node.connect::<F>(client::<F>());
    let before = asked::<F>(&node);
    change_route::<F>(&node, remote_ip::<F>(), |answer| answer.hop.ifindex = 9);
    let data = tcp(client::<F>(), frontend::<F>(), ACK);
    assert_eq!(node.xdp(&data).action, Action::Send(INSIDE), "nobody said that it changed");
    node.world.change_control(|control| control.epoch += 1);
    assert_eq!(node.xdp(&data).action, Action::Send(9));
    assert_eq!(node.xdp(&data).action, Action::Send(9));
    assert_eq!(asked::<F>(&node), before + 1);
}
in_both_families!(a_change_makes_every_flow_ask_again);

fn a_neighbour_that_is_not_known_yet_is_the_kernels_to_find<F: Net>() {
    let node = Node::new();
    change_route::<F>(&node, remote_ip::<F>(), |answer| {
        (answer.hop.kind, answer.hop.epoch) = (HOP_NEIGHBOUR, 0);
    });
    let syn = tcp(client::<F>(), frontend::<F>(), SYN);
    let up = node.xdp(&syn);
    assert_eq!((up.action, up.bytes), (Action::Pass, syn.build()));
    assert!(node.halves::<F>().is_empty(), "TC decides");
    let out = node.ingress(&syn);
    assert_eq!((out.action, out.view().dst), (Action::Neighbour(INSIDE), remote::<F>()));
    assert_eq!(out.view().ttl, 63);

    // Known a moment later: the answer was not kept, so the next packet goes the short way.
    change_route::<F>(&node, remote_ip::<F>(), |answer| answer.hop = good_hop());
    let again = node.xdp(&syn);
    assert_eq!((again.action, again.view().src), (Action::Send(INSIDE), out.view().src));
    assert_eq!(again.view().dst_mac, BACKEND_MAC);
}
in_both_families!(a_neighbour_that_is_not_known_yet_is_the_kernels_to_find);

fn good_hop() -> NextHop {
    NextHop {
        ifindex: INSIDE,
        dst_mac: BACKEND_MAC,
        src_mac: BACKEND_SIDE_MAC,
        mtu: MTU,
        epoch: 1,
        exit: 0,
        kind: nodeport_common::abi::HOP_SEND,
        pad: 0,
    }
}

fn what_takes_no_frames_from_xdp_gets_them_from_tc<F: Net>() {
    let node = Node::new();
    change_route::<F>(&node, remote_ip::<F>(), |answer| answer.hop.kind = HOP_NEIGHBOUR);
    let seen = node.ingress(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    let data = tcp(client::<F>(), frontend::<F>(), ACK);
    // As a newcomer, and as an established one.
    for answer in [SYN | ACK, ACK] {
        node.xdp(&tcp(remote::<F>(), seen, answer)).view();
        let before = node.halves::<F>();
        let up = node.xdp(&data);
        assert_eq!((up.action, up.bytes), (Action::Pass, data.build()));
        assert_eq!(node.halves::<F>(), before, "counted once, where it is delivered");
        assert_eq!(node.ingress(&data).action, Action::Neighbour(INSIDE));
    }
    let (proved, _) = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).unwrap();
    assert!(proved);
}
in_both_families!(what_takes_no_frames_from_xdp_gets_them_from_tc);

fn without_a_way_nothing_is_opened<F: Net>() {
    for hook in [Hook::Xdp, Hook::Ingress] {
        let node = Node::new();
        F::maps(&node.world).routes.borrow_mut().clear();
        let syn = tcp(client::<F>(), frontend::<F>(), SYN).build();
        let out = node.walk(hook, &syn);
        assert_eq!((out.action, out.bytes), (Action::Pass, syn));
        let counted = node.world.count_of(Reason::HopUnresolved);
        assert_eq!(counted, u64::from(hook != Hook::Xdp), "TC sees it again");
        assert!(node.halves::<F>().is_empty());
    }
}
in_both_families!(without_a_way_nothing_is_opened);

/// The stack would answer a packet of a connection that it does not know with a RST.
fn a_way_that_is_gone_for_a_while_breaks_no_connection<F: Net>() {
    for hook in [Hook::Xdp, Hook::Ingress] {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        let before = node.halves::<F>();
        let routes = F::maps(&node.world).routes.borrow().clone();
        F::maps(&node.world).routes.borrow_mut().clear();
        node.world.change_control(|control| control.epoch += 1);
        for packet in [tcp(client::<F>(), frontend::<F>(), ACK), tcp(remote::<F>(), seen, ACK)] {
            assert_eq!(node.walk(hook, &packet.build()).action, Action::Drop);
        }
        assert_eq!(node.world.count_of(Reason::HopUnresolved), 2);
        assert_eq!(node.halves::<F>(), before);

        *F::maps(&node.world).routes.borrow_mut() = routes;
        let out = node.walk(hook, &tcp(client::<F>(), frontend::<F>(), ACK).build());
        assert_eq!((out.action, out.view().src), (Action::Send(INSIDE), seen));
    }
}
in_both_families!(a_way_that_is_gone_for_a_while_breaks_no_connection);

/// The kernel says of its own addresses, and where it has no route at all, that it would not
/// forward.
fn what_is_not_forwarded_is_the_nodes_own_or_unreachable<F: Net>() {
    let node = Node::new();
    change_route::<F>(&node, remote_ip::<F>(), |answer| {
        answer.hop = NextHop { kind: HOP_STACK, ..NextHop::UNRESOLVED };
        answer.hop.epoch = 1;
        answer.from = F::Addr::default();
    });
    let syn = tcp(client::<F>(), frontend::<F>(), SYN);
    let out = node.ingress(&syn);
    assert_eq!((out.action, out.bytes), (Action::Pass, syn.build()));
    assert_eq!(node.world.count_of(Reason::HopUnresolved), 1);
    assert!(node.halves::<F>().is_empty());

    // A backend on the node's own address that nobody marked as local.
    F::maps(&node.world).addresses.borrow_mut().insert(F::bytes(remote_ip::<F>()), ADDRESS_OWN);
    let out = node.xdp(&syn);
    assert_eq!(out.action, Action::Stack);
    assert_eq!((out.view().src, out.view().dst), (client::<F>(), remote::<F>()));
    let back = node.egress(&tcp(remote::<F>(), client::<F>(), SYN | ACK)).view();
    assert_eq!((back.src, back.dst), (frontend::<F>(), client::<F>()));
}
in_both_families!(what_is_not_forwarded_is_the_nodes_own_or_unreachable);

/// An interface without an address of its own, where the kernel tells no source.
fn without_a_source_nothing_is_opened<F: Net>() {
    let node = Node::new();
    change_route::<F>(&node, remote_ip::<F>(), |answer| answer.from = F::Addr::default());
    let syn = tcp(client::<F>(), frontend::<F>(), SYN);
    let out = node.ingress(&syn);
    assert_eq!((out.action, out.bytes), (Action::Pass, syn.build()));
    assert_eq!(node.world.count_of(Reason::HopUnresolved), 1);
    assert!(node.halves::<F>().is_empty());
}
in_both_families!(without_a_source_nothing_is_opened);

fn answers_on_a_path_unseen_keep_the_client<F: Net>() {
    let node = Node::new();
    change_route::<F>(&node, remote_ip::<F>(), |answer| answer.watched = false);
    let out = node.xdp(&udp(client::<F>(), frontend::<F>()));
    assert_eq!(out.action, Action::Stack);
    assert_eq!((out.view().src, out.view().dst), (client::<F>(), remote::<F>()));
    let back = node.egress(&udp(remote::<F>(), client::<F>())).view();
    assert_eq!((back.src, back.dst), (frontend::<F>(), client::<F>()));
    assert!(node.halves::<F>().iter().all(|(_, _, flow)| flow.flags & FLOW_LOCAL != 0));
}
in_both_families!(answers_on_a_path_unseen_keep_the_client);

fn a_flow_to_this_node_asks_for_no_way<F: Net>() {
    let node = Node::new();
    F::maps(&node.world).routes.borrow_mut().clear();
    node.connect_local::<F>(client::<F>());
    assert_eq!(asked::<F>(&node), 0);
    for (_, _, flow) in node.halves::<F>() {
        assert_ne!(flow.hop.kind, HOP_UNRESOLVED);
    }
}
in_both_families!(a_flow_to_this_node_asks_for_no_way);

fn segments_are_measured_not_what_the_kernel_joined<F: Net>() {
    let node = Node::new();
    node.connect::<F>(client::<F>());
    let headers = F::HEADER as u16 + 20;
    for (payload, fits) in [(MTU - headers, true), (MTU - headers + 1, false)] {
        let joined = tcp(client::<F>(), frontend::<F>(), ACK).payload(&[0; 4000]);
        let mut frame = SkbFrame { gso_size: payload, ..SkbFrame::new(joined.build()) };
        let action = node.world.ingress(NIC, &mut frame).action();
        assert_eq!(action == Action::Send(INSIDE), fits, "{payload}: {action:?}");
        assert_eq!(node.world.count_of(Reason::TooBig), u64::from(!fits));
    }
}
in_both_families!(segments_are_measured_not_what_the_kernel_joined);

fn a_hook_leaves_alone_what_is_met_at_another<F: Net>() {
    let node = Node::new();
    node.connect_local::<F>(client::<F>());
    let (forward, reply) = (
        tcp(client::<F>(), local_frontend::<F>(), ACK).build(),
        tcp(local::<F>(), client::<F>(), ACK).build(),
    );
    let before = node.halves::<F>();
    node.world.mark_port(TARGET, 0xff);
    node.world.mark_port(client::<F>().port(), 0xff);
    node.world.mark_port(LOCAL_PORT, 0xff);
    for (hook, frame) in
        [(Hook::Egress, forward), (Hook::Xdp, reply.clone()), (Hook::Ingress, reply)]
    {
        let out = node.walk(hook, &frame);
        assert_eq!((out.action, out.bytes), (Action::Pass, frame), "{hook:?}");
    }
    assert_eq!(node.halves::<F>(), before);
    assert!(node.half::<F>(IPPROTO_TCP, local::<F>(), client::<F>()).is_some());
}
in_both_families!(a_hook_leaves_alone_what_is_met_at_another);
