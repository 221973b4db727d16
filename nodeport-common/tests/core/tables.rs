//! Tables that are full: who suffers is the newcomer.

use std::net::SocketAddr;

use nodeport_common::abi::{FLOW_SETTLED, Flow, FlowState, IPPROTO_TCP, IPPROTO_UDP, Reason};
use nodeport_common::core::env::{Insert, Table};
use nodeport_common::core::flow::set_state;
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{tcp, udp};

use crate::support::*;

fn sized<F: Net>(flows: usize, nursery: usize) -> Node {
    let mut node = Node::new();
    F::maps_mut(&mut node.world).flows.set_capacity(flows);
    F::maps_mut(&mut node.world).nursery.set_capacity(nursery);
    node
}

fn nth<F: Net>(number: u16) -> SocketAddr {
    SocketAddr::new(client_ip::<F>(), 1024 + number)
}

fn a_flood_pushes_out_newcomers_only<F: Net>() {
    let node = sized::<F>(100, 20);
    let seen = node.connect::<F>(client::<F>());
    for number in 0..500 {
        let out = node.xdp(&tcp(nth::<F>(number), frontend::<F>(), SYN));
        assert_eq!(out.action, Action::Send(INSIDE), "and is served itself");
    }
    assert_eq!(F::maps(&node.world).nursery.len(), 20);
    let out = node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
    assert_eq!(out.src, seen);
    let back = node.xdp(&tcp(remote::<F>(), seen, ACK)).view();
    assert_eq!(back.dst, client::<F>());
}
in_both_families!(a_flood_pushes_out_newcomers_only);

/// The established have no room: the newcomer is served from where it is, its state kept up to
/// date, and moves on when there is room.
fn a_connection_lives_on_among_newcomers<F: Net>() {
    let node = sized::<F>(2, 100);
    node.connect::<F>(client::<F>());
    let second = nth::<F>(1);
    let seen = node.connect::<F>(second);
    let full = node.world.count_of(Reason::TableFull);
    assert!(full > 0);
    assert_eq!(node.world.stats.borrow()[&11].table_full, full);
    node.world.wait(100 * HZ);
    let out = node.xdp(&tcp(second, frontend::<F>(), ACK)).view();
    assert_eq!(out.src, seen);
    let back = node.xdp(&tcp(remote::<F>(), seen, ACK)).view();
    assert_eq!(back.dst, second);
    for (src, dst) in [(second, frontend::<F>()), (remote::<F>(), seen)] {
        let (table, half) = node.half::<F>(IPPROTO_TCP, src, dst).expect("alive");
        assert_eq!(table, Table::Nursery);
        // Or its clean-up takes it for one that went away.
        assert_eq!(half.last_seen, node.world.now.get(), "{src}");
        assert!(half.packets >= 2, "{src}: {}", half.packets);
    }
    assert_eq!(F::maps(&node.world).flows.len(), 2, "no half went alone");

    F::maps(&node.world).flows.all().iter().for_each(|(key, _)| {
        F::maps(&node.world).flows.remove(key);
    });
    node.xdp(&tcp(second, frontend::<F>(), ACK)).view();
    assert!(node.halves::<F>().iter().all(|(table, ..)| *table == Table::Flows));
    assert_eq!(node.halves::<F>().len(), 2);
}
in_both_families!(a_connection_lives_on_among_newcomers);

/// Room for one half only.
fn no_half_moves_on_alone<F: Net>() {
    let node = sized::<F>(1, 100);
    let seen = node.connect::<F>(client::<F>());
    assert!(F::maps(&node.world).flows.is_empty());
    let states: Vec<u8> = node.halves::<F>().iter().map(|(_, _, half)| half.state).collect();
    assert_eq!(states, [FlowState::Established as u8; 2]);
    assert_eq!(node.xdp(&tcp(client::<F>(), frontend::<F>(), ACK)).view().src, seen);
}
in_both_families!(no_half_moves_on_alone);

fn the_established_change_their_state_in_a_full_table<F: Net>() {
    let node = sized::<F>(2, 100);
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
    let node = sized::<F>(0, 0);
    for packet in [tcp(client::<F>(), frontend::<F>(), SYN), udp(client::<F>(), frontend::<F>())] {
        assert_eq!(node.xdp(&packet).action, Action::Drop);
    }
    assert_eq!(node.world.count_of(Reason::TableFull), 2);
    assert_eq!(node.world.stats.borrow()[&11].table_full, 2);
    assert_eq!(node.world.stats.borrow()[&11].opened, 0);
}
in_both_families!(without_any_room_nothing_is_opened);

/// Between the tables: one half has moved on, the other not, as when a program was interrupted.
fn halves_that_were_parted_meet_again<F: Net>() {
    for forward_first in [true, false] {
        let node = Node::new();
        let seen = node.xdp(&udp(client::<F>(), frontend::<F>())).view().src;
        let forward = key::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>());
        let reply = key::<F>(IPPROTO_UDP, remote::<F>(), seen);
        let moved = if forward_first { forward } else { reply };
        let maps = F::maps(&node.world);
        let half = maps.nursery.get(&moved).expect("a newcomer");
        maps.nursery.remove(&moved);
        maps.flows.insert(&moved, &half, Insert::Claim);
        node.xdp(&udp(client::<F>(), frontend::<F>())).view();
        node.xdp(&udp(remote::<F>(), seen)).view();
        assert_eq!(node.halves::<F>().len(), 2, "{:?}", node.halves::<F>());
        assert!(node.halves::<F>().iter().all(|(table, ..)| *table == Table::Flows));
    }
}
in_both_families!(halves_that_were_parted_meet_again);

/// Two CPUs with the first packets of one flow: the one that comes too late leaves nothing.
fn who_loses_a_race_leaves_nothing<F: Net>() {
    let node = Node::new();
    let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    F::maps(&node.world).nursery.lose_race(&forward);
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

/// The half that another CPU has ended is one whose partner was still to follow it.
fn a_flow_that_was_ended_between_the_tables_stays_ended<F: Net>() {
    let node = Node::new();
    node.xdp(&udp(client::<F>(), frontend::<F>())).view();
    let forward = key::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>());
    let maps = F::maps(&node.world);
    let half = maps.nursery.get(&forward).expect("a newcomer");
    maps.nursery.remove(&forward);
    maps.flows.insert(&forward, &half, Insert::Claim);
    maps.flows.meanwhile(&forward, READS, |_| None);
    node.xdp(&udp(client::<F>(), frontend::<F>())).view();
    assert!(node.half::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>()).is_none());
}
in_both_families!(a_flow_that_was_ended_between_the_tables_stays_ended);

/// The place of a lost half is free no more when it is to be filled: it belongs to who took it.
fn a_lost_halfs_place_is_not_taken_by_force<F: Net>() {
    let node = Node::new();
    let seen = node.xdp(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
    node.lose::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    let forward = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>());
    F::maps(&node.world).nursery.lose_race(&forward);
    node.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
    assert!(node.half::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>()).is_none());
}
in_both_families!(a_lost_halfs_place_is_not_taken_by_force);
