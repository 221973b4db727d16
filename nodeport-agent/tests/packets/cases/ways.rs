//! Ways to backends: what the kernel's route look-up says, and what comes of it.

use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, Net, tcp, udp};

use super::CaseTable;
use super::flows::{back, there};
use crate::network::{DARK, IN, NARROW, OUT, ROUTER, SLOW, mac, own_mac};
use crate::state::*;
use crate::step::{Event, Step};

/// A SYN to a backend; `net` is the node's side that it sees.
fn syn<F: Net>(backend_index: u32, net: u8) -> (Draft, Draft) {
    let frame = tcp(client::<F>(), frontend::<F>(backend_index), SYN);
    let out = tcp(snat::<F>(net), backend::<F>(backend_index), SYN).ttl(63);
    (frame, out)
}

fn passed<F: Net>(hook: Hook, backend_index: u32) -> Event {
    Step::passed(hook, syn::<F>(backend_index, 8).0.build()).into()
}

/// The error that `packet`, of the client, is answered with; its quote has `quoted` bytes.
pub(super) fn error_to_client<F: Net>(
    packet: &Draft,
    index: u32,
    message: Icmp,
    quoted: usize,
) -> Draft {
    let mut quote = packet.packet();
    quote.truncate(quoted);
    let (from, to) = (frontend::<F>(index).ip(), client::<F>().ip());
    let (node_mac, peer_mac) =
        (nodeport_common::frames::NODE_MAC, nodeport_common::frames::PEER_MAC);
    Draft::icmp(from, to, message, &quote).macs(peer_mac, node_mac).from_router()
}

pub(super) fn add<F: Net>(table: &mut CaseTable) {
    neighbours::<F>(table);
    obstacles::<F>(table);
    sources::<F>(table);
}

fn neighbours<F: Net>(table: &mut CaseTable) {
    for (name, index, net, ifindex) in [
        ("neighbour_not_known", UNKNOWN_NEIGHBOUR, 8, IN),
        ("device_without_redirect", BEHIND_SLOW, 7, SLOW),
    ] {
        let (frame, out) = syn::<F>(index, net);
        table.add(&format!("{name}::xdp"), [passed::<F>(Hook::Xdp, index)]);
        let step = || Step::becomes(Hook::Ingress, &frame, Action::Neighbour(ifindex), &out).into();
        table.add(&format!("{name}::tc"), [step(), step()]);
        // XDP hands up what TC then knows.
        table.add(
            &format!("{name}::xdp_then_tc"),
            [passed::<F>(Hook::Xdp, index), step(), passed::<F>(Hook::Xdp, index), step()],
        );
    }
    table.add_arriving("device_not_watched", |hook| {
        assert_eq!(DARK, 16);
        let frame = udp(client::<F>(), frontend::<F>(BEHIND_DARK));
        let out = udp(client::<F>(), backend::<F>(BEHIND_DARK));
        let answer = udp(backend::<F>(BEHIND_DARK), client::<F>());
        let answered = udp(frontend::<F>(BEHIND_DARK), client::<F>());
        vec![
            Step::becomes(hook, &frame, Action::Stack, &out).into(),
            Step::becomes(Hook::Egress, &answer, Action::Stack, &answered).into(),
            Step::becomes(hook, &frame, Action::Stack, &out).into(),
        ]
    });
}

fn obstacles<F: Net>(table: &mut CaseTable) {
    table.add_arriving("no_route_at_all", |hook| vec![passed::<F>(hook, WITHOUT_ROUTE)]);
    table.add_arriving("unreachable_route", |hook| vec![passed::<F>(hook, UNREACHABLE)]);
    table.add_arriving("own_address", |hook| {
        let frame = tcp(client::<F>(), frontend::<F>(OWN_ADDRESS), SYN);
        let out = tcp(client::<F>(), backend::<F>(OWN_ADDRESS), SYN);
        vec![Step::becomes(hook, &frame, Action::Stack, &out).into()]
    });
    table.add_arriving("last_hop", |hook| {
        let message = if F::VERSION == 4 { (11, 0) } else { (3, 0) };
        let message = Icmp { kind: message.0, code: message.1, word: [0; 4] };
        let segment = tcp(client::<F>(), frontend::<F>(REMOTE), SYN).payload(&[1; 99]).ttl(1);
        let datagram = udp(client::<F>(), frontend::<F>(REMOTE)).ttl(1);
        let quoted = F::HEADER + 20;
        let told = error_to_client::<F>(&segment, REMOTE, message, quoted);
        let also = error_to_client::<F>(&datagram, REMOTE, message, F::HEADER + 8);
        vec![
            Step::becomes(hook, &segment, Action::Back(OUT), &told).into(),
            Step::becomes(hook, &datagram, Action::Back(OUT), &also).into(),
        ]
    });
    let two_tags = {
        let (kind, code) = if F::VERSION == 4 { (11, 0) } else { (3, 0) };
        let message = Icmp { kind, code, word: [0; 4] };
        let segment = tcp(client::<F>(), frontend::<F>(REMOTE), SYN).ttl(1);
        let told = error_to_client::<F>(&segment, REMOTE, message, F::HEADER + 20);
        let one = |draft: &Draft| draft.clone().tag(0x8100, 5);
        let two = |draft: &Draft| draft.clone().tag(0x88a8, 5).tag(0x8100, 6);
        let back = Action::Back(OUT);
        let one = [
            Event::Write(|state| put_behind(state, &[(0x8100, 5)])),
            Step::becomes(Hook::Xdp, &one(&segment), back, &one(&told)).into(),
        ];
        table.add("last_hop_one_tag::xdp", one);
        [
            Event::Write(|state| put_behind(state, &[(0x88a8, 5), (0x8100, 6)])),
            Step::becomes(Hook::Xdp, &two(&segment), back, &two(&told)).into(),
        ]
    };
    table.add("last_hop_two_tags::xdp", two_tags);
    // The kernel makes room in plain IP packets only; the reason is counted.
    let tagged = tcp(client::<F>(), frontend::<F>(REMOTE), SYN).ttl(1).tag(0x8100, 5);
    table.add("last_hop_tagged::tc", [Step::dropped(Hook::Ingress, &tagged).into()]);
    table.add_arriving("narrow_path", narrow_path::<F>);
    table.add_arriving("error_budget", |hook| {
        let frame = tcp(client::<F>(), frontend::<F>(REMOTE), SYN).ttl(1);
        vec![
            Event::Write(|state| state.control.errors_per_second = 0),
            Step::dropped(hook, &frame).into(),
        ]
    });
}

fn narrow_path<F: Net>(hook: Hook) -> Vec<Event> {
    let [a, b] = NARROW.to_be_bytes();
    let (kind, code) = if F::VERSION == 4 { (3, 4) } else { (2, 0) };
    let message = Icmp { kind, code, word: [0, 0, a, b] };
    let room = usize::from(NARROW) - F::HEADER - 8;
    let datagram =
        |length| udp(client::<F>(), frontend::<F>(BEHIND_NARROW)).payload(&vec![3; length]);
    let fits = datagram(room);
    let out = udp(snat::<F>(8), backend::<F>(BEHIND_NARROW))
        .payload(&vec![3; room])
        .ttl(63)
        .macs(mac(8, ROUTER), own_mac(8));
    let told = error_to_client::<F>(&datagram(room + 1), BEHIND_NARROW, message, F::HEADER + 8);
    let mut events = vec![
        Step::becomes(hook, &fits, Action::Send(IN), &out).into(),
        Step::becomes(hook, &datagram(room + 1), Action::Back(OUT), &told).into(),
    ];
    if hook == Hook::Ingress {
        let joined = datagram(2 * room);
        let cut = udp(snat::<F>(8), backend::<F>(BEHIND_NARROW))
            .payload(&vec![3; 2 * room])
            .ttl(63)
            .macs(mac(8, ROUTER), own_mac(8));
        let step = Step::becomes(hook, &joined, Action::Send(IN), &cut);
        events.push(step.joined(room as u16).into());
        let told = error_to_client::<F>(&joined, BEHIND_NARROW, message, F::HEADER + 8);
        let step = Step::becomes(hook, &joined, Action::Back(OUT), &told);
        events.push(step.joined(room as u16 + 1).into());
    }
    if hook == Hook::Xdp {
        // Longer than a page, so in several pieces; a test in TC does not take such.
        let jumbo = datagram(6000);
        let told = error_to_client::<F>(&jumbo, BEHIND_NARROW, message, F::HEADER + 8);
        events.push(Step::becomes(hook, &jumbo, Action::Back(OUT), &told).into());
    }
    events
}

fn sources<F: Net>(table: &mut CaseTable) {
    table.add_arriving("source_of_the_device_where_the_kernel_tells_none", |hook| {
        vec![
            Event::Write(|state| state.control.fib_source = 0),
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
        ]
    });
    table.add_arriving("another_epoch", |hook| {
        vec![
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
            Event::Write(|state| state.control.epoch = 77),
            there::<F>(hook, ACK),
            back::<F>(hook, ACK),
            there::<F>(hook, ACK),
        ]
    });
}
