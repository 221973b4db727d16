//! Any bytes, at any hook of a node that has flows.

use std::net::SocketAddr;

use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{faults, tcp, udp};

use super::Input;
use crate::support::*;

/// What is passed is as it came; what was right is right afterwards.
pub(crate) fn walk(data: &[u8]) {
    let mut input = Input::new(data);
    let hook = input.of(&[Hook::Xdp, Hook::Ingress, Hook::Egress, Hook::Pod]);
    let node = busy();
    node.world.wait(u32::from(input.byte()) * 64);
    let frame = &frame(&node, input);
    let out = node.walk(hook, frame);
    match out.action {
        Action::Pass => assert_eq!(&out.bytes, frame, "passed, but changed"),
        Action::Drop => {}
        Action::Stack
        | Action::Send(_)
        | Action::Back(_)
        | Action::Neighbour(_)
        | Action::Pod(_) => {
            if faults(frame).is_empty() {
                assert_eq!(faults(&out.bytes), Vec::<String>::new(), "{frame:02x?}");
            }
        }
    }
}

/// The bytes as they are, or some changes to a frame of a flow.
fn frame(node: &Node, mut input: Input<'_>) -> Vec<u8> {
    let mut frame = match input.byte() % 3 {
        0 => return input.rest().to_vec(),
        1 => known::<V4>(node, &mut input),
        _ => known::<V6>(node, &mut input),
    };
    let end = input.byte();
    while !input.is_empty() {
        let at = usize::from(input.byte()) % frame.len();
        frame[at] = input.byte();
    }
    if end != 0 {
        frame.truncate(usize::from(end));
    }
    frame
}

fn known<F: Net>(node: &Node, input: &mut Input<'_>) -> Vec<u8> {
    let halves = node.halves::<F>();
    let seen = halves.iter().find(|(_, key, _)| key.src == F::bytes(remote_ip::<F>()));
    let seen = seen.map_or(0, |(_, key, _)| u16::from_be_bytes(key.ports.dst));
    let seen = SocketAddr::new(inside_ip::<F>(), seen);
    let flags = input.of(&[ACK, SYN, FIN | ACK, RST, SYN | ACK]);
    let pairs = [
        (client::<F>(), frontend::<F>()),
        (remote::<F>(), seen),
        (client::<F>(), local_frontend::<F>()),
        (local::<F>(), client::<F>()),
    ];
    let (src, dst) = input.of(&pairs);
    let draft = if input.byte() & 1 == 0 { tcp(src, dst, flags) } else { udp(src, dst) };
    match input.byte() % 4 {
        0 => draft.tag(0x88a8, 1).tag(0x8100, 2),
        1 if F::VERSION == 4 => draft.options(&[1; 8]),
        1 => draft.extension(0, &[0, 0, 1, 4, 0, 0, 0, 0]),
        _ => draft,
    }
    .ttl(input.of(&[64, 2, 1, 0]))
    .build()
}

/// A node with flows of both families.
fn busy() -> Node {
    let node = Node::new();
    fill::<V4>(&node);
    fill::<V6>(&node);
    node
}

fn fill<F: Net>(node: &Node) {
    node.connect::<F>(client::<F>());
    node.connect_local::<F>(client::<F>());
    node.xdp(&udp(client::<F>(), frontend::<F>()));
    node.ingress(&tcp(client::<F>(), local_frontend::<F>(), SYN));
}
