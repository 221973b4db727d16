//! Sequences of packets that nobody thought of: some whole, some with bytes changed or cut off.
//! Both twins must come to the same, whatever that is. The seeds are fixed.

use std::net::SocketAddr;

use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::hash;
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, Net, tcp, udp};

use crate::state::*;
use crate::step::Twins;
use crate::trials::Trials;

/// Sequences, each a test of its own.
const SEQUENCES: u32 = 8;
/// Packets in each.
const PACKETS: u32 = 800;

/// The tests.
pub(crate) fn add(trials: &mut Trials) {
    for seed in 0..SEQUENCES {
        trials.add(format!("random::sequence_{seed}"), move |twins| sequence(twins, seed));
    }
}

/// Numbers that look random.
pub(crate) struct Random(pub(crate) u32);

impl Random {
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(1);
        hash::index(hash::finish(self.0), end)
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u32) as usize]
    }
}

fn sequence(twins: &mut Twins, seed: u32) {
    let mut random = Random(seed << 20);
    let mut state = State::new();
    let mut sent = 0;
    for number in 0..PACKETS {
        if random.below(50) == 0 {
            change(&mut state, &mut random);
            twins.write(state.clone());
        }
        let (hook, mut frame) =
            if random.below(2) == 0 { frame::<V4>(&mut random) } else { frame::<V6>(&mut random) };
        damage(&mut frame, &mut random);
        let what = format!("packet {number}, {hook:?}: {frame:02x?}");
        let out = twins.both(&what, hook, &frame);
        sent +=
            u32::from(matches!(out, Some((Action::Send(_) | Action::Stack | Action::Pod(_), _))));
    }
    // Or the sequences say nothing about what is served.
    assert!(sent > PACKETS / 5, "{sent} of {PACKETS}");
}

/// What the agent might write meanwhile.
fn change(state: &mut State, random: &mut Random) {
    let backend = random.of(&[REMOTE, LOCAL, OTHER, BEHIND_SLOW]) as usize;
    match random.below(6) {
        5 => state.control.fast_local = random.below(2),
        0 => state.control.epoch += 1,
        1 => {
            state.v4.backends[backend].generation += 1;
            state.v6.backends[backend].generation += 1;
        }
        2 => {
            let to = random.of(&[0, 1, 1, 1, 1, 2]);
            (state.v4.backends[backend].state, state.v6.backends[backend].state) = (to, to);
        }
        3 => state.slots[REMOTE as usize] = random.of(&[REMOTE, OTHER, LOCAL, OWN_VETH]),
        _ => state.control.draining = u32::from(random.below(8) == 0),
    }
}

fn frame<F: Net>(random: &mut Random) -> (Hook, Vec<u8>) {
    let common = [REMOTE, REMOTE, REMOTE, LOCAL, OWN_VETH, OTHER, BEHIND_SLOW, BEHIND_DARK];
    let rare = [BEHIND_NARROW, UNKNOWN_NEIGHBOUR, WITHOUT_ROUTE, OWN_ADDRESS, EMPTY];
    let index = if random.below(8) == 0 { random.of(&rare) } else { random.of(&common) };
    let client = SocketAddr::new(client::<F>().ip(), 40_000 + random.below(2) as u16);
    let (seen, leaving) = match index {
        LOCAL | BEHIND_DARK | OWN_ADDRESS => (client, Hook::Egress),
        OWN_VETH => (client, random.of(&[Hook::Pod, Hook::Pod, Hook::Egress])),
        BEHIND_SLOW => (snat::<F>(7), Hook::Ingress),
        _ => (snat::<F>(8), Hook::Xdp),
    };
    let any = random.of(&[Hook::Xdp, Hook::Ingress, Hook::Egress, Hook::Pod]);
    let (src, dst, usual) = if random.below(2) == 0 {
        (client, frontend::<F>(index), random.of(&[Hook::Xdp, Hook::Ingress]))
    } else {
        (backend::<F>(index), seen, leaving)
    };
    let hook = if random.below(10) == 0 { any } else { usual };
    let flags = random.of(&[SYN, SYN, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST]);
    let segment = tcp(src, dst, flags);
    let datagram = udp(src, dst);
    let draft = match random.below(10) {
        0..5 => segment,
        5..8 => datagram,
        8 => about(segment, random),
        _ => about(datagram, random),
    };
    (hook, odd::<F>(draft, random).build())
}

/// An ICMP error about a packet.
fn about(packet: Draft, random: &mut Random) -> Draft {
    let mut quote = packet.packet();
    let keep = random.below(quote.len() as u32 - 27) as usize + 28;
    quote.truncate(keep);
    let v4 = quote[0] >> 4 == 4;
    let kind = if v4 { random.of(&[3, 11, 12, 8]) } else { random.of(&[1, 2, 3, 128]) };
    let message = Icmp { kind, code: 0, word: [0, 0, 5, 220] };
    let router = if v4 { V4::party(77, 1) } else { V6::party(77, 1) };
    let to = if v4 { V4::party(1, 1) } else { V6::party(1, 1) };
    Draft::icmp(router, to, message, &quote)
}

fn odd<F: Net>(draft: Draft, random: &mut Random) -> Draft {
    match random.below(12) {
        0 => draft.tag(0x8100, 7),
        1 => draft.tag(0x88a8, 7).tag(0x8100, 8),
        2 if F::VERSION == 4 => draft.options(&[1; 8]),
        2 => draft.extension(0, &[0, 0, 1, 4, 0, 0, 0, 0]),
        3 => draft.ttl(random.of(&[0, 1, 2])),
        _ => draft,
    }
}

/// Changes some bytes of some frames, and cuts some off. Addresses stay: the host's routes know
/// no others.
fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    if random.below(4) != 0 {
        return;
    }
    let mut l3 = 14;
    while matches!(frame[l3 - 2..l3], [0x81, 0] | [0x88, 0xa8]) {
        l3 += 4;
    }
    let addresses = if frame[l3] >> 4 == 4 { l3 + 12..l3 + 20 } else { l3 + 8..l3 + 40 };
    for _ in 0..random.below(3) {
        let at = random.below(frame.len() as u32) as usize;
        if !addresses.contains(&at) {
            frame[at] = random.below(256) as u8;
        }
    }
    if random.below(3) == 0 {
        frame.truncate(20 + random.below(frame.len() as u32 - 19) as usize);
    }
}
