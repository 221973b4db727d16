//! A pod with a veth of its own, past the node's stack.

use nodeport_common::abi::DEVICE_POD;
use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, FIN, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, Net, Transport, tcp, udp};

use super::CaseTable;
use super::ways::error_to_client;
use crate::network::{NARROW_POD, OUT, POD, ROUTER, mac, own_mac};
use crate::state::*;
use crate::step::{Event, Step};

/// A packet to the pod, and what becomes of it.
fn to_pod(frame: Draft, out: Draft) -> Event {
    let out = out.ttl(63).macs(mac(3, 20), own_mac(3));
    Step::becomes(Hook::Ingress, &frame, Action::Pod(POD), &out).into()
}

/// A packet of the pod, where it comes out of its veth or, if nobody met it there, of the NIC.
fn to_client(hook: Hook, frame: Draft, out: Draft) -> Event {
    let out = out.ttl(63).macs(mac(1, ROUTER), own_mac(1));
    Step::becomes(hook, &frame, Action::Send(OUT), &out).into()
}

fn there<F: Net>(flags: u8) -> Event {
    let [frame, out] = [frontend::<F>(OWN_VETH), backend::<F>(OWN_VETH)]
        .map(|to| tcp(client::<F>(), to, flags).payload(b"there"));
    to_pod(frame, out)
}

fn back<F: Net>(flags: u8) -> Event {
    let [frame, out] = [backend::<F>(OWN_VETH), frontend::<F>(OWN_VETH)]
        .map(|from| tcp(from, client::<F>(), flags).payload(b"and back"));
    to_client(Hook::Pod, frame, out)
}

/// The same in slow mode.
fn slow_there<F: Net>(flags: u8) -> Event {
    let [frame, out] = [frontend::<F>(OWN_VETH), backend::<F>(OWN_VETH)]
        .map(|to| tcp(client::<F>(), to, flags).payload(b"there"));
    Step::becomes(Hook::Ingress, &frame, Action::Stack, &out).into()
}

fn slow_back<F: Net>(flags: u8) -> [Event; 2] {
    let [frame, out] = [backend::<F>(OWN_VETH), frontend::<F>(OWN_VETH)]
        .map(|from| tcp(from, client::<F>(), flags).payload(b"and back"));
    [
        Step::passed(Hook::Pod, frame.build()).into(),
        Step::becomes(Hook::Egress, &frame, Action::Stack, &out).into(),
    ]
}

pub(super) fn add<F: Net>(table: &mut CaseTable) {
    table.add(
        "fast::tcp_from_syn_to_fin",
        [
            there::<F>(SYN),
            back::<F>(SYN | ACK),
            there::<F>(ACK),
            there::<F>(ACK),
            back::<F>(ACK),
            back::<F>(ACK),
            there::<F>(FIN | ACK),
            back::<F>(FIN | ACK),
            there::<F>(ACK),
        ],
    );
    table.add("fast::xdp_leaves_them_to_tc", {
        let frame =
            |flags| tcp(client::<F>(), frontend::<F>(OWN_VETH), flags).payload(b"there").build();
        let passed = |flags| Step::passed(Hook::Xdp, frame(flags)).into();
        [
            passed(SYN),
            there::<F>(SYN),
            back::<F>(SYN | ACK),
            passed(ACK),
            there::<F>(ACK),
            back::<F>(ACK),
            passed(ACK),
            there::<F>(ACK),
        ]
    });
    table.add("fast::udp", {
        let kind = if F::VERSION == 4 { Transport::UdpUnsummed } else { Transport::Udp };
        let mut events = Vec::new();
        for kind in [Transport::Udp, kind, kind] {
            let at = |src, dst| Draft::new(src, dst, kind).payload(b"odd");
            let (pod, front) = (backend::<F>(OWN_VETH), frontend::<F>(OWN_VETH));
            events.push(to_pod(at(client::<F>(), front), at(client::<F>(), pod)));
            let (answer, answered) = (at(pod, client::<F>()), at(front, client::<F>()));
            events.push(to_client(Hook::Pod, answer, answered));
        }
        events
    });
    table.add("fast::missed_at_the_veth", {
        let [frame, out] = [backend::<F>(OWN_VETH), frontend::<F>(OWN_VETH)]
            .map(|from| tcp(from, client::<F>(), ACK));
        let missed = || to_client(Hook::Egress, frame.clone(), out.clone());
        [there::<F>(SYN), back::<F>(SYN | ACK), there::<F>(ACK), missed(), missed()]
    });
    modes::<F>(table);
    errors::<F>(table);
}

/// Each flow keeps the mode that it was opened in.
fn modes<F: Net>(table: &mut CaseTable) {
    let not_followed = || {
        Event::Write(|state| {
            state.devices.get_mut(&POD).expect("it is there").flags = 0;
            state.follow_pod(false);
            state.control.epoch += 1;
        })
    };
    let followed = || {
        Event::Write(|state| {
            state.devices.get_mut(&POD).expect("it is there").flags = DEVICE_POD;
            state.follow_pod(true);
            state.control.epoch += 1;
        })
    };
    let neighbour = |flags| -> Event {
        let [frame, out] = [frontend::<F>(OWN_VETH), backend::<F>(OWN_VETH)]
            .map(|to| tcp(client::<F>(), to, flags).payload(b"there"));
        Step::becomes(Hook::Ingress, &frame, Action::Neighbour(POD), &out.ttl(63)).into()
    };
    let mut events = vec![not_followed(), slow_there::<F>(SYN)];
    events.extend(slow_back::<F>(SYN | ACK));
    events.extend([slow_there::<F>(ACK), followed(), slow_there::<F>(ACK)]);
    events.extend(slow_back::<F>(ACK));
    events.extend(slow_back::<F>(ACK));
    table.add("fast::opened_slow_stays_slow", events);
    table.add(
        "fast::opened_fast_stays_fast",
        [
            there::<F>(SYN),
            back::<F>(SYN | ACK),
            there::<F>(ACK),
            not_followed(),
            neighbour(ACK),
            back::<F>(ACK),
            neighbour(ACK),
            Event::Write(|state| state.control.fast_local = 0),
            followed(),
            there::<F>(ACK),
            back::<F>(ACK),
        ],
    );
    let mut events = vec![Event::Write(|state| state.control.fast_local = 0)];
    events.push(slow_there::<F>(SYN));
    events.extend(slow_back::<F>(SYN | ACK));
    events.push(slow_there::<F>(ACK));
    table.add("fast::not_wished", events);
}

fn errors<F: Net>(table: &mut CaseTable) {
    let [a, b] = NARROW_POD.to_be_bytes();
    let (kind, code) = if F::VERSION == 4 { (3, 4) } else { (2, 0) };
    let message = Icmp { kind, code, word: [0, 0, a, b] };
    let room = usize::from(NARROW_POD) - F::HEADER - 8;
    let datagram = |to, length| udp(client::<F>(), to).payload(&vec![3; length]);
    let front = frontend::<F>(OWN_VETH);
    let told = error_to_client::<F>(&datagram(front, room + 1), OWN_VETH, message, F::HEADER + 8);
    table.add(
        "fast::narrow_veth",
        [
            to_pod(datagram(front, room), datagram(backend::<F>(OWN_VETH), room)),
            Step::becomes(Hook::Ingress, &datagram(front, room + 1), Action::Back(OUT), &told)
                .into(),
        ],
    );
    let (kind, code) = if F::VERSION == 4 { (3, 3) } else { (1, 4) };
    let message = Icmp { kind, code, word: [0; 4] };
    let sent = datagram(front, 9);
    let arrived = datagram(backend::<F>(OWN_VETH), 9).ttl(63);
    let (pod, client, node) = (backend::<F>(OWN_VETH), client::<F>(), node::<F>());
    table.add(
        "fast::errors_both_ways",
        [
            to_pod(sent.clone(), arrived.clone()),
            to_client(
                Hook::Pod,
                Draft::icmp(pod.ip(), client.ip(), message, &arrived.packet()),
                Draft::icmp(node, client.ip(), message, &sent.ttl(63).packet()),
            ),
            to_pod(
                Draft::icmp(client.ip(), node, message, &udp(front, client).packet()),
                Draft::icmp(client.ip(), pod.ip(), message, &udp(pod, client).packet()),
            ),
        ],
    );
}
