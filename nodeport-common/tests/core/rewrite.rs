//! What a flow does to a packet, and that its partner undoes it.

use std::net::SocketAddr;

use nodeport_common::abi::FlowState;
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::host::{Checksum, SkbFrame};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Transport, View, faults, udp};
use proptest::prelude::*;

use crate::support::*;

/// A packet from where `out` went to where it came from, with the same payload: an answer.
fn answer(out: &View, transport: Transport) -> Draft {
    let transport = match (transport, out.udp_checksum) {
        (Transport::Tcp(_), _) => Transport::Tcp(SYN | ACK),
        (_, Some(0)) => Transport::UdpUnsummed,
        (other, _) => other,
    };
    Draft::new(out.dst, out.src, transport).payload(&out.payload)
}

fn there_and_back<F: Net>(hook: Hook, transport: Transport, client: SocketAddr, payload: &[u8]) {
    let node = Node::new();
    let sent = Draft::new(client, frontend::<F>(), transport).payload(payload);
    let out = node.walk(hook, &sent.build());
    assert_eq!(out.action, Action::Send(INSIDE));
    let view = out.view();
    assert_eq!((view.src.ip(), view.dst), (inside_ip::<F>(), remote::<F>()));
    assert!((SNAT_FIRST..SNAT_FIRST + SNAT_COUNT).contains(&view.src.port()));
    assert_eq!((view.dst_mac, view.src_mac), (BACKEND_MAC, BACKEND_SIDE_MAC));
    assert_eq!((view.ttl, view.payload.as_slice()), (63, payload));
    if transport == Transport::UdpUnsummed {
        assert_eq!(view.udp_checksum, Some(0), "no checksum stays none");
    }

    let back = node.walk(hook, &answer(&view, transport).build());
    let view = back.view();
    assert_eq!((view.src, view.dst), (frontend::<F>(), client));
    assert_eq!(view.payload, payload);
    // Byte for byte what the frontend itself would have sent.
    let flags =
        if let Transport::Tcp(_) = transport { Transport::Tcp(SYN | ACK) } else { transport };
    let expected = Draft::new(frontend::<F>(), client, flags)
        .payload(payload)
        .ttl(63)
        .macs(CLIENT_MAC, CLIENT_SIDE_MAC)
        .build();
    if client.ip() == client_ip::<F>() {
        assert_eq!(back.action, Action::Send(NIC));
        assert_eq!(back.bytes, expected);
    }
}

const TRANSPORTS: [Transport; 3] = [Transport::Tcp(SYN), Transport::Udp, Transport::UdpUnsummed];

fn answers_come_back_as_from_the_frontend<F: Net>() {
    for hook in [Hook::Xdp, Hook::Ingress] {
        for transport in TRANSPORTS {
            // UDP over IPv6 must have a checksum.
            if !(F::VERSION == 6 && transport == Transport::UdpUnsummed) {
                there_and_back::<F>(hook, transport, client::<F>(), b"a payload of odd length");
            }
        }
    }
}
in_both_families!(answers_come_back_as_from_the_frontend);

/// What the network card makes of a frame whose checksum it is to finish: it adds up everything
/// from the transport header on, with what lies in the field.
fn finish_in_hardware(frame: &mut [u8], transport: usize, field: usize) {
    let mut sum = 0_u64;
    for pair in frame[transport..].chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[field..field + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

fn unfinished_checksums_are_finished_right_by_the_card<F: Net>() {
    use nodeport_common::frames::tcp;
    let header = if F::VERSION == 4 { 34 } else { 54 };
    for (draft, field) in [
        (tcp(client::<F>(), local_frontend::<F>(), SYN), header + 16),
        (udp(client::<F>(), local_frontend::<F>()), header + 6),
    ] {
        let node = Node::new();
        let mut frame = SkbFrame::new(draft.build());
        frame.checksum = Checksum::Partial;
        // The sum of the pseudo-header is what is left when all that the packet has is taken away.
        frame.bytes[field..field + 2].fill(0);
        let mut zeroed = frame.bytes.clone();
        finish_in_hardware(&mut zeroed, header, field);
        let plain = u16::from_be_bytes([zeroed[field], zeroed[field + 1]]);
        let right = draft.build();
        let right = u16::from_be_bytes([right[field], right[field + 1]]);
        // right = ~(packet + pseudo) and plain = ~packet, so pseudo = plain - right.
        let pseudo = u32::from(plain) + u32::from(!right);
        let pseudo = (pseudo & 0xffff) + (pseudo >> 16);
        frame.bytes[field..field + 2].copy_from_slice(&(pseudo as u16).to_be_bytes());

        assert_eq!(node.world.ingress(NIC, &mut frame).action(), Action::Stack);
        finish_in_hardware(&mut frame.bytes, header, field);
        assert_eq!(faults(&frame.bytes), Vec::<String>::new());
    }
}
in_both_families!(unfinished_checksums_are_finished_right_by_the_card);

fn a_local_backend_sees_the_client<F: Net>() {
    let node = Node::new();
    node.connect_local::<F>(client::<F>());
    let out = node.ingress(&draft(Transport::Tcp(ACK), client::<F>(), local_frontend::<F>()));
    let view = out.view();
    assert_eq!((view.src, view.dst), (client::<F>(), local::<F>()));
    assert_eq!(view.ttl, 64, "the stack counts down itself");
    let back = node.egress(&draft(Transport::Tcp(ACK), local::<F>(), client::<F>()));
    assert_eq!((back.view().src, back.view().dst), (local_frontend::<F>(), client::<F>()));
    let (_, half) = node.half::<F>(6, client::<F>(), local_frontend::<F>()).expect("kept");
    assert_eq!(half.state, FlowState::Established as u8);
}
in_both_families!(a_local_backend_sees_the_client);

fn xdp_notes_what_it_rewrote_for_the_stack<F: Net>() {
    use nodeport_common::core::host::XdpFrame;
    use nodeport_common::frames::tcp;
    let draft = tcp(client::<F>(), local_frontend::<F>(), SYN);
    let node = Node::new();
    let mut frame = XdpFrame::new(draft.build());
    assert_eq!(node.world.xdp(NIC, &mut frame).action(), Action::Stack);
    assert!(frame.done, "TC behind it would rewrite it again");

    // Where the driver has no room for the note, TC does it all.
    let node = Node::new();
    let mut frame = XdpFrame { takes_no_note: true, ..XdpFrame::new(draft.build()) };
    assert_eq!(node.world.xdp(NIC, &mut frame).action(), Action::Pass);
    assert_eq!(frame.bytes, draft.build());
    let out = node.ingress(&draft);
    assert_eq!((out.action, out.view().dst), (Action::Stack, local::<F>()));
}
in_both_families!(xdp_notes_what_it_rewrote_for_the_stack);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_packet_there_and_back_ipv4(
        ip: [u8; 4], port: u16, payload in prop::collection::vec(any::<u8>(), 0..80),
        kind in 0_usize..3, tc: bool,
    ) {
        let [_, b, c, d] = ip;
        let client = SocketAddr::from(([100, b, c, d], port));
        there_and_back_from::<V4>(client, &payload, TRANSPORTS[kind], tc);
    }

    #[test]
    fn any_packet_there_and_back_ipv6(
        ip: [u16; 8], port: u16, payload in prop::collection::vec(any::<u8>(), 0..80),
        kind in 0_usize..2, tc: bool,
    ) {
        let [_, b, c, d, e, f, g, h] = ip;
        let client = SocketAddr::from(([0x2001, b, c, d, e, f, g, h], port));
        there_and_back_from::<V6>(client, &payload, TRANSPORTS[kind], tc);
    }
}

/// From any client: the route to it is the same for all of them.
fn there_and_back_from<F: Net>(client: SocketAddr, payload: &[u8], transport: Transport, tc: bool) {
    let hook = if tc { Hook::Ingress } else { Hook::Xdp };
    let node = Node::new();
    let maps = F::maps(&node.world);
    let answer_to_client = maps.routes.borrow()[&F::bytes(client_ip::<F>())];
    maps.routes.borrow_mut().insert(F::bytes(client.ip()), answer_to_client);
    let sent = Draft::new(client, frontend::<F>(), transport).payload(payload);
    let there = node.walk(hook, &sent.build());
    let view = there.view();
    assert_eq!((view.dst, view.payload.as_slice()), (remote::<F>(), payload));
    let back = node.walk(hook, &answer(&view, transport).build());
    assert_eq!(back.action, Action::Send(NIC));
    let flags =
        if let Transport::Tcp(_) = transport { Transport::Tcp(SYN | ACK) } else { transport };
    let expected = Draft::new(frontend::<F>(), client, flags)
        .payload(payload)
        .ttl(63)
        .macs(CLIENT_MAC, CLIENT_SIDE_MAC);
    assert_eq!(back.bytes, expected.build());
}
