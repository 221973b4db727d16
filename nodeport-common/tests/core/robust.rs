//! Whatever arrives: no panic, no change to what is passed, the same at both hooks, and nothing
//! that depends on what the last packet left behind.

use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, tcp, udp};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::support::*;

const HOOKS: [Hook; 4] = [Hook::Xdp, Hook::Ingress, Hook::Egress, Hook::Pod];

/// A node with flows of every kind, and frames that belong to them.
fn busy<F: Net>() -> (Node, Vec<Draft>) {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.connect_local::<F>(client::<F>());
    node.xdp(&udp(client::<F>(), frontend::<F>())).view();
    let data = tcp(client::<F>(), frontend::<F>(), ACK).payload(b"data");
    let quote = tcp(seen, remote::<F>(), ACK).payload(b"data").packet();
    let kind = if F::VERSION == 4 { 3 } else { 1 };
    let error = Icmp { kind, code: 1, word: [0; 4] };
    let odd = match F::VERSION {
        4 => data.clone().options(&[1; 8]),
        _ => data.clone().extension(0, &[0, 0, 1, 4, 0, 0, 0, 0]),
    };
    let frames = vec![
        data.clone(),
        odd.tag(0x88a8, 5).tag(0x8100, 6),
        data.clone().ttl(1),
        tcp(remote::<F>(), seen, ACK),
        tcp(client::<F>(), frontend::<F>(), SYN),
        tcp(client::<F>(), frontend::<F>(), FIN | ACK),
        tcp(client::<F>(), frontend::<F>(), RST),
        tcp(client::<F>(), local_frontend::<F>(), ACK),
        tcp(local::<F>(), client::<F>(), ACK),
        udp(client::<F>(), frontend::<F>()),
        Draft::icmp(F::party(77, 1), seen.ip(), error, &quote),
        Draft::icmp(F::party(77, 1), seen.ip(), error, &quote[..F::HEADER + 8]),
    ];
    (node, frames)
}

/// Walks a frame; what is passed must be as it came.
fn walk(node: &Node, hook: Hook, frame: &[u8]) -> Out {
    let out = node.walk(hook, frame);
    if out.action == Action::Pass {
        assert_eq!(out.bytes, frame, "passed, but changed");
    }
    out
}

fn any_frame_of_ours<F: Net>(
    which: Index,
    flips: &[(Index, u8)],
    end: Option<Index>,
) -> (Node, Vec<u8>) {
    let (node, frames) = busy::<F>();
    let mut frame = which.get(&frames).build();
    for (at, value) in flips {
        let length = frame.len();
        frame[at.index(length)] = *value;
    }
    if let Some(end) = end {
        frame.truncate(end.index(frame.len() + 1));
    }
    (node, frame)
}

fn every_byte_with_every_value<F: Net>() {
    let (_, frames) = busy::<F>();
    for draft in frames {
        let frame = draft.build();
        let (node, _) = busy::<F>();
        node.world.change_control(|control| control.errors_per_second = u32::MAX);
        for at in 0..frame.len() {
            for value in [0, 1, 0x0f, 0x7f, 0x80, 0xf0, 0xff, frame[at] ^ 1, frame[at] ^ 0x10] {
                let mut changed = frame.clone();
                changed[at] = value;
                for hook in HOOKS {
                    walk(&node, hook, &changed);
                }
            }
        }
    }
}
in_both_families!(every_byte_with_every_value);

/// A frame, and whatever ran before it: `prior` leaves its traces in the working area.
fn forgets_the_last_packet<F: Net>(prior: Index, next: Index) {
    let (used, frames) = busy::<F>();
    let (fresh, _) = busy::<F>();
    // The same tables and clock, but a working area that another packet has used: one that opens
    // nothing and changes nothing.
    let work = {
        let (other, _) = busy::<F>();
        for hook in HOOKS {
            other.walk(hook, &prior.get(&frames).build());
        }
        *F::maps(&other.world).work.borrow()
    };
    *F::maps(&used.world).work.borrow_mut() = work;
    for hook in HOOKS {
        let frame = next.get(&frames).build();
        let (a, b) = (walk(&used, hook, &frame), walk(&fresh, hook, &frame));
        assert_eq!((a.action, a.bytes), (b.action, b.bytes), "{hook:?}");
        assert_eq!(used.halves::<F>(), fresh.halves::<F>(), "{hook:?}");
        assert_eq!(used.world.counters(), fresh.world.counters(), "{hook:?}");
    }
}

/// XDP and TC decide the same on the same packets, as far as both can deliver.
fn both_hooks_agree<F: Net>(steps: &[(u8, u8, u8)]) {
    let (xdp, tc) = (Node::new(), Node::new());
    let mut seen = None;
    for (kind, client, wait) in steps {
        let client = std::net::SocketAddr::new(client_ip::<F>(), 5000 + u16::from(client % 3));
        let back = seen.unwrap_or(client);
        let draft = match kind % 10 {
            0 | 1 => tcp(client, frontend::<F>(), SYN),
            2 => tcp(client, frontend::<F>(), ACK).payload(b"data"),
            3 => tcp(client, frontend::<F>(), FIN | ACK),
            4 => tcp(client, frontend::<F>(), RST).ttl(kind / 10),
            5 => tcp(remote::<F>(), back, SYN | ACK),
            6 => tcp(remote::<F>(), back, FIN | ACK),
            7 => udp(client, frontend::<F>()),
            8 => udp(remote::<F>(), back),
            _ => tcp(client, local_frontend::<F>(), SYN),
        };
        let frame = draft.build();
        let (a, b) = (walk(&xdp, Hook::Xdp, &frame), walk(&tc, Hook::Ingress, &frame));
        assert_eq!((a.action, &a.bytes), (b.action, &b.bytes), "{draft:?}");
        assert_eq!(xdp.halves::<F>(), tc.halves::<F>(), "{draft:?}");
        if a.action == Action::Pass {
            // Behind XDP sits TC, and counts what is passed.
            assert_eq!(walk(&xdp, Hook::Ingress, &frame).action, Action::Pass);
        }
        assert_eq!(xdp.world.counters(), tc.world.counters());
        if a.action == Action::Send(INSIDE) {
            seen = Some(a.view().src);
        }
        xdp.world.wait(u32::from(*wait) * 16);
        tc.world.wait(u32::from(*wait) * 16);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..200), v6: bool,
        hook in select(&HOOKS[..]), headed: bool,
    ) {
        let mut frame = bytes;
        if headed && frame.len() > 15 {
            let (kind, first) = if v6 { ([0x86, 0xdd], 0x60) } else { ([8, 0], 0x45) };
            frame[12..14].copy_from_slice(&kind);
            frame[14] = first;
        }
        walk(&busy::<V4>().0, hook, &frame);
        walk(&busy::<V6>().0, hook, &frame);
    }

    #[test]
    fn frames_with_flipped_bytes_ipv4(
        which: Index, flips in prop::collection::vec(any::<(Index, u8)>(), 0..4),
        end in prop::option::of(any::<Index>()), hook in select(&HOOKS[..]),
    ) {
        let (node, frame) = any_frame_of_ours::<V4>(which, &flips, end);
        walk(&node, hook, &frame);
    }

    #[test]
    fn frames_with_flipped_bytes_ipv6(
        which: Index, flips in prop::collection::vec(any::<(Index, u8)>(), 0..4),
        end in prop::option::of(any::<Index>()), hook in select(&HOOKS[..]),
    ) {
        let (node, frame) = any_frame_of_ours::<V6>(which, &flips, end);
        walk(&node, hook, &frame);
    }

    #[test]
    fn nothing_of_the_last_packet_is_used(prior: Index, next: Index) {
        forgets_the_last_packet::<V4>(prior, next);
        forgets_the_last_packet::<V6>(prior, next);
    }

    #[test]
    fn xdp_and_tc_agree(steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..30)) {
        both_hooks_agree::<V4>(&steps);
        both_hooks_agree::<V6>(&steps);
    }
}
