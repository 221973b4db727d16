//! A client begins anew on its ports while a packet of its old connection is decided on elsewhere. It
//! keeps its port towards the backend, so that both halves of the new flow have the keys of the old
//! ones: whatever was decided about those must not befall these.

use std::net::SocketAddr;

use nodeport_common::abi::{FLOW_PROVED, Flow, FlowKey, FlowState, IPPROTO_TCP, Reason};
use nodeport_common::core::expiry::{Limits, end};
use nodeport_common::core::family::Family;
use nodeport_common::core::flow::set_state;
use nodeport_common::core::host::{At, XDP};
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::core::work::Work;
use nodeport_common::frames::tcp;

use crate::support::*;

/// Reads of a half by a packet of its own that is not routine.
const READS: u32 = 3;

/// Both halves of a connection.
struct Connection<F: Net> {
    seen: SocketAddr,
    forward: FlowKey<F::Addr>,
    reply: FlowKey<F::Addr>,
}

impl<F: Net> Connection<F> {
    fn open(node: &Node) -> Self {
        let seen = node.connect::<F>(client::<F>());
        let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
        Self { seen, forward, reply: key::<F>(IPPROTO_TCP, remote::<F>(), seen) }
    }

    /// The half of a flow that has just begun, or has proved itself already, in the place of this one.
    fn successor(node: &Node, key: &FlowKey<F::Addr>, state: FlowState) -> Flow<F::Addr> {
        let mut half = F::maps(&node.world).flows.get(key).expect("it is there");
        half.flags &= !FLOW_PROVED;
        set_state(&mut half, state);
        Flow { last_seen: node.world.now.get(), packets: 77, answered: 0, ..half }
    }

    /// Lets the client begin anew once one half was read so often, and the other one so often; what
    /// must be there then.
    fn renew(&self, node: &Node, state: FlowState, reads: [u32; 2]) -> Halves<F> {
        let mut halves = [(self.forward, reads[0]), (self.reply, reads[1])].map(|(key, reads)| {
            let half = Self::successor(node, &key, state);
            F::maps(&node.world).flows.replaced_meanwhile(&key, reads, half);
            (key, half)
        });
        halves.sort_unstable_by_key(|(key, _)| *key);
        halves
    }
}

/// Both halves of a flow.
type Halves<F> = [(FlowKey<<F as Family>::Addr>, Flow<<F as Family>::Addr>); 2];

#[track_caller]
fn assert_halves<F: Net>(node: &Node, expected: Halves<F>) {
    assert_eq!(F::maps(&node.world).flows.all(), expected);
}

/// The backend's last packet of the old connection closes that, and not the new one.
fn a_late_answer_does_not_close_it<F: Net>() {
    for flags in [FIN | ACK, RST] {
        let node = Node::new();
        let connection = Connection::<F>::open(&node);
        node.xdp(&tcp(client::<F>(), frontend::<F>(), FIN | ACK)).view();
        let expected = connection.renew(&node, FlowState::Opening, [1, READS]);
        node.xdp(&tcp(remote::<F>(), connection.seen, flags)).view();
        assert_halves::<F>(&node, expected);
    }
}
in_both_families!(a_late_answer_does_not_close_it);

/// The same where the answer's own half is the old one still: only the client's is the new flow's.
fn nor_does_one_whose_half_is_still_there<F: Net>() {
    let node = Node::new();
    let connection = Connection::<F>::open(&node);
    node.xdp(&tcp(client::<F>(), frontend::<F>(), FIN | ACK)).view();
    let half = Connection::<F>::successor(&node, &connection.forward, FlowState::Opening);
    F::maps(&node.world).flows.replaced_meanwhile(&connection.forward, 1, half);
    node.xdp(&tcp(remote::<F>(), connection.seen, FIN | ACK)).view();
    assert_eq!(F::maps(&node.world).flows.get(&connection.forward), Some(half));
    let reply = F::maps(&node.world).flows.get(&connection.reply).expect("it is there");
    assert_eq!(reply.state, FlowState::Closed as u8);
}
in_both_families!(nor_does_one_whose_half_is_still_there);

/// Nor does a packet of the client's, which is not counted as one of the new flow either.
fn a_late_packet_does_not_reset_it<F: Net>() {
    for flags in [RST, FIN | ACK] {
        let node = Node::new();
        let connection = Connection::<F>::open(&node);
        let expected = connection.renew(&node, FlowState::Answered, [READS, 1]);
        node.xdp(&tcp(client::<F>(), frontend::<F>(), flags)).view();
        assert_halves::<F>(&node, expected);
    }
}
in_both_families!(a_late_packet_does_not_reset_it);

/// By the old SYN-ACK's number nobody proves himself for the new flow.
fn a_late_syn_ack_proves_nothing<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    let half = Connection::<F>::successor(&node, &forward, FlowState::Opening);
    F::maps(&node.world).flows.replaced_meanwhile(&forward, 1, half);
    node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
    assert_eq!(F::maps(&node.world).flows.get(&forward), Some(half));
}
in_both_families!(a_late_syn_ack_proves_nothing);

/// The sweep has seen that the old flow was over.
fn the_sweep_does_not_end_it<F: Net>() {
    for asked_by_client in [true, false] {
        let node = Node::new();
        let connection = Connection::<F>::open(&node);
        node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
        node.world.wait(HZ);
        let expected = connection.renew(&node, FlowState::Opening, [1, 1]);
        let key = if asked_by_client { connection.forward } else { connection.reply };
        let mut work = Work { key, ..Work::default() };
        let at = At::<XDP> { world: &node.world, ifindex: 0 };
        assert!(end::<F, _>(&at, &mut work, &Limits::default()), "what it read was over");
        assert_halves::<F>(&node, expected);
    }
}
in_both_families!(the_sweep_does_not_end_it);

/// Somebody else was about to take the source port of the old flow, which was over.
fn its_port_is_not_taken<F: Net>() {
    let node = Node::new();
    node.world.change_control(|control| control.snat_count = 1);
    let connection = Connection::<F>::open(&node);
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    node.world.wait(2 * HZ);
    let expected = connection.renew(&node, FlowState::Established, [1, 1]);
    let stranger = SocketAddr::new(client_ip::<F>(), 50_000);
    assert_eq!(node.xdp(&tcp(stranger, frontend::<F>(), SYN)).action, Action::Drop);
    assert_eq!(node.world.count_of(Reason::NoPort), 1);
    assert_halves::<F>(&node, expected);
}
in_both_families!(its_port_is_not_taken);

/// Two SYNs of the client's on the ports of its old connection: the second one does not end what the
/// first one has begun.
fn a_second_syn_does_not_end_it<F: Net>() {
    let node = Node::new();
    let connection = Connection::<F>::open(&node);
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    let expected = connection.renew(&node, FlowState::Opening, [READS, 1]);
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN));
    assert_eq!((out.action, node.world.count_of(Reason::Raced)), (Action::Drop, 1));
    assert_halves::<F>(&node, expected);
}
in_both_families!(a_second_syn_does_not_end_it);
