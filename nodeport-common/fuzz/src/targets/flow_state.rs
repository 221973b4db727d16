//! Sequences of packets, losses and changes.

use std::net::SocketAddr;

use nodeport_common::abi::{FLOW_REPLY, FLOW_SETTLED, FlowState};
use nodeport_common::core::expiry::{self, Limits};
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::flow::partner_key;
use nodeport_common::core::host::{At, XDP};
use nodeport_common::core::state::{ACK, FIN, RST, SYN, is_settled};
use nodeport_common::core::verdict::Action;
use nodeport_common::core::work::Work;
use nodeport_common::frames::{Draft, tcp, udp};

use super::Input;
use crate::support::*;

/// After every step the tables are as they must be.
pub(crate) fn flow_state(data: &[u8]) {
    let mut input = Input::new(data);
    let v4 = input.byte() & 1 == 0;
    // A long history says no more than a short one, and takes long.
    let mut input = Input::new(&input.rest()[..data.len().saturating_sub(1).min(600)]);
    if v4 { history::<V4>(&mut input) } else { history::<V6>(&mut input) }
}

/// Halves that a small table has room for.
const SMALL: usize = 6;

fn history<F: Net>(input: &mut Input<'_>) {
    let small = input.byte().is_multiple_of(2);
    let mut node = Node::new();
    node.world.change_control(|control| control.snat_count = 3);
    if small {
        F::maps_mut(&mut node.world).flows.set_capacity(SMALL);
    }
    let mut lost = 0;
    while !input.is_empty() {
        let before = node.halves::<F>();
        let by_force = step::<F>(&node, input);
        lost += usize::from(by_force);
        let lonely = check::<F>(&node);
        if small {
            assert!(F::maps(&node.world).flows.len() <= SMALL);
        } else {
            assert!(lonely <= lost, "{lost} lost, but {lonely} without partner");
        }
        if !by_force {
            check_what_went::<F>(&node, &before);
        }
    }
}

/// What had proved itself was not pushed out. One flow at most was ended.
fn check_what_went<F: Net>(node: &Node, before: &[Half<F::Addr>]) {
    let flows = &F::maps(&node.world).flows;
    let has_gone = |(proved, key, old): &&Half<F::Addr>| {
        // Who begins anew on the same ports is a newcomer.
        *proved && flows.get(key).is_none_or(|new| !has_proved(&new) || new.created != old.created)
    };
    let gone: Vec<_> = before.iter().filter(has_gone).collect();
    if let [(_, key, flow), others @ ..] = &gone[..] {
        let partner = partner_key(key, flow);
        assert!(others.iter().all(|(_, key, _)| *key == partner), "{gone:?}");
    }
}

/// Takes one step; true if a half was taken away by force.
fn step<F: Net>(node: &Node, input: &mut Input<'_>) -> bool {
    let who = SocketAddr::new(client_ip::<F>(), 40_000 + u16::from(input.byte() % 4));
    match input.byte() % 16 {
        0..8 => walk::<F>(node, from_client::<F>(who, input)),
        8..12 => {
            if let Some(packet) = from_backend::<F>(node, input) {
                walk::<F>(node, packet);
            }
        }
        12 => node.world.wait(u32::from(input.byte()) * 16),
        13 => agent::<F>(node, input),
        14 => expire::<F>(node, input),
        _ => return lose::<F>(node, input),
    }
    false
}

fn from_client<F: Net>(who: SocketAddr, input: &mut Input<'_>) -> (Draft, bool) {
    let to = input.of(&[frontend::<F>(), frontend::<F>(), local_frontend::<F>()]);
    (packet(who, to, input), false)
}

/// A packet in the direction of a reply half that is there.
fn from_backend<F: Net>(node: &Node, input: &mut Input<'_>) -> Option<(Draft, bool)> {
    let replies: Vec<_> = node
        .halves::<F>()
        .into_iter()
        .filter(|(_, _, flow)| flow.flags & FLOW_REPLY != 0)
        .collect();
    let count = replies.len().max(1);
    let (_, key, _) = replies.get(usize::from(input.byte()) % count)?;
    let address = |bytes: F::Addr, port: [u8; 2]| {
        let ip = [
            remote_ip::<F>(),
            local_ip::<F>(),
            F::party(8, 21),
            inside_ip::<F>(),
            client_ip::<F>(),
        ]
        .into_iter()
        .find(|ip| F::bytes(*ip) == bytes)?;
        Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
    };
    let src = address(key.src, key.ports.src)?;
    let dst = address(key.dst, key.ports.dst)?;
    let leaves = dst.ip() == client_ip::<F>();
    Some((packet(src, dst, input), leaves))
}

fn packet(src: SocketAddr, dst: SocketAddr, input: &mut Input<'_>) -> Draft {
    let flags = input.of(&[SYN, ACK, SYN | ACK, FIN | ACK, RST, FIN, SYN | FIN, 0]);
    if input.byte().is_multiple_of(4) { udp(src, dst) } else { tcp(src, dst, flags) }
}

/// Walks the packet where it is met; what leaves is whole.
fn walk<F: Net>(node: &Node, (packet, leaves): (Draft, bool)) {
    let out = if leaves { node.egress(&packet) } else { node.xdp(&packet) };
    match out.action {
        Action::Pass => assert_eq!(out.bytes, packet.build()),
        Action::Drop => {}
        _ => {
            let view = out.view();
            let known = [client_ip::<F>(), remote_ip::<F>(), local_ip::<F>(), F::party(8, 21)];
            assert!(known.contains(&view.dst.ip()), "{view:?}");
        }
    }
}

/// What the agent writes.
fn agent<F: Net>(node: &Node, input: &mut Input<'_>) {
    let index = usize::from(input.byte() % 3) + 1;
    match input.byte() % 4 {
        0 => node.end_backend::<F>(index as u32),
        1 => {
            let mut backends = F::maps(&node.world).backends.borrow_mut();
            backends[index].state = nodeport_common::abi::BACKEND_USABLE;
        }
        2 => node.set_slot(0, input.of(&[REMOTE_BACKEND, OTHER_BACKEND])),
        _ => node.world.change_control(|control| control.epoch += 1),
    }
}

/// The agent asks for the end of a flow, by one of its halves.
fn expire<F: Net>(node: &Node, input: &mut Input<'_>) {
    let halves = node.halves::<F>();
    let Some((_, key, _)) = halves.get(usize::from(input.byte()) % halves.len().max(1)) else {
        return;
    };
    let limit = u32::from(input.byte()) * 16;
    let limits = Limits {
        tcp: limit,
        tcp_answered: limit,
        tcp_opening: limit,
        tcp_closed: limit,
        tcp_doubted: limit,
        udp: limit,
        udp_opening: limit,
    };
    let mut work = Work { key: *key, ..Work::default() };
    expiry::end::<F, _>(&At::<XDP> { world: &node.world, ifindex: 0 }, &mut work, &limits);
}

fn lose<F: Net>(node: &Node, input: &mut Input<'_>) -> bool {
    let halves = node.halves::<F>();
    match halves.get(usize::from(input.byte()) % halves.len().max(1)) {
        Some((_, key, _)) => F::maps(&node.world).flows.remove(key),
        None => false,
    }
}

/// Every half is in a state that goes with its flags, and two halves that name each other agree.
/// Returns how many have no partner.
fn check<F: Net>(node: &Node) -> usize {
    let mut lonely = 0;
    let halves = node.halves::<F>();
    for (proved, key, flow) in &halves {
        let state = FlowState::from_u8(flow.state);
        assert_eq!(flow.flags & FLOW_SETTLED != 0, is_settled(state), "{flow:?}");
        assert!(*proved || !is_settled(state), "{state:?}, but a newcomer");
        let other = partner_key(key, flow);
        match halves.iter().find(|(_, k, _)| *k == other) {
            Some((other_proved, k, partner)) if partner_key(k, partner) == *key => {
                assert_eq!(partner.state, flow.state, "{flow:?} and {partner:?}");
                assert_eq!((partner.backend, partner.generation), (flow.backend, flow.generation));
                assert_ne!(partner.flags & FLOW_REPLY, flow.flags & FLOW_REPLY);
                assert_eq!(other_proved, proved, "{flow:?} and {partner:?}");
            }
            _ => lonely += 1,
        }
    }
    lonely
}
