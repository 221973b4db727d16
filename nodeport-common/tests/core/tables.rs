//! A table that is full: who suffers is the newcomer.

use std::net::SocketAddr;

use nodeport_common::abi::{FLOW_SETTLED, Flow, FlowState, IPPROTO_TCP, IPPROTO_UDP, Reason};
use nodeport_common::core::flow::set_state;
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{tcp, udp};

use crate::support::*;

fn sized<F: Net>(flows: usize) -> Node {
    let mut node = Node::new();
    F::maps_mut(&mut node.world).flows.set_capacity(flows);
    node
}

fn nth<F: Net>(number: u16) -> SocketAddr {
    SocketAddr::new(client_ip::<F>(), 1024 + number)
}

/// Sends so many clients' SYNs, each of which is served.
fn flood<F: Net>(node: &Node, clients: u16) {
    for number in 0..clients {
        let out = node.xdp(&tcp(nth::<F>(number), frontend::<F>(), SYN));
        assert_eq!(out.action, Action::Send(INSIDE));
    }
}

fn a_flood_pushes_out_newcomers_only<F: Net>() {
    let node = sized::<F>(22);
    let seen = node.connect::<F>(client::<F>());
    flood::<F>(&node, 500);
    assert_eq!(F::maps(&node.world).flows.len(), 22);
    assert_eq!(node.world.count_of(Reason::TableFull), 0);
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
    assert_eq!(out.src, seen);
    let back = node.xdp(&tcp(remote::<F>(), seen, ACK)).view();
    assert_eq!(back.dst, client::<F>());
}
in_both_families!(a_flood_pushes_out_newcomers_only);

/// Nor does it push out what has proved itself once, whatever state it is in by now.
fn a_flood_does_not_push_out_what_was_reset<F: Net>() {
    let node = sized::<F>(22);
    let seen = node.connect::<F>(client::<F>());
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    for (proved, _, half) in node.halves::<F>() {
        assert_eq!((proved, half.state), (true, FlowState::Reset as u8));
        assert_eq!(half.flags & FLOW_SETTLED, 0);
    }
    flood::<F>(&node, 500);
    // The reset was stray.
    let back = node.xdp(&tcp(remote::<F>(), seen, ACK)).view();
    assert_eq!(back.dst, client::<F>());
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
    assert_eq!(out.src, seen);
}
in_both_families!(a_flood_does_not_push_out_what_was_reset);

/// One whose reset is followed by another SYN is a newcomer again.
fn who_begins_anew_proves_itself_anew<F: Net>() {
    let node = sized::<F>(22);
    node.connect::<F>(client::<F>());
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    assert!(node.halves::<F>().iter().all(|(proved, ..)| !proved));
    flood::<F>(&node, 500);
    assert!(node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).is_none());
}
in_both_families!(who_begins_anew_proves_itself_anew);

/// A newcomer in a flood proves itself where it is, and stays.
fn a_newcomer_proves_itself_in_a_full_table<F: Net>() {
    let node = sized::<F>(22);
    flood::<F>(&node, 100);
    let seen = node.connect::<F>(client::<F>());
    assert_eq!(F::maps(&node.world).flows.len(), 22);
    flood::<F>(&node, 100);
    let back = node.xdp(&tcp(remote::<F>(), seen, ACK)).view();
    assert_eq!(back.dst, client::<F>());
}
in_both_families!(a_newcomer_proves_itself_in_a_full_table);

/// All have proved themselves: there is nobody to push out.
fn among_the_established_there_is_no_room_for_newcomers<F: Net>() {
    let node = sized::<F>(4);
    node.connect::<F>(client::<F>());
    node.connect::<F>(nth::<F>(0));
    let before = node.halves::<F>();
    let syn = tcp(nth::<F>(1), frontend::<F>(), SYN);
    for refused in 1..4 {
        assert_eq!(node.xdp(&syn).action, Action::Drop, "and is sent again");
        assert_eq!(node.world.count_of(Reason::TableFull), refused);
        assert_eq!(node.world.stats.borrow()[&11].table_full, refused);
    }
    assert_eq!(node.halves::<F>(), before);
    // One of them ends, and there is room.
    node.xdp(&tcp(client::<F>(), frontend::<F>(), RST)).view();
    node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view();
    assert_eq!(node.xdp(&syn).action, Action::Send(INSIDE));
}
in_both_families!(among_the_established_there_is_no_room_for_newcomers);

/// A half whose partner was lost, and others have its place: it is served from what there is, its
/// state kept up to date, and gets its partner back when there is room.
fn a_half_without_room_for_its_partner_lives_on<F: Net>() {
    let node = sized::<F>(4);
    let seen = node.connect::<F>(client::<F>());
    node.lose::<F>(IPPROTO_TCP, remote::<F>(), seen);
    let other = node.connect::<F>(nth::<F>(0));
    let extra = key::<F>(IPPROTO_TCP, nth::<F>(9), frontend::<F>());
    let (_, half) = node.half::<F>(IPPROTO_TCP, nth::<F>(0), frontend::<F>()).expect("alive");
    F::maps(&node.world).flows.put(&extra, &half);

    let full = || node.world.count_of(Reason::TableFull);
    for packet in 0..3 {
        node.world.wait(2 * nodeport_common::core::flow::INTERVAL);
        let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
        assert_eq!(out.src, seen, "{packet}");
        assert_eq!(full(), 0, "not told with each packet");
        let (_, half) = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).expect("alive");
        // Or its clean-up takes it for one that went away.
        assert_eq!(half.last_seen, node.world.now.get());
        assert_eq!(half.packets, 3 + packet);
    }
    node.xdp(&tcp(client::<F>(), frontend::<F>(), FIN | ACK)).view();
    let (_, half) = node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).expect("alive");
    assert_eq!(half.state, FlowState::ClientClosed as u8);
    assert_eq!(full(), 1, "told with each change");
    assert_eq!(node.world.stats.borrow()[&11].table_full, 1);

    assert!(F::maps(&node.world).flows.remove(&extra));
    node.xdp(&tcp(client::<F>(), frontend::<F>(), FIN | ACK)).view();
    let (proved, half) = node.half::<F>(IPPROTO_TCP, remote::<F>(), seen).expect("there is room");
    assert_eq!((proved, half.state), (true, FlowState::ClientClosed as u8));
    assert_eq!(node.xdp(&tcp(remote::<F>(), other, ACK)).view().dst, nth::<F>(0));
}
in_both_families!(a_half_without_room_for_its_partner_lives_on);

fn the_established_change_their_state_in_a_full_table<F: Net>() {
    let node = sized::<F>(2);
    let seen = node.connect::<F>(client::<F>());
    node.xdp(&tcp(client::<F>(), frontend::<F>(), FIN | ACK)).view();
    node.xdp(&tcp(remote::<F>(), seen, FIN | ACK)).view();
    for (_, _, half) in node.halves::<F>() {
        assert_eq!(half.state, FlowState::Closed as u8);
    }
    assert_eq!(node.world.count_of(Reason::TableFull), 0);
}
in_both_families!(the_established_change_their_state_in_a_full_table);

fn without_any_room_nothing_is_opened<F: Net>() {
    let node = sized::<F>(0);
    for packet in [tcp(client::<F>(), frontend::<F>(), SYN), udp(client::<F>(), frontend::<F>())] {
        assert_eq!(node.xdp(&packet).action, Action::Drop);
    }
    assert_eq!(node.world.count_of(Reason::TableFull), 2);
    assert_eq!(node.world.stats.borrow()[&11].table_full, 2);
    assert_eq!(node.world.stats.borrow()[&11].opened, 0);
}
in_both_families!(without_any_room_nothing_is_opened);

/// One half has proved itself, the other not, as when a program was interrupted.
fn halves_that_were_parted_meet_again<F: Net>() {
    for forward_first in [true, false] {
        let node = Node::new();
        let seen = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
        let forward = key::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>());
        let reply = key::<F>(IPPROTO_UDP, remote::<F>(), seen);
        let first = if forward_first { forward } else { reply };
        let flows = &F::maps(&node.world).flows;
        assert!(flows.change(&first, |half| set_state(half, FlowState::Established)));
        node.xdp(&udp(client::<F>(), frontend::<F>())).view();
        assert!(has_proved(&flows.get(&first).expect("alive")), "never a newcomer again");
        node.xdp(&udp(remote::<F>(), seen)).view();
        assert_eq!(node.halves::<F>().len(), 2, "{:?}", node.halves::<F>());
        for (proved, _, half) in node.halves::<F>() {
            assert_eq!((proved, half.state), (true, FlowState::Established as u8));
        }
    }
}
in_both_families!(halves_that_were_parted_meet_again);

/// Two CPUs with the first packets of one flow: the one that comes too late leaves nothing.
fn who_loses_a_race_leaves_nothing<F: Net>() {
    let node = Node::new();
    let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    F::maps(&node.world).flows.lose_race(&forward);
    let packet = tcp(client::<F>(), frontend::<F>(), SYN);
    assert_eq!(node.xdp(&packet).action, Action::Drop, "and is sent again");
    assert_eq!(node.world.count_of(Reason::Raced), 1);
    assert!(node.halves::<F>().is_empty());
    assert_eq!(node.xdp(&packet).action, Action::Send(INSIDE));
}
in_both_families!(who_loses_a_race_leaves_nothing);

/// Reads of a half by a packet that is not routine: the straight line's, once more behind the full
/// parser, and the one that counts.
const READS: u32 = 3;

/// Two CPUs: one has a RST of the old connection in hand, the other begins a new connection on the
/// same ports. What the first one writes must not bring the old flow back.
fn a_flow_that_was_ended_meanwhile_stays_ended<F: Net>() {
    let node = Node::new();
    node.connect::<F>(client::<F>());
    let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    F::maps(&node.world).flows.meanwhile(&forward, READS, |_| None);
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), RST));
    assert_eq!(out.action, Action::Send(INSIDE), "the packet itself goes its way");
    assert!(node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).is_none());

    // With another next hop the whole half is written.
    let node = Node::new();
    node.connect::<F>(client::<F>());
    node.world.change_control(|control| control.epoch += 1);
    F::maps(&node.world).flows.meanwhile(&forward, READS, |_| None);
    assert_eq!(node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).action, Action::Send(INSIDE));
    assert!(node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).is_none());
}
in_both_families!(a_flow_that_was_ended_meanwhile_stays_ended);

/// Both ends close in the same instant, on two CPUs: neither end may be lost, or the flow counts
/// as half open for hours.
fn ends_at_the_same_time_are_both_seen<F: Net>() {
    // The other CPU has written one half by now, or both.
    for (own, others) in [(false, true), (true, true), (true, false)] {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
        let reply = key::<F>(IPPROTO_TCP, remote::<F>(), seen);
        let flows = &F::maps(&node.world).flows;
        let closes = |mut flow: Flow<F::Addr>| {
            set_state(&mut flow, FlowState::BackendClosed);
            Some(flow)
        };
        if own {
            flows.meanwhile(&forward, READS, closes);
        }
        if others {
            flows.meanwhile(&reply, 1, closes);
        }
        node.xdp(&tcp(client::<F>(), frontend::<F>(), FIN | ACK)).view();
        for (_, _, half) in node.halves::<F>() {
            assert_eq!(half.state, FlowState::Closed as u8, "{own} {others}");
            assert_ne!(half.flags & FLOW_SETTLED, 0);
        }
    }
}
in_both_families!(ends_at_the_same_time_are_both_seen);

/// The same for one that has not proved itself yet.
fn a_newcomer_that_was_ended_meanwhile_stays_ended<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
    let reply = key::<F>(IPPROTO_UDP, remote::<F>(), seen);
    F::maps(&node.world).flows.meanwhile(&reply, READS, |_| None);
    node.xdp(&udp(remote::<F>(), seen)).view();
    assert!(node.half::<F>(IPPROTO_UDP, remote::<F>(), seen).is_none());
    let (proved, _) = node.half::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>()).expect("alive");
    assert!(!proved, "what is gone proves nothing");
}
in_both_families!(a_newcomer_that_was_ended_meanwhile_stays_ended);

/// The place of a lost half is free no more when it is to be filled: it belongs to who took it.
fn a_lost_halfs_place_is_not_taken_by_force<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    F::maps(&node.world).flows.lose_race(&forward);
    node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
    assert!(node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).is_none());
}
in_both_families!(a_lost_halfs_place_is_not_taken_by_force);
