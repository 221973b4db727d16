//! Pods with a veth of their own: both halves of a flow go past the node's stack, or both through
//! it, and that never changes.

use nodeport_common::abi::{
    ADDRESS_OWN, FLOW_FAST, FLOW_LOCAL, HOP_NEIGHBOUR, HOP_POD, HOP_SEND, HOP_STACK, IPPROTO_TCP,
    NextHop, Reason,
};
use nodeport_common::core::env::Hook;
use nodeport_common::core::host::{Answer, Checksum, SkbFrame};
use nodeport_common::core::state::{ACK, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, Transport, quote_faults, tcp, udp};
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::*;

const POD_MAC: [u8; 6] = [2, 0, 0, 0, 5, 20];
const POD_SIDE_MAC: [u8; 6] = [2, 0, 0, 0, 5, 1];

fn into_pod() -> NextHop {
    NextHop {
        ifindex: POD_LINK,
        dst_mac: POD_MAC,
        src_mac: POD_SIDE_MAC,
        mtu: MTU,
        epoch: 1,
        exit: 0,
        kind: HOP_POD,
        pad: 0,
    }
}

/// A node whose pod has a veth of its own, with our program at it.
fn node<F: Net>() -> Node {
    let node = Node::new();
    node.world.change_control(|control| control.fast_local = 1);
    route::<F>(&node, into_pod(), true);
    node
}

/// Lets the way to the pod be that one; an answer that may be kept is of the epoch now.
fn route<F: Net>(node: &Node, hop: NextHop, to_pod: bool) {
    let answer = Answer { from: F::bytes(node_ip::<F>()), hop, watched: false, to_pod };
    F::maps(&node.world).routes.borrow_mut().insert(F::bytes(local_ip::<F>()), answer);
    node.world.change_control(|control| control.epoch += 1);
}

fn forward<F: Net>(flags: u8) -> Draft {
    tcp(client::<F>(), local_frontend::<F>(), flags).payload(b"a question")
}

fn answer<F: Net>(flags: u8) -> Draft {
    tcp(local::<F>(), client::<F>(), flags).payload(b"an answer of it")
}

/// Its endpoint is gone, and it goes on: what it sends must not get out with its own address.
fn what_a_pod_sends_that_is_no_endpoint_any_more_is_held_back<F: Net>() {
    let node = node::<F>();
    node.ingress(&forward::<F>(SYN));
    node.pod(&answer::<F>(SYN | ACK)).view();
    node.ingress(&forward::<F>(ACK));
    node.end_backend::<F>(LOCAL_BACKEND);
    for hook in [Hook::Pod, Hook::Egress] {
        assert_eq!(node.walk(hook, &answer::<F>(ACK).build()).action, Action::Drop, "{hook:?}");
    }
    assert_eq!(node.world.count_of(Reason::StaleBackend), 2);
    let told = node.walk(Hook::Ingress, &forward::<F>(ACK).build());
    assert_eq!((told.action, told.view().flags), (Action::Back(NIC), RST));
    assert_eq!(node.pod(&answer::<F>(ACK)).action, Action::Drop);
}
in_both_families!(what_a_pod_sends_that_is_no_endpoint_any_more_is_held_back);

fn in_pod<F: Net>(flags: u8) -> Vec<u8> {
    tcp(client::<F>(), local::<F>(), flags)
        .payload(b"a question")
        .ttl(63)
        .macs(POD_MAC, POD_SIDE_MAC)
        .build()
}

fn at_client<F: Net>(flags: u8) -> Vec<u8> {
    tcp(local_frontend::<F>(), client::<F>(), flags)
        .payload(b"an answer of it")
        .ttl(63)
        .macs(CLIENT_MAC, CLIENT_SIDE_MAC)
        .build()
}

/// Completes a handshake in fast mode.
fn connect<F: Net>(node: &Node) {
    let out = node.ingress(&forward::<F>(SYN));
    assert_eq!((out.action, out.bytes), (Action::Pod(POD_LINK), in_pod::<F>(SYN)));
    let out = node.pod(&answer::<F>(SYN | ACK));
    assert_eq!((out.action, out.bytes), (Action::Send(NIC), at_client::<F>(SYN | ACK)));
    let out = node.ingress(&forward::<F>(ACK));
    assert_eq!((out.action, out.bytes), (Action::Pod(POD_LINK), in_pod::<F>(ACK)));
}

fn both_halves_go_past_the_stack<F: Net>() {
    let node = node::<F>();
    connect::<F>(&node);
    for _ in 0..3 {
        let out = node.pod(&answer::<F>(ACK));
        assert_eq!((out.action, out.bytes), (Action::Send(NIC), at_client::<F>(ACK)));
        let out = node.ingress(&forward::<F>(ACK));
        assert_eq!((out.action, out.bytes), (Action::Pod(POD_LINK), in_pod::<F>(ACK)));
        node.world.wait(HZ);
    }
    let halves = node.halves::<F>();
    assert_eq!(halves.len(), 2);
    let both = FLOW_LOCAL | FLOW_FAST;
    assert!(halves.iter().all(|(proved, _, flow)| *proved && flow.flags & both == both));
}
in_both_families!(both_halves_go_past_the_stack);

/// XDP can send nothing into a veth.
fn xdp_leaves_them_to_tc<F: Net>() {
    let node = node::<F>();
    let passed = |flags| {
        let before = node.halves::<F>();
        let out = node.xdp(&forward::<F>(flags));
        assert_eq!((out.action, out.bytes), (Action::Pass, forward::<F>(flags).build()));
        assert_eq!(node.halves::<F>(), before, "counted once, where it is delivered");
    };
    passed(SYN);
    connect::<F>(&node);
    passed(ACK);
}
in_both_families!(xdp_leaves_them_to_tc);

/// A flow that was opened in slow mode stays in it; the program at the veth lets it pass.
#[track_caller]
fn is_slow<F: Net>(node: &Node) {
    let out = node.ingress(&forward::<F>(ACK));
    assert_eq!((out.action, out.view().dst), (Action::Stack, local::<F>()));
    let before = node.halves::<F>();
    let out = node.pod(&answer::<F>(ACK));
    assert_eq!((out.action, out.bytes), (Action::Pass, answer::<F>(ACK).build()));
    assert_eq!(node.halves::<F>(), before);
    let out = node.egress(&answer::<F>(ACK));
    assert_eq!((out.action, out.view().src), (Action::Stack, local_frontend::<F>()));
}

fn where_a_veth_is_not_followed_flows_are_slow_and_stay_so<F: Net>() {
    for hop in [
        NextHop { kind: HOP_SEND, ..into_pod() },
        NextHop { kind: HOP_NEIGHBOUR, ..into_pod() },
        NextHop { kind: HOP_STACK, ..NextHop::UNRESOLVED },
    ] {
        let node = node::<F>();
        route::<F>(&node, hop, false);
        node.connect_local::<F>(client::<F>());
        is_slow::<F>(&node);
        route::<F>(&node, into_pod(), true);
        is_slow::<F>(&node);
    }
}
in_both_families!(where_a_veth_is_not_followed_flows_are_slow_and_stay_so);

fn by_the_users_wish_flows_are_slow_and_ask_for_no_way<F: Net>() {
    let node = node::<F>();
    node.world.change_control(|control| control.fast_local = 0);
    node.connect_local::<F>(client::<F>());
    assert!(F::maps(&node.world).asked.borrow().is_empty());
    is_slow::<F>(&node);
    node.world.change_control(|control| control.fast_local = 1);
    is_slow::<F>(&node);
}
in_both_families!(by_the_users_wish_flows_are_slow_and_ask_for_no_way);

fn a_fast_flow_stays_fast<F: Net>() {
    let other = NextHop { ifindex: 9, kind: HOP_SEND, ..into_pod() };
    for (hop, to_pod, action) in [
        (NextHop { ifindex: 9, ..into_pod() }, true, Action::Pod(9)),
        (other, false, Action::Send(9)),
        (NextHop { kind: HOP_NEIGHBOUR, ..other }, false, Action::Neighbour(9)),
        (NextHop { kind: HOP_NEIGHBOUR, epoch: 0, ..other }, true, Action::Neighbour(9)),
    ] {
        let node = node::<F>();
        connect::<F>(&node);
        node.world.change_control(|control| control.fast_local = 0);
        route::<F>(&node, hop, to_pod);
        let out = node.ingress(&forward::<F>(ACK));
        assert_eq!((out.action, out.view().dst, out.view().ttl), (action, local::<F>(), 63));
        let out = node.pod(&answer::<F>(ACK));
        assert_eq!((out.action, out.bytes), (Action::Send(NIC), at_client::<F>(ACK)));
    }
}
in_both_families!(a_fast_flow_stays_fast);

/// The stack has never seen the connection, and would end it.
fn without_a_way_a_fast_flow_waits<F: Net>() {
    let own = NextHop { kind: HOP_STACK, epoch: 1, ..NextHop::UNRESOLVED };
    for (hop, is_own) in [(own, false), (own, true), (NextHop::UNRESOLVED, false)] {
        let node = node::<F>();
        connect::<F>(&node);
        let maps = F::maps(&node.world);
        if is_own {
            maps.addresses.borrow_mut().insert(F::bytes(local_ip::<F>()), ADDRESS_OWN);
        }
        route::<F>(&node, hop, false);
        assert_eq!(node.ingress(&forward::<F>(ACK)).action, Action::Drop);
        assert_eq!(node.world.count_of(Reason::HopUnresolved), 1);
        route::<F>(&node, into_pod(), true);
        assert_eq!(node.ingress(&forward::<F>(ACK)).bytes, in_pod::<F>(ACK));
    }
}
in_both_families!(without_a_way_a_fast_flow_waits);

/// As where somebody has taken our program off the veth.
fn answers_that_nobody_met_at_the_veth_are_met_at_the_nic<F: Net>() {
    let node = node::<F>();
    connect::<F>(&node);
    let out = node.egress(&answer::<F>(ACK));
    assert_eq!((out.action, out.bytes), (Action::Send(NIC), at_client::<F>(ACK)));
}
in_both_families!(answers_that_nobody_met_at_the_veth_are_met_at_the_nic);

fn a_neighbour_that_is_not_known_is_the_kernels_to_find<F: Net>() {
    let node = node::<F>();
    let unknown = NextHop { kind: HOP_NEIGHBOUR, epoch: 0, ..into_pod() };
    route::<F>(&node, unknown, true);
    let out = node.ingress(&forward::<F>(SYN));
    assert_eq!((out.action, out.view().dst), (Action::Neighbour(POD_LINK), local::<F>()));
    route::<F>(&node, into_pod(), true);
    connect::<F>(&node);
}
in_both_families!(a_neighbour_that_is_not_known_is_the_kernels_to_find);

/// A backend that no slice says to be on this node, but whose route leads into a pod's veth.
fn the_route_tells_not_the_name_of_the_node<F: Net>() {
    let node = node::<F>();
    F::maps(&node.world).backends.borrow_mut()[LOCAL_BACKEND as usize].flags = 0;
    connect::<F>(&node);
}
in_both_families!(the_route_tells_not_the_name_of_the_node);

/// Nothing opens a flow where a pod's packets come out, and what belongs to none passes.
fn a_pods_own_packets_pass<F: Net>() {
    let node = node::<F>();
    for frame in [
        tcp(local::<F>(), frontend::<F>(), SYN),
        tcp(local::<F>(), client::<F>(), ACK),
        udp(client::<F>(), local_frontend::<F>()),
    ] {
        let out = node.pod(&frame);
        assert_eq!((out.action, out.bytes), (Action::Pass, frame.build()));
    }
    assert!(node.halves::<F>().is_empty() && node.world.counters().is_empty());
}
in_both_families!(a_pods_own_packets_pass);

fn the_veths_width_is_told_in_both_directions<F: Net>() {
    let node = node::<F>();
    route::<F>(&node, NextHop { mtu: 1300, ..into_pod() }, true);
    connect::<F>(&node);
    let room = 1300 - F::HEADER - 20;
    let sized = |length| forward::<F>(ACK).payload(&vec![7; length]);
    assert_eq!(node.ingress(&sized(room)).action, Action::Pod(POD_LINK));
    let out = node.ingress(&sized(room + 1));
    assert_eq!((out.action, out.view().dst.ip()), (Action::Back(NIC), client_ip::<F>()));
    let sized = |length| answer::<F>(ACK).payload(&vec![7; length]);
    let room = usize::from(MTU) - F::HEADER - 20;
    assert_eq!(node.pod(&sized(room)).action, Action::Send(NIC));
    let out = node.pod(&sized(room + 1));
    assert_eq!((out.action, out.view().dst.ip()), (Action::Back(POD_LINK), local_ip::<F>()));
    assert_eq!(node.world.count_of(Reason::TooBig), 2);
    let out = node.ingress(&forward::<F>(ACK).ttl(1));
    assert_eq!((out.action, out.view().dst.ip()), (Action::Back(NIC), client_ip::<F>()));
}
in_both_families!(the_veths_width_is_told_in_both_directions);

fn unreachable<F: Net>() -> Icmp {
    let (kind, code) = if F::VERSION == 4 { (3, 3) } else { (1, 4) };
    Icmp { kind, code, word: [0; 4] }
}

fn errors_go_along_the_flow<F: Net>() {
    let node = node::<F>();
    let datagram = udp(client::<F>(), local_frontend::<F>()).payload(b"to a closed port");
    let arrived = node.ingress(&datagram);
    assert_eq!(arrived.action, Action::Pod(POD_LINK));
    let from_pod =
        Draft::icmp(local_ip::<F>(), client_ip::<F>(), unreachable::<F>(), &arrived.bytes[14..]);
    let out = node.pod(&from_pod);
    assert_eq!(out.action, Action::Send(NIC));
    let view = out.view();
    assert_eq!((view.src.ip(), view.dst.ip()), (node_ip::<F>(), client_ip::<F>()));
    assert_eq!((view.dst_mac, view.ttl), (CLIENT_MAC, 63));
    assert_eq!(quote_faults(&view.payload[8..]), Vec::<String>::new());
    assert_eq!(view.payload[8..], datagram.clone().ttl(63).packet());

    connect::<F>(&node);
    let sent = node.pod(&answer::<F>(ACK)).bytes;
    let from_client =
        Draft::icmp(client_ip::<F>(), node_ip::<F>(), unreachable::<F>(), &sent[14..]);
    let mut frame = SkbFrame::new(from_client.build());
    frame.sum = Some(sum(&frame.bytes));
    assert_eq!(node.world.ingress(NIC, &mut frame).action(), Action::Pod(POD_LINK));
    assert_eq!(frame.sum.map(folded), Some(folded(sum(&frame.bytes))));
    let view = Out { action: Action::Pod(POD_LINK), bytes: frame.bytes }.view();
    assert_eq!((view.dst_mac, view.ttl), (POD_MAC, 63));
    assert_eq!((view.src.ip(), view.dst.ip()), (client_ip::<F>(), local_ip::<F>()));
    assert_eq!(view.payload[8..], answer::<F>(ACK).ttl(63).packet());
}
in_both_families!(errors_go_along_the_flow);

/// The ones'-complement sum of all behind the Ethernet header, as a network card makes it.
fn sum(frame: &[u8]) -> u16 {
    let pairs = frame[14..].chunks(2);
    let words = pairs.map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)]);
    let mut sum: u64 = words.map(|word| u64::from(u16::from_ne_bytes(word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Zero has two forms.
fn folded(sum: u16) -> u16 {
    if sum == 0xffff { 0 } else { sum }
}

/// The pod's stack believes it.
fn the_cards_sum_of_a_frame_follows_what_is_rewritten<F: Net>() {
    for (hop, to_pod) in [
        (into_pod(), true),
        (NextHop { kind: HOP_NEIGHBOUR, epoch: 0, ..into_pod() }, true),
        (NextHop { kind: HOP_STACK, ..NextHop::UNRESOLVED }, false),
    ] {
        let node = node::<F>();
        route::<F>(&node, hop, to_pod);
        for draft in [forward::<F>(SYN), udp(client::<F>(), local_frontend::<F>())] {
            for _ in 0..2 {
                let mut frame = SkbFrame::new(draft.build());
                frame.sum = Some(sum(&frame.bytes));
                let action = node.world.ingress(NIC, &mut frame).action();
                assert_ne!(action, Action::Pass);
                assert_eq!(frame.sum.map(folded), Some(folded(sum(&frame.bytes))), "{hop:?}");
            }
        }
    }
}
in_both_families!(the_cards_sum_of_a_frame_follows_what_is_rewritten);

/// What a pod's socket sends has a checksum that a network card is to finish.
fn unfinished_checksums_stay_unfinished<F: Net>() {
    let node = node::<F>();
    connect::<F>(&node);
    let field = 14 + F::HEADER + 16;
    let bytes = answer::<F>(ACK).build();
    let mut frame = SkbFrame { checksum: Checksum::Partial, ..SkbFrame::new(bytes) };
    // The field holds the sum of the pseudo-header, in which there are no ports.
    let pseudo = pseudo_sum::<F>(local_ip::<F>(), &frame.bytes);
    frame.bytes[field..field + 2].copy_from_slice(&pseudo.to_ne_bytes());
    assert_eq!(node.world.pod(POD_LINK, &mut frame).action(), Action::Send(NIC));
    let expected = pseudo_sum::<F>(node_ip::<F>(), &frame.bytes);
    let got = u16::from_ne_bytes([frame.bytes[field], frame.bytes[field + 1]]);
    assert_eq!(folded(got), folded(expected));
}
in_both_families!(unfinished_checksums_stay_unfinished);

/// The sum of the pseudo-header of a TCP frame from `src` to the client.
fn pseudo_sum<F: Net>(src: std::net::IpAddr, frame: &[u8]) -> u16 {
    let mut bytes = vec![0; 14];
    for address in [src, client_ip::<F>()] {
        match address {
            std::net::IpAddr::V4(address) => bytes.extend(address.octets()),
            std::net::IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    let length = (frame.len() - 14 - F::HEADER) as u16;
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, IPPROTO_TCP]);
    sum(&bytes)
}

/// What may happen in between.
#[derive(Clone, Copy, Debug)]
enum Event {
    Wish(bool),
    Veth(u8),
    Forward(u8),
    Answer(u8),
    Time,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        any::<bool>().prop_map(Event::Wish),
        (0..4_u8).prop_map(Event::Veth),
        select(vec![SYN, ACK, ACK, ACK]).prop_map(Event::Forward),
        select(vec![SYN | ACK, ACK, ACK]).prop_map(Event::Answer),
        Just(Event::Time),
    ];
    prop::collection::vec(event, 1..40)
}

/// Whatever the agent and the network do, all packets of a flow go one way.
fn never_mixed<F: Net>(events: &[Event]) {
    let node = node::<F>();
    let mut mode = None;
    for event in events {
        match event {
            Event::Wish(fast) => node.world.change_control(|to| to.fast_local = (*fast).into()),
            Event::Veth(0) => route::<F>(&node, into_pod(), true),
            Event::Veth(1) => {
                let hop = NextHop { kind: HOP_NEIGHBOUR, epoch: 0, ..into_pod() };
                route::<F>(&node, hop, true);
            }
            Event::Veth(2) => {
                route::<F>(&node, NextHop { kind: HOP_SEND, ..into_pod() }, false);
            }
            Event::Veth(_) => {
                route::<F>(&node, NextHop { kind: HOP_STACK, ..NextHop::UNRESOLVED }, false);
            }
            Event::Forward(flags) => {
                match node.ingress(&forward::<F>(*flags)).action {
                    Action::Pass => assert_eq!(mode, None, "no flow"),
                    Action::Stack => assert!(!*mode.get_or_insert(false)),
                    Action::Drop => assert_eq!(mode, Some(true), "no way past the stack"),
                    _ => assert!(*mode.get_or_insert(true)),
                };
            }
            Event::Answer(flags) => {
                let at_veth = node.pod(&answer::<F>(*flags)).action;
                let fast = mode == Some(true);
                assert_eq!(at_veth == Action::Send(NIC), fast, "{at_veth:?}, {mode:?}");
                if !fast {
                    assert_eq!(at_veth, Action::Pass);
                    let at_nic = node.egress(&answer::<F>(*flags)).action;
                    assert_eq!(at_nic == Action::Stack, mode.is_some(), "{at_nic:?}");
                }
            }
            Event::Time => node.world.wait(HZ * 5),
        }
        let halves = node.halves::<F>();
        let is_fast = |flags: u8| flags & FLOW_FAST != 0;
        assert!(halves.iter().all(|(_, _, flow)| Some(is_fast(flow.flags)) == mode));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flow_never_mixes_modes(events in events()) {
        never_mixed::<nodeport_common::core::family::V4>(&events);
        never_mixed::<nodeport_common::core::family::V6>(&events);
    }
}

fn datagrams_without_a_checksum_stay_so<F: Net>() {
    if F::VERSION == 4 {
        let node = node::<F>();
        let sent = Draft::new(client::<F>(), local_frontend::<F>(), Transport::UdpUnsummed);
        let out = node.ingress(&sent);
        assert_eq!((out.action, out.view().udp_checksum), (Action::Pod(POD_LINK), Some(0)));
    }
}
in_both_families!(datagrams_without_a_checksum_stay_so);

/// The other hooks leave alone what is met at the veth, and the veth what is met elsewhere.
fn a_hook_leaves_alone_what_is_met_at_another<F: Net>() {
    let node = node::<F>();
    connect::<F>(&node);
    for port in [TARGET, client::<F>().port(), LOCAL_PORT] {
        node.world.mark_port(port, 0xff);
    }
    let before = node.halves::<F>();
    for (hook, frame) in [
        (Hook::Egress, forward::<F>(ACK)),
        (Hook::Pod, forward::<F>(ACK)),
        (Hook::Xdp, answer::<F>(ACK)),
        (Hook::Ingress, answer::<F>(ACK)),
    ] {
        let out = node.walk(hook, &frame.build());
        assert_eq!((out.action, out.bytes), (Action::Pass, frame.build()), "{hook:?}");
    }
    assert_eq!(node.halves::<F>(), before);
}
in_both_families!(a_hook_leaves_alone_what_is_met_at_another);

/// The client is behind a veth of this node as well, and the answer has missed the program at the
/// pod's: where packets leave, the kernel puts none into the far end of a veth.
fn what_leaves_for_a_veth_is_sent_as_to_any_interface<F: Net>() {
    let node = node::<F>();
    connect::<F>(&node);
    let answer_to = Answer {
        from: F::bytes(node_ip::<F>()),
        hop: NextHop { ifindex: POD_LINK + 1, ..into_pod() },
        watched: true,
        to_pod: true,
    };
    F::maps(&node.world).routes.borrow_mut().insert(F::bytes(client_ip::<F>()), answer_to);
    node.world.change_control(|control| control.epoch += 1);
    assert_eq!(node.pod(&answer::<F>(ACK)).action, Action::Pod(POD_LINK + 1));
    assert_eq!(node.egress(&answer::<F>(ACK)).action, Action::Send(POD_LINK + 1));
}
in_both_families!(what_leaves_for_a_veth_is_sent_as_to_any_interface);
