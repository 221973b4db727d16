//! Both halves of a flow: one follows from the other, they live and die together.

use nodeport_common::abi::{FlowState, IPPROTO_TCP, IPPROTO_UDP, Reason};
use nodeport_common::core::flow::{ONE_WAY_PACKETS, ONE_WAY_SECONDS, partner, partner_key};
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{tcp, udp};

use crate::support::*;

fn the_partner_of_a_partner_is_the_flow<F: Net>() {
    let node = Node::new();
    node.connect::<F>(client::<F>());
    node.connect_local::<F>(client::<F>());
    assert_eq!(node.halves::<F>().len(), 4);
    for (_, key, flow) in node.halves::<F>() {
        let other = partner(&key, &flow);
        let other_key = partner_key(&key, &flow);
        assert_eq!(partner_key(&other_key, &other), key);
        let again = partner(&other_key, &other);
        // All but the way and the counters, which are each half's own.
        let mut expected = flow;
        (expected.hop, expected.packets, expected.bytes) = (again.hop, 0, 0);
        assert_eq!(again, expected);
    }
}
in_both_families!(the_partner_of_a_partner_is_the_flow);

/// Where they are: what they have counted stays, and so does their age.
fn a_handshake_proves_both_halves<F: Net>() {
    let node = Node::new();
    node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    let before = node.halves::<F>();
    assert!(before.iter().all(|(proved, ..)| !proved));
    assert_paired::<F>(&node);
    node.world.wait(1);
    node.connect::<F>(client::<F>());
    let after = node.halves::<F>();
    assert_eq!(after.len(), 2);
    for ((_, old_key, old), (proved, key, new)) in before.iter().zip(&after) {
        assert!(proved);
        assert_eq!((key, new.created), (old_key, old.created));
        // The SYN once more and the ACK; the answer.
        assert_eq!(new.packets, if is_reply(new) { 1 } else { old.packets + 2 });
    }
    assert_paired::<F>(&node);
}
in_both_families!(a_handshake_proves_both_halves);

fn a_forward_half_that_is_lost_is_made_anew<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    let (_, before) = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).unwrap();
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    // The next look at the flow notices.
    node.world.wait(2 * nodeport_common::core::flow::INTERVAL);
    node.xdp(&tcp(remote::<F>(), seen, ACK)).view();
    let (proved, after) = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).unwrap();
    assert!(proved);
    assert_eq!((after.new_src, after.new_ports), (before.new_src, before.new_ports));
    assert_eq!(node.world.count_of(Reason::PartnerRebuilt), 1);
    assert_paired::<F>(&node);
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK));
    assert_eq!((out.action, out.view().src), (Action::Send(INSIDE), seen));
}
in_both_families!(a_forward_half_that_is_lost_is_made_anew);

fn a_reply_half_that_is_lost_is_made_anew<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.lose::<F>(IPPROTO_TCP, remote::<F>(), seen);
    node.world.wait(2 * nodeport_common::core::flow::INTERVAL);
    node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
    assert_eq!(node.world.count_of(Reason::PartnerRebuilt), 1);
    assert_paired::<F>(&node);
    let out = node.xdp(&tcp(remote::<F>(), seen, ACK));
    assert_eq!((out.action, out.view().dst), (Action::Send(NIC), client::<F>()));
}
in_both_families!(a_reply_half_that_is_lost_is_made_anew);

fn a_newcomers_lost_half_is_made_anew_at_once<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
    assert_paired::<F>(&node);
    node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
    assert_paired::<F>(&node);
    assert_eq!(node.halves::<F>().len(), 2);
}
in_both_families!(a_newcomers_lost_half_is_made_anew_at_once);

/// A half whose place another flow has taken must not touch that flow.
fn an_orphan_leaves_another_flow_alone<F: Net>() {
    let node = Node::new();
    let first = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    let second = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    assert_ne!(first, second);
    let before = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).unwrap();
    let out = node.xdp(&tcp(remote::<F>(), first, SYN | ACK));
    // The client must not see the answer to a SYN that its flow no longer stands for: its ACK
    // would go to the backend from another port. The stack refuses it for us.
    assert_eq!(out.action, Action::Pass);
    let after = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).unwrap();
    assert_eq!(before, after);
    assert!(node.half::<F>(IPPROTO_TCP, remote::<F>(), first).is_none(), "the orphan is gone");
    assert_paired::<F>(&node);
}
in_both_families!(an_orphan_leaves_another_flow_alone);

fn an_orphan_that_ends_takes_no_other_flow_along<F: Net>() {
    let node = Node::new();
    let first = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    node.lose::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>());
    node.set_slot(0, OTHER_BACKEND);
    node.xdp(&udp(client::<F>(), frontend::<F>())).view();
    node.end_backend::<F>(REMOTE_BACKEND);
    // The backend that is gone had one more answer on its way.
    node.xdp(&udp(remote::<F>(), first));
    let kept = node.half::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>()).expect("alive");
    assert_eq!(kept.1.backend, OTHER_BACKEND);
    assert_paired::<F>(&node);
}
in_both_families!(an_orphan_that_ends_takes_no_other_flow_along);

fn a_syn_sent_again_keeps_its_backend<F: Net>() {
    let node = Node::new();
    let syn = tcp(client::<F>(), frontend::<F>(), SYN);
    let first = node.xdp(&syn).view();
    node.set_slot(0, OTHER_BACKEND);
    for _ in 0..5 {
        node.world.wait(HZ);
        let again = node.xdp(&syn).view();
        assert_eq!((again.src, again.dst), (first.src, first.dst));
    }
    assert_eq!(node.halves::<F>().len(), 2);
}
in_both_families!(a_syn_sent_again_keeps_its_backend);

fn a_syn_on_an_ended_connection_begins_anew<F: Net>() {
    for ending in [FIN | ACK, RST] {
        let node = Node::new();
        let old = node.connect::<F>(client::<F>());
        node.xdp(&tcp(client::<F>(), frontend::<F>(), ending)).view();
        node.set_slot(0, OTHER_BACKEND);
        let view = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
        assert_eq!(view.dst.ip(), F::party(8, 21), "chosen again at once");
        assert_eq!(node.halves::<F>().len(), 2, "nothing is left of the old one");
        assert!(node.half::<F>(IPPROTO_TCP, remote::<F>(), old).is_none());
        assert_paired::<F>(&node);
    }
}
in_both_families!(a_syn_on_an_ended_connection_begins_anew);

fn a_syn_on_a_live_connection_changes_nothing<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.set_slot(0, OTHER_BACKEND);
    let view = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    // The backend itself tells whether it is a new one (RFC 5961).
    assert_eq!((view.src, view.dst), (seen, remote::<F>()));
}
in_both_families!(a_syn_on_a_live_connection_changes_nothing);

fn a_stray_reset_does_not_end_a_connection<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    assert_paired::<F>(&node);
    let state = |node: &Node| node.half::<F>(IPPROTO_TCP, remote::<F>(), seen).unwrap().1.state;
    assert_eq!(state(&node), FlowState::Reset as u8);
    let out = node.xdp(&tcp(remote::<F>(), seen, ACK));
    assert_eq!((out.action, out.view().dst), (Action::Send(NIC), client::<F>()));
    assert_eq!(state(&node), FlowState::Doubted as u8);
    assert_paired::<F>(&node);
}
in_both_families!(a_stray_reset_does_not_end_a_connection);

fn udp_without_answers_proves_itself_in_time<F: Net>() {
    let node = Node::new();
    let packet = udp(client::<F>(), frontend::<F>());
    let proved =
        |node: &Node| node.half::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>()).unwrap().0;
    for _ in 0..2 * ONE_WAY_PACKETS {
        node.xdp(&packet).view();
    }
    assert!(!proved(&node), "many packets at once prove nothing");
    node.world.wait(HZ * ONE_WAY_SECONDS);
    node.xdp(&packet).view();
    assert!(proved(&node));
    assert_paired::<F>(&node);
}
in_both_families!(udp_without_answers_proves_itself_in_time);

fn few_packets_over_a_long_time_prove_nothing<F: Net>() {
    let node = Node::new();
    for _ in 0..ONE_WAY_PACKETS {
        node.xdp(&udp(client::<F>(), frontend::<F>())).view();
        node.world.wait(HZ);
    }
    assert!(node.halves::<F>().iter().all(|(proved, ..)| !proved));
}
in_both_families!(few_packets_over_a_long_time_prove_nothing);

fn an_ended_backend_ends_udp_at_once<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    node.xdp(&udp(remote::<F>(), seen)).view();
    node.end_backend::<F>(REMOTE_BACKEND);
    node.set_slot(0, OTHER_BACKEND);
    let out = node.xdp(&udp(client::<F>(), frontend::<F>()));
    assert_eq!(out.view().dst.ip(), F::party(8, 21), "the very next packet goes elsewhere");
    assert_eq!(node.world.count_of(Reason::StaleBackend), 1);
    assert_eq!(node.halves::<F>().len(), 2);
    assert_paired::<F>(&node);
}
in_both_families!(an_ended_backend_ends_udp_at_once);

fn packets_and_bytes_are_counted_by_half<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    let data = tcp(client::<F>(), frontend::<F>(), ACK).payload(&[7; 100]);
    for _ in 0..3 {
        node.xdp(&data).view();
    }
    let header = F::HEADER as u64 + 20;
    let (_, forward) = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).unwrap();
    assert_eq!((forward.packets, forward.bytes), (5, 5 * header + 300));
    let (_, reply) = node.half::<F>(IPPROTO_TCP, remote::<F>(), seen).unwrap();
    assert_eq!((reply.packets, reply.bytes), (1, header));
}
in_both_families!(packets_and_bytes_are_counted_by_half);
