//! Where there is no room left in the table of flows.

use std::net::SocketAddr;

use nodeport_common::abi::{
    FLOW_PROVED, FLOW_SETTLED, Flow, FlowKey, FlowState, IPPROTO_TCP, NextHop, Reason,
    SLOTS_OF_LINE, SLOTS_PER_ENTRY,
};
use nodeport_common::core::env::{Hook, Inserted};
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::table::CANDIDATES;
use nodeport_common::core::table::slot::Place;
use nodeport_common::frames::{Net, View, key, tcp};

use crate::kernel::{Kernel, jiffies};
use crate::network::{MTU, mac, own_mac};
use crate::state::*;
use crate::table::LINES;
use crate::trials::Trials;

/// What XDP says of a packet that it drops, and of one that it sends.
const DROP: i32 = 1;
const REDIRECT: i32 = 4;

/// The tests.
pub(crate) fn add(trials: &mut Trials) {
    trials.on_kernel("full::ipv4::the_proved_stay", the_proved_stay::<V4>);
    trials.on_kernel("full::ipv6::the_proved_stay", the_proved_stay::<V6>);
    trials.on_kernel("full::ipv4::an_old_newcomer_goes", an_old_newcomer_goes::<V4>);
    trials.on_kernel("full::ipv6::an_old_newcomer_goes", an_old_newcomer_goes::<V6>);
    trials.on_kernel("full::ipv4::the_second_line_serves", the_second_line_serves::<V4>);
    trials.on_kernel("full::ipv6::the_second_line_serves", the_second_line_serves::<V6>);
    trials.on_kernel("full::ipv4::a_flood_ends_no_connection", a_flood_ends_no_connection::<V4>);
    trials.on_kernel("full::ipv6::a_flood_ends_no_connection", a_flood_ends_no_connection::<V6>);
    trials.on_kernel(
        "full::ipv4::nor_does_it_where_entries_are_few",
        nor_does_it_where_entries_are_few::<V4>,
    );
    trials.on_kernel(
        "full::ipv6::nor_does_it_where_entries_are_few",
        nor_does_it_where_entries_are_few::<V6>,
    );
}

fn frontend_key<F: Net>(client: SocketAddr) -> FlowKey<F::Addr> {
    key::<F>(IPPROTO_TCP, client, frontend::<F>(REMOTE))
}

/// A half that nobody else has a part in.
fn half<F: Net>(flags: u8) -> Flow<F::Addr> {
    let state = if flags & FLOW_PROVED != 0 { FlowState::Established } else { FlowState::Opening };
    let dst_mac = mac(8, 20);
    let hop = NextHop { dst_mac, src_mac: own_mac(8), mtu: MTU, ..NextHop::UNRESOLVED };
    Flow { state: state as u8, flags, hop, backend: REMOTE, generation: 5, ..Flow::default() }
}

/// Fills lines of the index with halves of other flows; their keys.
fn fill<F: Net>(kernel: &Kernel, lines: &[u32], flags: u8) -> Vec<FlowKey<F::Addr>> {
    let table = kernel.table::<F>();
    let now = jiffies();
    let mut keys = Vec::new();
    for number in 1..=u16::MAX {
        let stranger = SocketAddr::new(F::party(66, 1), number);
        let key = key::<F>(IPPROTO_TCP, stranger, frontend::<F>(OTHER));
        let line = table.place(&key).first();
        let has_room = table.slots(line).iter().any(|slot| slot.is_empty());
        if lines.contains(&line) && has_room {
            assert_eq!(table.claim(&key, &half::<F>(flags), now), Inserted::Done);
            keys.push(key);
        }
    }
    let is_full = |line: &u32| table.slots(*line).iter().all(|slot| !slot.is_empty());
    assert!(lines.iter().all(is_full), "{} of {LINES} lines: too few keys", lines.len());
    keys
}

fn place<F: Net>(kernel: &Kernel) -> Place {
    kernel.table::<F>().place(&frontend_key::<F>(client::<F>()))
}

fn segment<F: Net>(kernel: &Kernel, flags: u8) -> (i32, Vec<u8>) {
    let frame = tcp(client::<F>(), frontend::<F>(REMOTE), flags).payload(b"abc").build();
    let ran = kernel.run(Hook::Xdp, &frame, 0).expect("the kernel takes the frame");
    (ran.code, ran.bytes)
}

fn the_proved_stay<F: Net>(kernel: &Kernel) {
    let place = place::<F>(kernel);
    let keys = fill::<F>(kernel, &[place.first(), place.second()], FLOW_PROVED | FLOW_SETTLED);
    let (verdict, _) = segment::<F>(kernel, SYN);
    assert_eq!(verdict, DROP);
    assert_eq!(kernel.counters().get(&Reason::TableFull), Some(&1));
    let flows = kernel.flows::<F>();
    assert!(keys.iter().all(|key| flows.contains_key(key)));
    assert_eq!(flows.len(), keys.len(), "nothing of the flow stays half done");
}

/// Of as many as are compared: whoever goes is older than all but one of them at least.
fn an_old_newcomer_goes<F: Net>(kernel: &Kernel) {
    let place = place::<F>(kernel);
    let keys = fill::<F>(kernel, &[place.first(), place.second()], 0);
    for (number, key) in keys.iter().enumerate() {
        // In no order of the slots.
        kernel.table::<F>().make_older(key, (number * 7 % keys.len()) as u32 * 100);
    }
    let (verdict, _) = segment::<F>(kernel, SYN);
    assert_eq!(verdict, REDIRECT);
    let flows = kernel.flows::<F>();
    let gone: Vec<_> = (0..keys.len()).filter(|at| !flows.contains_key(&keys[*at])).collect();
    let [gone] = gone[..] else { panic!("{gone:?} are gone") };
    let younger = gone * 7 % keys.len();
    assert!(younger + 1 >= CANDIDATES as usize, "{younger} of {} were younger", keys.len());
    kernel.table::<F>().audit(crate::table::ENTRIES);
}

/// The quick way looks in the first line alone: the thorough one must find the flow, and do with
/// its packets what the quick one would.
fn the_second_line_serves<F: Net>(kernel: &Kernel) {
    let place = place::<F>(kernel);
    let keys = fill::<F>(kernel, &[place.first()], FLOW_PROVED | FLOW_SETTLED);
    let key = frontend_key::<F>(client::<F>());
    for flags in [SYN, ACK, ACK] {
        let (verdict, bytes) = segment::<F>(kernel, flags);
        let view = View::new(&bytes).expect("a frame");
        assert_eq!((verdict, view.src, view.dst), (REDIRECT, snat::<F>(8), backend::<F>(REMOTE)));
        if flags == SYN {
            let answer = tcp(backend::<F>(REMOTE), snat::<F>(8), SYN | ACK).build();
            let ran = kernel.run(Hook::Xdp, &answer, 0).expect("the kernel takes the frame");
            assert_eq!(View::new(&ran.bytes).expect("a frame").dst, client::<F>());
        }
    }
    let flows = kernel.flows::<F>();
    assert_eq!((flows[&key].packets, flows[&key].state), (3, FlowState::Established as u8));
    assert_eq!(flows.len(), keys.len() + 2);
}

/// Many more newcomers than there is room for, and a connection that lives on among them.
fn a_flood_ends_no_connection<F: Net>(kernel: &Kernel) {
    let handshake = |kernel: &Kernel| {
        segment::<F>(kernel, SYN);
        let answer = tcp(backend::<F>(REMOTE), snat::<F>(8), SYN | ACK).build();
        kernel.run(Hook::Xdp, &answer, 0).expect("the kernel takes the frame");
        segment::<F>(kernel, ACK)
    };
    assert_eq!(handshake(kernel).0, REDIRECT);
    let mut served = 0;
    for number in 0..60_000_u16 {
        let stranger = SocketAddr::new(F::party(70 + (number % 8) as u8, 1), 1_024 + number);
        let frame = tcp(stranger, frontend::<F>(LOCAL), SYN).build();
        let ran = kernel.run(Hook::Ingress, &frame, 0).expect("the kernel takes the frame");
        served += u32::from(View::new(&ran.bytes).expect("a frame").dst == backend::<F>(LOCAL));
    }
    assert!(served > 59_000, "newcomers push out newcomers: {served} of 60000 were served");
    assert_eq!(segment::<F>(kernel, ACK).0, REDIRECT, "who has proved itself lives on");
    let flows = kernel.flows::<F>();
    assert_eq!(flows[&frontend_key::<F>(client::<F>())].packets, 3);
    kernel.table::<F>().audit(crate::table::ENTRIES);
}

/// Room for a few flows, half of which are connections, and a thousand newcomers.
fn nor_does_it_where_entries_are_few<F: Net>(kernel: &Kernel) {
    const FEW: u32 = 48;
    const CONNECTIONS: u16 = 12;
    kernel
        .clear_tables(FEW, FEW.next_power_of_two() * SLOTS_PER_ENTRY as u32 / SLOTS_OF_LINE as u32);
    let run = |hook, src, dst, flags| {
        let ran = kernel.run(hook, &tcp(src, dst, flags).build(), 0);
        View::new(&ran.expect("the kernel takes the frame").bytes).expect("a frame")
    };
    let friend = |number| SocketAddr::new(client::<F>().ip(), 1_024 + number);
    for number in 0..CONNECTIONS {
        run(Hook::Ingress, friend(number), frontend::<F>(LOCAL), SYN);
        run(Hook::Egress, backend::<F>(LOCAL), friend(number), SYN | ACK);
        run(Hook::Ingress, friend(number), frontend::<F>(LOCAL), ACK);
        run(Hook::Egress, backend::<F>(LOCAL), friend(number), ACK);
    }
    let mut served = 0;
    for number in 0..1_000 {
        let stranger = SocketAddr::new(F::party(70, 1), 1_024 + number);
        let view = run(Hook::Ingress, stranger, frontend::<F>(LOCAL), SYN);
        served += u32::from(view.dst == backend::<F>(LOCAL));
    }
    assert!(served > 900, "{served} of 1000 were served");
    for number in 0..CONNECTIONS {
        let there = run(Hook::Ingress, friend(number), frontend::<F>(LOCAL), ACK);
        assert_eq!(there.dst, backend::<F>(LOCAL), "connection {number}");
        let back = run(Hook::Egress, backend::<F>(LOCAL), friend(number), ACK);
        assert_eq!(back.src, frontend::<F>(LOCAL), "connection {number}");
    }
    let refused = kernel.counters().get(&Reason::TableFull).copied().unwrap_or(0);
    assert_eq!(u64::from(1_000 - served), refused, "who was not served was counted");
    assert_eq!(kernel.stats().get(&LOCAL).map_or(0, |stats| stats.table_full), refused);
    assert_eq!(kernel.table::<F>().audit(FEW).stray, 0);
}
