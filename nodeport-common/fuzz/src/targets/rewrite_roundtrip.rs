//! A packet of any client, there and back.

use std::net::{IpAddr, SocketAddr};

use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Transport};

use super::Input;
use crate::support::*;

/// The backend gets what the client sent, and the client what the backend answered, byte by byte.
pub(crate) fn rewrite_roundtrip(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() & 1 == 0 {
        let [_, b, c, d] = input.bytes();
        roundtrip::<V4>(IpAddr::from([100, b, c, d]), input);
    } else {
        let mut ip: [u8; 16] = input.bytes();
        ip[0] = 0x20;
        roundtrip::<V6>(IpAddr::from(ip), input);
    }
}

fn roundtrip<F: Net>(ip: IpAddr, mut input: Input<'_>) {
    let client = SocketAddr::new(ip, u16::from_ne_bytes(input.bytes()));
    let hook = input.of(&[Hook::Xdp, Hook::Ingress]);
    let there = input.of(&[Transport::Tcp(SYN), Transport::Udp, Transport::UdpUnsummed]);
    let back = match there {
        Transport::Tcp(_) => Transport::Tcp(SYN | ACK),
        // UDP over IPv6 must have a checksum.
        Transport::UdpUnsummed if F::VERSION == 6 => Transport::Udp,
        other => other,
    };
    let there = if let Transport::Tcp(_) = there { there } else { back };
    let node = Node::new();
    let maps = F::maps(&node.world);
    let way = maps.routes.borrow()[&F::bytes(client_ip::<F>())];
    maps.routes.borrow_mut().insert(F::bytes(ip), way);
    node.world.script.borrow_mut().push_back(u32::from_ne_bytes(input.bytes()));
    let payload = input.rest();
    let payload = &payload[..payload.len().min(1200)];

    let sent = Draft::new(client, frontend::<F>(), there).payload(payload);
    let out = node.walk(hook, &sent.build());
    let seen = out.view().src;
    let expected = Draft::new(seen, remote::<F>(), there)
        .payload(payload)
        .ttl(63)
        .macs(BACKEND_MAC, BACKEND_SIDE_MAC);
    assert_eq!((out.action, out.bytes), (Action::Send(INSIDE), expected.build()));

    let answer = Draft::new(remote::<F>(), seen, back).payload(payload);
    let out = node.walk(hook, &answer.build());
    let expected = Draft::new(frontend::<F>(), client, back)
        .payload(payload)
        .ttl(63)
        .macs(CLIENT_MAC, CLIENT_SIDE_MAC);
    assert_eq!((out.action, out.bytes), (Action::Send(NIC), expected.build()));
}
