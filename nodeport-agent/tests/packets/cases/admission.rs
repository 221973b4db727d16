//! Who may open a flow, and what is none of our business.

use std::net::SocketAddr;

use nodeport_common::abi::{
    ADDRESS_NAMED, ADDRESS_OWN, BACKEND_DRAINING, BACKEND_GONE, FRONTEND_DROPS, FRONTEND_GUARDED,
    FRONTEND_YIELDS, NO_BACKEND_DROPS, NO_BACKEND_RESETS, SourceRange,
};
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, NODE_MAC, Net, PEER_MAC, reset, tcp, udp};

use super::CaseTable;
use super::flows::{back, there};
use super::ways::error_to_client;
use crate::network::{IN, OUT, mac, own_mac};
use crate::state::*;
use crate::step::{Event, Step};

fn passed(hook: Hook, frame: &Draft) -> Event {
    Step::passed(hook, frame.build()).into()
}

pub(super) fn add<F: Net>(table: &mut CaseTable) {
    strangers::<F>(table);
    refusals::<F>(table);
    ends::<F>(table);
}

fn strangers<F: Net>(table: &mut CaseTable) {
    for (name, hook) in [("xdp", Hook::Xdp), ("tc", Hook::Ingress), ("egress", Hook::Egress)] {
        let to = |ip, port| SocketAddr::new(ip, port);
        let others = [
            to(node::<F>(), 22),
            to(F::party(1, 77), port(REMOTE)),
            to(node::<F>(), SNAT),
            to(F::party(200, 1), 53),
        ];
        let frames = others.iter().flat_map(|dst| {
            [tcp(client::<F>(), *dst, SYN), tcp(client::<F>(), *dst, ACK), udp(client::<F>(), *dst)]
        });
        table.add(&format!("not_ours::{name}"), frames.map(|frame| passed(hook, &frame)));
        let frame = tcp(backend::<F>(LOCAL), client::<F>(), ACK);
        table.add(&format!("own_port_of_nobody::{name}"), [passed(hook, &frame)]);
    }
    not_selected::<F>(table);
}

/// NodePorts are served on some of the node's addresses, and left to its stack on the others. A frontend
/// that names an address opens flows at its own port alone.
fn not_selected<F: Net>(table: &mut CaseTable) {
    table.add_arriving("not_selected", |hook| {
        let to = |address: u8, index| SocketAddr::new(F::party(1, address), port(index));
        let others = [to(77, REMOTE), to(77, LOCAL), to(78, REMOTE), to(78, EMPTY)];
        let frames = others.into_iter().flat_map(|dst| {
            [tcp(client::<F>(), dst, SYN), tcp(client::<F>(), dst, ACK), udp(client::<F>(), dst)]
        });
        let known = Event::Write(|state| {
            know_others::<V4>(&mut state.v4);
            know_others::<V6>(&mut state.v6);
        });
        let own = SocketAddr::new(F::party(1, 77), 40_000);
        let from_own = passed(hook, &udp(own, frontend::<F>(REMOTE)));
        let passed = frames.map(|frame| passed(hook, &frame));
        [known].into_iter().chain(passed).chain([from_own, there::<F>(hook, SYN)]).collect()
    });
}

/// Another address of the node, and one that some frontend names.
fn know_others<F: Net>(side: &mut Side<F::Addr>) {
    side.addresses.push((F::bytes(F::party(1, 77)), ADDRESS_OWN));
    side.addresses.push((F::bytes(F::party(1, 78)), ADDRESS_NAMED));
}

/// The packet for that frontend is answered with Port Unreachable, which quotes so much of what is
/// behind its IP header.
fn refused<F: Net>(hook: Hook, frame: &Draft, index: u32, transport: usize) -> Event {
    let (kind, code) = if F::VERSION == 4 { (3, 3) } else { (1, 4) };
    let message = Icmp { kind, code, word: [0; 4] };
    let told = error_to_client::<F>(frame, index, message, F::HEADER + transport);
    Step::becomes(hook, frame, Action::Back(OUT), &told).into()
}

/// The segment for that frontend is answered with a reset of these flags and numbers.
fn is_reset<F: Net>(
    hook: Hook,
    frame: &Draft,
    index: u32,
    (flags, sequence, acknowledges): (u8, u32, u32),
) -> Event {
    let told = reset(frontend::<F>(index), client::<F>(), flags)
        .numbers(sequence, acknowledges)
        .macs(PEER_MAC, NODE_MAC);
    Step::becomes(hook, frame, Action::Back(OUT), &told).into()
}

fn no_backend<F: Net>(table: &mut CaseTable) {
    let syn = |index| tcp(client::<F>(), frontend::<F>(index), SYN).payload(&[3; 30]);
    table.add_arriving("no_backend::refused", |hook| {
        let datagram = udp(client::<F>(), frontend::<F>(EMPTY));
        vec![
            refused::<F>(hook, &syn(EMPTY), EMPTY, 20),
            refused::<F>(hook, &syn(GONE), GONE, 20),
            refused::<F>(hook, &datagram, EMPTY, 8),
        ]
    });
    table.add_arriving("no_backend::reset", |hook| {
        vec![
            Event::Write(|state| state.control.no_backend = NO_BACKEND_RESETS),
            is_reset::<F>(hook, &syn(EMPTY).numbers(u32::MAX, 0), EMPTY, (ACK, 0, 30)),
            is_reset::<F>(hook, &syn(GONE).numbers(7, 0), GONE, (ACK, 0, 38)),
            refused::<F>(hook, &udp(client::<F>(), frontend::<F>(EMPTY)), EMPTY, 8),
        ]
    });
    table.add_arriving("no_backend::dropped", |hook| {
        vec![
            Event::Write(|state| state.control.no_backend = NO_BACKEND_DROPS),
            Step::dropped(hook, &syn(EMPTY)).into(),
            Step::dropped(hook, &syn(GONE)).into(),
        ]
    });
    table.add_arriving("no_backend::here_but_elsewhere", |hook| {
        vec![Event::Write(drop_without_backend), Step::dropped(hook, &syn(EMPTY)).into()]
    });
}

/// A client in one of the service's networks gets as far as there are backends; others are dropped.
fn guarded<F: Net>(table: &mut CaseTable) {
    table.add_arriving("guarded", |hook| {
        let other = SocketAddr::new(F::party(9, 8), 40_000);
        let datagram = |from| udp(from, frontend::<F>(EMPTY));
        vec![
            Event::Write(guard),
            refused::<F>(hook, &tcp(client::<F>(), frontend::<F>(EMPTY), SYN), EMPTY, 20),
            refused::<F>(hook, &datagram(client::<F>()), EMPTY, 8),
            Step::dropped(hook, &tcp(other, frontend::<F>(EMPTY), SYN)).into(),
            Step::dropped(hook, &datagram(other)).into(),
        ]
    });
}

/// A client stays with its backend though its slot is another's by now, whom another client gets.
fn affinity<F: Net>(table: &mut CaseTable) {
    table.add_arriving("affinity", |hook| {
        let stays = |from| {
            let out = tcp(from, backend::<F>(LOCAL), SYN);
            Step::becomes(hook, &tcp(from, frontend::<F>(LOCAL), SYN), Action::Stack, &out).into()
        };
        let again = SocketAddr::new(client::<F>().ip(), 40_001);
        let other = SocketAddr::new(F::party(9, 8), 40_000);
        vec![
            Event::Write(|state| know_clients(state, LOCAL)),
            stays(client::<F>()),
            Event::Write(|state| know_clients(state, REMOTE)),
            stays(again),
            Event::Write(|state| state.control.no_backend = NO_BACKEND_DROPS),
            Event::Write(|state| know_clients(state, GONE)),
            stays(SocketAddr::new(client::<F>().ip(), 40_002)),
            Step::dropped(hook, &tcp(other, frontend::<F>(LOCAL), SYN)).into(),
        ]
    });
}

/// All services know their clients again, and have that backend alone.
fn know_clients(state: &mut State, backend: u32) {
    for frontend in state.v4.frontends.values_mut().chain(state.v6.frontends.values_mut()) {
        (frontend.affinity, frontend.slots_offset, frontend.slots_len) = (1_000, backend, 1);
    }
}

fn guard(state: &mut State) {
    guard_side::<V4>(&mut state.v4);
    guard_side::<V6>(&mut state.v6);
}

/// Lets two addresses in, and everybody to another service.
fn guard_side<F: Net>(side: &mut Side<F::Addr>) {
    for frontend in side.frontends.values_mut() {
        frontend.flags = FRONTEND_GUARDED;
    }
    let bits = u8::BITS * size_of::<F::Addr>() as u32;
    let near = SourceRange { service: EMPTY, address: F::bytes(F::party(9, 6)) };
    let others = SourceRange { service: LOCAL, address: F::Addr::default() };
    side.ranges = vec![(near, bits - 1), (others, 0)];
}

/// As the agent writes it where the policy is Local and endpoints are on other nodes only.
fn drop_without_backend(state: &mut State) {
    for frontend in state.v4.frontends.values_mut().chain(state.v6.frontends.values_mut()) {
        frontend.flags = FRONTEND_DROPS;
    }
}

/// As the agent writes it while a process of the node listens on the port.
fn leave_to_listeners(state: &mut State) {
    for frontend in state.v4.frontends.values_mut().chain(state.v6.frontends.values_mut()) {
        frontend.flags = FRONTEND_YIELDS;
    }
}

fn refusals<F: Net>(table: &mut CaseTable) {
    table.add_arriving("left_to_a_listener", |hook| {
        vec![
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            Event::Write(leave_to_listeners),
            passed(hook, &tcp(client::<F>(), frontend::<F>(OTHER), SYN)),
            passed(hook, &tcp(client::<F>(), frontend::<F>(OTHER), ACK)),
            passed(hook, &udp(client::<F>(), frontend::<F>(OTHER))),
            there::<F>(hook, ACK),
        ]
    });
    table.add_arriving("tcp_without_syn", |hook| {
        [0, ACK, FIN, RST, SYN | ACK, SYN | FIN, SYN | RST]
            .map(|flags| passed(hook, &tcp(client::<F>(), frontend::<F>(REMOTE), flags)))
            .into()
    });
    no_backend::<F>(table);
    guarded::<F>(table);
    affinity::<F>(table);
    table.add_arriving("martians", |hook| {
        let sources: &[&str] = if F::VERSION == 4 {
            &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.1.1.1"]
        } else {
            &["::", "::1", "ff02::1", "fd00:107:abcd:102:304:506:708:901"]
        };
        let source = |text: &&str| SocketAddr::new(text.parse().expect("an address"), 999);
        let frame = |src| passed(hook, &udp(src, frontend::<F>(REMOTE)));
        sources.iter().map(source).map(frame).collect()
    });
    table.add_arriving("draining_node", |hook| {
        vec![
            there::<F>(hook, SYN),
            Event::Write(|state| state.control.draining = 1),
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
            passed(hook, &tcp(client::<F>(), frontend::<F>(OTHER), SYN)),
        ]
    });
    table.add_arriving("no_settings", |hook| {
        vec![
            Event::Write(|state| state.control.epoch = 0),
            passed(hook, &tcp(client::<F>(), frontend::<F>(REMOTE), SYN)),
        ]
    });
    table.add_arriving("no_port", |hook| {
        let second = SocketAddr::new(client::<F>().ip(), 40_001);
        vec![
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
            // From now on the port is not taken from it: it has proved itself.
            Step::dropped(hook, &tcp(second, frontend::<F>(REMOTE), SYN)).into(),
        ]
    });
    table.add_arriving("port_of_a_newcomer", |hook| {
        let second = SocketAddr::new(client::<F>().ip(), 40_001);
        let taken =
            tcp(snat::<F>(8), backend::<F>(REMOTE), SYN).ttl(63).macs(mac(8, 20), own_mac(8));
        let blind = tcp(client::<F>(), frontend::<F>(REMOTE), ACK).numbers(7, 0x8000_0000);
        let onward = tcp(snat::<F>(8), backend::<F>(REMOTE), ACK)
            .numbers(7, 0x8000_0000)
            .ttl(63)
            .macs(mac(8, 20), own_mac(8));
        vec![
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            // Neither an answer nor a segment that does not acknowledge it proves anything.
            Step::becomes(hook, &blind, Action::Send(IN), &onward).into(),
            // A handshake under way keeps its port.
            Step::dropped(hook, &tcp(second, frontend::<F>(REMOTE), SYN)).into(),
            // As if its time were over: an eighth of a second is no jiffy now.
            Event::Write(|state| state.control.hz = 4),
            Step::becomes(hook, &tcp(second, frontend::<F>(REMOTE), SYN), Action::Send(IN), &taken)
                .into(),
            passed(hook, &tcp(client::<F>(), frontend::<F>(REMOTE), ACK)),
        ]
    });
}

fn ends<F: Net>(table: &mut CaseTable) {
    let segment = |flags| tcp(client::<F>(), frontend::<F>(REMOTE), flags);
    table.add_arriving("draining_backend", |hook| {
        vec![
            there::<F>(hook, SYN),
            Event::Write(|state| set_backends(state, BACKEND_DRAINING, 0)),
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
        ]
    });
    table.add_arriving("backend_gone_tcp", |hook| {
        vec![
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
            Event::Write(|state| set_backends(state, BACKEND_GONE, 1)),
            is_reset::<F>(hook, &segment(ACK).numbers(5, 6), REMOTE, (0, 6, 0)),
            is_reset::<F>(hook, &segment(ACK).numbers(7, 8).payload(&[9; 900]), REMOTE, (0, 8, 0)),
            is_reset::<F>(hook, &segment(FIN).numbers(7, 8).payload(&[9; 9]), REMOTE, (ACK, 0, 17)),
            Step::dropped(hook, &segment(RST)).into(),
            passed(hook, &tcp(backend::<F>(REMOTE), snat::<F>(8), ACK)),
            refused::<F>(hook, &segment(SYN), REMOTE, 20),
        ]
    });
    table.add_arriving("backend_gone_tcp_with_options", |hook| {
        let frame = segment(ACK).numbers(5, 6).payload(b"some");
        let long = match F::VERSION {
            4 => frame.options(&[1; 40]),
            _ => frame.extension(60, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        };
        vec![
            there::<F>(hook, SYN),
            Event::Write(|state| set_backends(state, BACKEND_GONE, 1)),
            is_reset::<F>(hook, &long, REMOTE, (0, 6, 0)),
        ]
    });
    table.add_arriving("backend_gone_here", |hook| {
        let frame = tcp(client::<F>(), frontend::<F>(LOCAL), SYN);
        let out = tcp(client::<F>(), backend::<F>(LOCAL), SYN);
        let later = tcp(client::<F>(), frontend::<F>(LOCAL), ACK).numbers(5, 6);
        vec![
            Step::becomes(hook, &frame, Action::Stack, &out).into(),
            Event::Write(|state| {
                state.v4.backends[LOCAL as usize].generation += 1;
                state.v6.backends[LOCAL as usize].generation += 1;
            }),
            Step::dropped(Hook::Egress, &tcp(backend::<F>(LOCAL), client::<F>(), ACK)).into(),
            is_reset::<F>(hook, &later, LOCAL, (0, 6, 0)),
        ]
    });
    table.add_arriving("backend_gone_udp", |hook| {
        let sent = udp(client::<F>(), frontend::<F>(REMOTE));
        let to = |index, number| {
            let out =
                udp(snat::<F>(8), backend::<F>(index)).ttl(63).macs(mac(8, number), own_mac(8));
            Step::becomes(hook, &sent, Action::Send(IN), &out).into()
        };
        vec![
            to(REMOTE, 20),
            Event::Write(|state| {
                set_backends(state, BACKEND_GONE, 1);
                state.slots[REMOTE as usize] = OTHER;
            }),
            to(OTHER, 21),
            to(OTHER, 21),
        ]
    });
}

/// Puts the remote backend of both families into a state, its generation raised by `by`.
fn set_backends(state: &mut State, to: u8, by: u32) {
    let index = REMOTE as usize;
    (state.v4.backends[index].state, state.v6.backends[index].state) = (to, to);
    state.v4.backends[index].generation += by;
    state.v6.backends[index].generation += by;
}
