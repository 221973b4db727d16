//! Flows: opened, followed, ended.

use nodeport_common::abi::IPPROTO_TCP;
use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Net, Transport, tcp, udp};

use super::CaseTable;
use crate::network::{IN, OUT, ROUTER, mac, own_mac};
use crate::state::*;
use crate::step::{Event, Step};

/// A segment from the client to the remote backend, and what becomes of it.
pub(super) fn there<F: Net>(hook: Hook, flags: u8) -> Event {
    let frame = tcp(client::<F>(), frontend::<F>(REMOTE), flags).payload(b"there");
    let out = tcp(snat::<F>(8), backend::<F>(REMOTE), flags)
        .payload(b"there")
        .ttl(63)
        .macs(mac(8, 20), own_mac(8));
    Step::becomes(hook, &frame, Action::Send(IN), &out).into()
}

/// A segment from the remote backend, and what becomes of it.
pub(super) fn back<F: Net>(hook: Hook, flags: u8) -> Event {
    let frame = tcp(backend::<F>(REMOTE), snat::<F>(8), flags).payload(b"back");
    let out = tcp(frontend::<F>(REMOTE), client::<F>(), flags)
        .payload(b"back")
        .ttl(63)
        .macs(mac(1, ROUTER), own_mac(1));
    Step::becomes(hook, &frame, Action::Send(OUT), &out).into()
}

/// The same segments as one family's local backend sees them.
fn local_there<F: Net>(hook: Hook, flags: u8) -> Event {
    let frame = tcp(client::<F>(), frontend::<F>(LOCAL), flags).payload(b"x");
    let out = tcp(client::<F>(), backend::<F>(LOCAL), flags).payload(b"x");
    Step::becomes(hook, &frame, Action::Stack, &out).into()
}

fn local_back<F: Net>(flags: u8) -> Event {
    let frame = tcp(backend::<F>(LOCAL), client::<F>(), flags);
    let out = tcp(frontend::<F>(LOCAL), client::<F>(), flags);
    Step::becomes(Hook::Egress, &frame, Action::Stack, &out).into()
}

pub(super) fn add<F: Net>(table: &mut CaseTable) {
    table.add_arriving("tcp_from_syn_to_fin", |hook| {
        vec![
            there::<F>(hook, SYN),
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
            there::<F>(hook, ACK),
            back::<F>(hook, ACK),
            there::<F>(hook, FIN | ACK),
            back::<F>(hook, ACK),
            back::<F>(hook, FIN | ACK),
            there::<F>(hook, ACK),
        ]
    });
    table.add_arriving("tcp_reset_and_revived", |hook| {
        vec![
            there::<F>(hook, SYN),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
            there::<F>(hook, RST),
            back::<F>(hook, ACK),
            there::<F>(hook, ACK),
        ]
    });
    table.add_arriving("tcp_ports_used_again", |hook| {
        let mut events = Vec::new();
        for _ in 0..3 {
            events.extend([SYN, FIN | ACK].map(|flags| there::<F>(hook, flags)));
            events.extend([
                back::<F>(hook, SYN | ACK),
                there::<F>(hook, ACK),
                there::<F>(hook, RST | ACK),
            ]);
        }
        events
    });
    table.add_arriving("udp", |hook| {
        let sent = udp(client::<F>(), frontend::<F>(REMOTE));
        let out = udp(snat::<F>(8), backend::<F>(REMOTE)).ttl(63).macs(mac(8, 20), own_mac(8));
        let answer = udp(backend::<F>(REMOTE), snat::<F>(8));
        let answered =
            udp(frontend::<F>(REMOTE), client::<F>()).ttl(63).macs(mac(1, ROUTER), own_mac(1));
        let mut events: Vec<Event> = Vec::new();
        for _ in 0..3 {
            events.push(Step::becomes(hook, &sent, Action::Send(IN), &out).into());
            events.push(Step::becomes(hook, &answer, Action::Send(OUT), &answered).into());
        }
        events
    });
    table.add_arriving("udp_without_checksum", |hook| {
        let kind = if F::VERSION == 4 { Transport::UdpUnsummed } else { Transport::Udp };
        let sent = Draft::new(client::<F>(), frontend::<F>(REMOTE), kind).payload(b"odd");
        let out = Draft::new(snat::<F>(8), backend::<F>(REMOTE), kind)
            .payload(b"odd")
            .ttl(63)
            .macs(mac(8, 20), own_mac(8));
        vec![Step::becomes(hook, &sent, Action::Send(IN), &out).into()]
    });
    table.add_arriving("tcp_to_this_node", |hook| {
        vec![
            local_there::<F>(hook, SYN),
            local_back::<F>(SYN | ACK),
            local_there::<F>(hook, ACK),
            local_there::<F>(hook, ACK),
            local_back::<F>(ACK),
            local_back::<F>(ACK),
            local_there::<F>(hook, FIN | ACK),
            local_back::<F>(FIN | ACK),
        ]
    });
    lost_halves::<F>(table);
}

fn lost_halves<F: Net>(table: &mut CaseTable) {
    let forward = || Event::Lose((IPPROTO_TCP, client::<F>(), frontend::<F>(REMOTE)));
    let reply = || Event::Lose((IPPROTO_TCP, backend::<F>(REMOTE), snat::<F>(8)));
    table.add_arriving("newcomer_loses_its_forward_half", |hook| {
        vec![
            there::<F>(hook, SYN),
            forward(),
            back::<F>(hook, SYN | ACK),
            there::<F>(hook, ACK),
            back::<F>(hook, ACK),
        ]
    });
    table.add_arriving("newcomer_loses_its_reply_half", |hook| {
        vec![there::<F>(hook, SYN), reply(), there::<F>(hook, SYN), back::<F>(hook, SYN | ACK)]
    });
    table.add_arriving("orphan_leaves_another_flow_alone", |hook| {
        let anew = tcp(client::<F>(), frontend::<F>(REMOTE), SYN);
        let elsewhere =
            tcp(snat::<F>(8), backend::<F>(OTHER), SYN).ttl(63).macs(mac(8, 21), own_mac(8));
        let late = tcp(backend::<F>(REMOTE), snat::<F>(8), SYN | ACK);
        vec![
            there::<F>(hook, SYN),
            forward(),
            Event::Write(|state| state.slots[REMOTE as usize] = OTHER),
            Step::becomes(hook, &anew, Action::Send(IN), &elsewhere).into(),
            Step::passed(hook, late.build()).into(),
            Step::becomes(hook, &anew, Action::Send(IN), &elsewhere).into(),
        ]
    });
}
