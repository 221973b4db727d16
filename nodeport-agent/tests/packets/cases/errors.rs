//! ICMP errors along a flow.

use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, Net, tcp, udp};

use super::CaseTable;
use super::flows::{back, there};
use crate::network::{IN, OUT, ROUTER, mac, own_mac};
use crate::state::*;
use crate::step::{Event, Step};

fn messages<F: Net>() -> [Icmp; 4] {
    let kinds = match F::VERSION {
        4 => [(3, 3), (3, 4), (11, 0), (12, 0)],
        _ => [(1, 4), (2, 0), (3, 0), (4, 1)],
    };
    kinds.map(|(kind, code)| Icmp { kind, code, word: [0, 0, 5, 100] })
}

/// What is quoted of a packet: no more than `keep` bytes behind its plain IP header.
fn quote<F: Net>(packet: &Draft, keep: usize) -> Vec<u8> {
    let mut bytes = packet.packet();
    bytes.truncate(F::HEADER + keep);
    bytes
}

fn opened<F: Net>(hook: Hook) -> Vec<Event> {
    vec![there::<F>(hook, SYN), back::<F>(hook, SYN | ACK), there::<F>(hook, ACK)]
}

pub(super) fn add<F: Net>(table: &mut CaseTable) {
    for keep in [8, 12, 18, 20, 64] {
        table.add_arriving(&format!("error_to_client::quotes_{keep}"), |hook| {
            to_client::<F>(hook, keep, |draft| draft)
        });
        table.add_arriving(&format!("error_to_backend::quotes_{keep}"), |hook| {
            to_backend::<F>(hook, keep)
        });
    }
    table.add("error_to_client::tagged::tc", {
        to_client::<F>(Hook::Ingress, 8, |draft| draft.tag(0x8100, 9))
    });
    table.add("error_to_client::tagged::xdp", {
        let mut events = to_client::<F>(Hook::Xdp, 8, |draft| draft.tag(0x8100, 9));
        let all_tagged = Event::Write(|state| put_behind(state, &[(0x8100, 9)]));
        events.insert(opened::<F>(Hook::Xdp).len(), all_tagged);
        events
    });
    table.add_arriving("error_to_client::with_options", |hook| {
        to_client::<F>(hook, 8, |draft| match F::VERSION {
            4 => draft.options(&[1; 8]),
            _ => draft.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]),
        })
    });
    table.add("error_from_local_backend", from_local_backend::<F>());
    table.add_arriving("error_to_local_backend", to_local_backend::<F>);
    table.add_arriving("error_about_nothing", |hook| {
        let mut events = opened::<F>(hook);
        for about in [
            tcp(client::<F>(), frontend::<F>(REMOTE), ACK),
            tcp(snat::<F>(8), backend::<F>(OTHER), ACK),
            udp(snat::<F>(8), backend::<F>(REMOTE)),
        ] {
            for message in messages::<F>() {
                let error =
                    Draft::icmp(F::party(77, 1), snat::<F>(8).ip(), message, &about.packet());
                events.push(Step::passed(hook, error.build()).into());
            }
        }
        events
    });
    table.add_arriving("error_at_its_last_hop", |hook| {
        let mut events = opened::<F>(hook);
        let about = tcp(snat::<F>(8), backend::<F>(REMOTE), ACK).packet();
        let error = Draft::icmp(F::party(77, 1), snat::<F>(8).ip(), messages::<F>()[0], &about);
        events.push(Step::dropped(hook, &error.ttl(1)).into());
        events
    });
}

fn to_client<F: Net>(hook: Hook, keep: usize, change: impl Fn(Draft) -> Draft) -> Vec<Event> {
    let mut events = opened::<F>(hook);
    for message in messages::<F>() {
        let about = tcp(snat::<F>(8), backend::<F>(REMOTE), ACK).payload(&[6; 50]).ttl(60);
        let original = tcp(client::<F>(), frontend::<F>(REMOTE), ACK).payload(&[6; 50]).ttl(60);
        let error =
            Draft::icmp(F::party(77, 1), snat::<F>(8).ip(), message, &quote::<F>(&about, keep));
        let told =
            Draft::icmp(node::<F>(), client::<F>().ip(), message, &quote::<F>(&original, keep))
                .ttl(63)
                .macs(mac(1, ROUTER), own_mac(1));
        let step = Step::becomes(hook, &change(error), Action::Send(OUT), &change(told));
        events.push(step.into());
    }
    events
}

fn to_backend<F: Net>(hook: Hook, keep: usize) -> Vec<Event> {
    let mut events = opened::<F>(hook);
    for message in messages::<F>() {
        let about = tcp(frontend::<F>(REMOTE), client::<F>(), ACK).payload(&[6; 50]).ttl(60);
        let original = tcp(backend::<F>(REMOTE), snat::<F>(8), ACK).payload(&[6; 50]).ttl(60);
        let error = Draft::icmp(F::party(77, 1), node::<F>(), message, &quote::<F>(&about, keep));
        let (from, to) = (snat::<F>(8).ip(), backend::<F>(REMOTE).ip());
        let told = Draft::icmp(from, to, message, &quote::<F>(&original, keep))
            .ttl(63)
            .macs(mac(8, 20), own_mac(8));
        events.push(Step::becomes(hook, &error, Action::Send(IN), &told).into());
    }
    events
}

fn from_local_backend<F: Net>() -> Vec<Event> {
    let sent = udp(client::<F>(), frontend::<F>(LOCAL));
    let delivered = udp(client::<F>(), backend::<F>(LOCAL));
    let mut events = vec![Step::becomes(Hook::Ingress, &sent, Action::Stack, &delivered).into()];
    for message in messages::<F>() {
        let (from, to) = (backend::<F>(LOCAL).ip(), client::<F>().ip());
        let error = Draft::icmp(from, to, message, &delivered.packet());
        let told = Draft::icmp(node::<F>(), to, message, &sent.packet());
        events.push(Step::becomes(Hook::Egress, &error, Action::Stack, &told).into());
    }
    events
}

fn to_local_backend<F: Net>(hook: Hook) -> Vec<Event> {
    let sent = udp(client::<F>(), frontend::<F>(LOCAL));
    let delivered = udp(client::<F>(), backend::<F>(LOCAL));
    let answer = udp(backend::<F>(LOCAL), client::<F>());
    let answered = udp(frontend::<F>(LOCAL), client::<F>());
    let mut events = vec![
        Step::becomes(hook, &sent, Action::Stack, &delivered).into(),
        Step::becomes(Hook::Egress, &answer, Action::Stack, &answered).into(),
    ];
    for message in messages::<F>() {
        let router = F::party(77, 1);
        let error = Draft::icmp(router, node::<F>(), message, &answered.packet());
        let told = Draft::icmp(router, backend::<F>(LOCAL).ip(), message, &answer.packet());
        events.push(Step::becomes(hook, &error, Action::Stack, &told).into());
    }
    events
}
