//! ICMP errors of our own: what a router would answer.

use std::net::SocketAddr;

use nodeport_common::abi::{IPPROTO_TCP, Reason};
use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, NODE_MAC, PEER_MAC, View, tcp, udp};

use crate::support::*;

const ARRIVING: [Hook; 2] = [Hook::Xdp, Hook::Ingress];

/// Checks the error about `packet`, and returns its type, code and last word.
#[track_caller]
fn error_about(out: &Out, packet: &Draft, from: SocketAddr, to: SocketAddr) -> (u8, u8, [u8; 4]) {
    assert_eq!(out.action, Action::Back(NIC), "back where it came from");
    let View { dst_mac, src_mac, src, dst, ttl, payload, .. } = out.view();
    assert_eq!((dst_mac, src_mac), (PEER_MAC, NODE_MAC));
    assert_eq!((src.ip(), dst.ip(), ttl), (from.ip(), to.ip(), 64));
    let quote = &payload[8..];
    assert!(packet.packet().starts_with(quote), "quoted as it came");
    assert!(quote.len() >= 28, "{} bytes", quote.len());
    (payload[0], payload[1], [payload[4], payload[5], payload[6], payload[7]])
}

fn expired<F: Net>() -> (u8, u8, [u8; 4]) {
    if F::VERSION == 4 { (11, 0, [0; 4]) } else { (3, 0, [0; 4]) }
}

fn too_big<F: Net>(mtu: u16) -> (u8, u8, [u8; 4]) {
    let [a, b] = mtu.to_be_bytes();
    if F::VERSION == 4 { (3, 4, [0, 0, a, b]) } else { (2, 0, [0, 0, a, b]) }
}

fn the_last_hop_is_told<F: Net>() {
    for hook in ARRIVING {
        for ttl in [0, 1] {
            for packet in [
                tcp(client::<F>(), frontend::<F>(), SYN).ttl(ttl),
                udp(client::<F>(), frontend::<F>()).ttl(ttl),
                tcp(client::<F>(), frontend::<F>(), SYN).payload(&[9; 333]).ttl(ttl),
            ] {
                let node = Node::new();
                let out = node.walk(hook, &packet.build());
                let error = error_about(&out, &packet, frontend::<F>(), client::<F>());
                assert_eq!(error, expired::<F>());
                assert_eq!(node.world.count_of(Reason::TtlExceeded), 1);
                assert!(node.halves::<F>().is_empty(), "it opened nothing");
            }
        }
    }
}
in_both_families!(the_last_hop_is_told);

fn a_live_flows_last_hop_is_told_in_both_directions<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        let before = node.halves::<F>();
        let packet = tcp(client::<F>(), frontend::<F>(), ACK).ttl(1);
        let out = node.walk(hook, &packet.build());
        let error = error_about(&out, &packet, frontend::<F>(), client::<F>());
        assert_eq!(error, expired::<F>());
        let packet = tcp(remote::<F>(), seen, ACK).ttl(1);
        let out = node.walk(hook, &packet.build());
        let error = error_about(&out, &packet, seen, remote::<F>());
        assert_eq!(error, expired::<F>());
        assert_eq!(node.halves::<F>(), before);
    }
}
in_both_families!(a_live_flows_last_hop_is_told_in_both_directions);

fn what_the_stack_delivers_it_counts_down_itself<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let out = node.walk(hook, &tcp(client::<F>(), local_frontend::<F>(), SYN).ttl(1).build());
        assert_eq!((out.action, out.view().ttl), (Action::Stack, 1));
    }
}
in_both_families!(what_the_stack_delivers_it_counts_down_itself);

fn a_narrow_path_is_told<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let maps = F::maps(&node.world);
        maps.routes.borrow_mut().get_mut(&F::bytes(remote_ip::<F>())).unwrap().hop.mtu = 1300;
        node.connect::<F>(client::<F>());
        let room = 1300 - F::HEADER - 20;
        let fits = tcp(client::<F>(), frontend::<F>(), ACK).payload(&vec![1; room]);
        assert_eq!(node.walk(hook, &fits.build()).action, Action::Send(INSIDE));
        let packet = tcp(client::<F>(), frontend::<F>(), ACK).payload(&vec![1; room + 1]);
        let out = node.walk(hook, &packet.build());
        let error = error_about(&out, &packet, frontend::<F>(), client::<F>());
        assert_eq!(error, too_big::<F>(1300));
        assert_eq!(node.world.count_of(Reason::TooBig), 1);
    }
}
in_both_families!(a_narrow_path_is_told);

fn the_way_back_is_measured_too<F: Net>() {
    let node = Node::new();
    let maps = F::maps(&node.world);
    maps.routes.borrow_mut().get_mut(&F::bytes(client_ip::<F>())).unwrap().hop.mtu = 1280;
    let seen = node.connect::<F>(client::<F>());
    let packet = tcp(remote::<F>(), seen, ACK).payload(&[1; 1300]);
    let error = error_about(&node.xdp(&packet), &packet, seen, remote::<F>());
    assert_eq!(error, too_big::<F>(1280));
}
in_both_families!(the_way_back_is_measured_too);

/// Options and extensions are quoted, but no more than fits the bound of the checksum's loop.
fn long_headers_are_quoted_in_part<F: Net>() {
    let sizes: &[usize] =
        if F::VERSION == 4 { &[4, 20, 40] } else { &[8, 40, 48, 56, 64, 80, 200] };
    for size in sizes {
        let packet = tcp(client::<F>(), frontend::<F>(), SYN).ttl(1);
        let packet = match F::VERSION {
            4 => packet.options(&vec![1; *size]),
            _ => {
                let mut header = vec![0; *size];
                (header[1], header[2]) = ((*size / 8 - 1) as u8, 1);
                header[3] = (size - 4) as u8;
                packet.extension(60, &header)
            }
        };
        for hook in ARRIVING {
            let node = Node::new();
            let out = node.walk(hook, &packet.build());
            let error = error_about(&out, &packet, frontend::<F>(), client::<F>());
            assert_eq!(error, expired::<F>(), "{size} bytes");
        }
    }
}
in_both_families!(long_headers_are_quoted_in_part);

fn tags_stay<F: Net>() {
    let packet = tcp(client::<F>(), frontend::<F>(), SYN).ttl(1).tag(0x88a8, 3).tag(0x8100, 4);
    let node = Node::new();
    node.put_behind::<F>([tag(0x88a8, 3), tag(0x8100, 4)]);
    let out = node.xdp(&packet);
    assert_eq!(error_about(&out, &packet, frontend::<F>(), client::<F>()), expired::<F>());
    assert_eq!(out.view().tags, 2);
    assert_eq!(out.bytes[12..20], [0x88, 0xa8, 0, 3, 0x81, 0, 0, 4]);
}
in_both_families!(tags_stay);

/// The kernel makes no room in a frame that it takes for something else than IP.
fn a_tagged_frame_in_tc_is_dropped_with_its_reason<F: Net>() {
    let packet = tcp(client::<F>(), frontend::<F>(), SYN).ttl(1).tag(0x8100, 4);
    let node = Node::new();
    assert_eq!(node.ingress(&packet).action, Action::Drop);
    assert_eq!(node.world.count_of(Reason::Failed), 1);
}
in_both_families!(a_tagged_frame_in_tc_is_dropped_with_its_reason);

/// Whatever the clock shows: a second has so many errors and no more.
fn a_second_has_its_budget<F: Net>() {
    let packet = tcp(client::<F>(), frontend::<F>(), SYN).ttl(1);
    for start in [1000, 1001, u32::MAX, u32::MAX - 1, u32::MAX - HZ / 2] {
        let node = Node::new();
        node.world.now.set(start);
        let mut sent = 0;
        for _ in 0..HZ - 1 {
            sent += u32::from(node.xdp(&packet).action == Action::Back(NIC));
            node.world.wait(1);
        }
        assert_eq!(sent, 10, "from {start}");
        // Many in one instant.
        node.world.wait(HZ);
        let instant = (0..50).filter(|_| node.xdp(&packet).action == Action::Back(NIC)).count();
        assert_eq!(instant, 10, "from {start}");
        assert_eq!(node.world.count_of(Reason::TtlExceeded), 20);
        assert_eq!(node.world.count_of(Reason::ErrorLimit), u64::from(HZ) - 1 - 10 + 40);
        let dropped = node.xdp(&packet);
        assert_eq!((dropped.action, dropped.bytes), (Action::Drop, packet.build()));
    }
}
in_both_families!(a_second_has_its_budget);

fn a_flow_survives_its_errors<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    for _ in 0..20 {
        node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK).ttl(1));
    }
    assert!(node.half::<F>(IPPROTO_TCP, remote::<F>(), seen).is_some());
    assert_eq!(node.connect::<F>(client::<F>()), seen);
}
in_both_families!(a_flow_survives_its_errors);
