//! Any bytes, at any hook of a node that has flows.

use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::SYN;
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{faults, tcp, udp};

use super::Input;
use crate::support::*;

/// What is passed is as it came; what was right is right afterwards.
pub(crate) fn walk(data: &[u8]) {
    let mut input = Input::new(data);
    let hook = input.of(&[Hook::Xdp, Hook::Ingress, Hook::Egress]);
    let node = busy();
    node.world.wait(u32::from(input.byte()) * 64);
    let frame = input.rest();
    let out = node.walk(hook, frame);
    match out.action {
        Action::Pass => assert_eq!(out.bytes, frame, "passed, but changed"),
        Action::Drop => {}
        Action::Stack | Action::Send(_) | Action::Neighbour(_) => {
            if faults(frame).is_empty() {
                assert_eq!(faults(&out.bytes), Vec::<String>::new(), "{frame:02x?}");
            }
        }
    }
}

/// A node with flows of both families, all of whose frames are short enough for a fuzzer to guess.
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
