//! ICMP errors along a flow: who sent the packet gets the error about the packet that it sent.

use std::net::{IpAddr, SocketAddr};

use nodeport_common::abi::Reason;
use nodeport_common::core::env::Hook;
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Icmp, Transport, quote_faults, tcp};

use crate::support::*;

const ARRIVING: [Hook; 2] = [Hook::Xdp, Hook::Ingress];

/// Errors of a family: unreachable, too big, time exceeded, parameter problem.
fn errors<F: Net>() -> [Icmp; 4] {
    let word = [0, 0, 5, 100];
    match F::VERSION {
        4 => [(3, 3), (3, 4), (11, 0), (12, 0)],
        _ => [(1, 4), (2, 0), (3, 0), (4, 1)],
    }
    .map(|(kind, code)| Icmp { kind, code, word })
}

/// A router on somebody's path.
fn router<F: Net>() -> IpAddr {
    F::party(77, 1)
}

/// What is quoted of a packet: it and no more than `keep` bytes of its transport header and
/// payload.
fn quote<F: Net>(packet: &Draft, keep: usize) -> Vec<u8> {
    let mut bytes = packet.packet();
    bytes.truncate(F::HEADER + keep);
    bytes
}

/// The quoted packet of an error, which is checked.
#[track_caller]
fn quoted(out: &Out, message: Icmp) -> Vec<u8> {
    let view = out.view();
    assert_eq!((view.payload[0], view.payload[1]), (message.kind, message.code));
    assert_eq!(view.payload[4..8], message.word);
    let quote = view.payload[8..].to_vec();
    assert_eq!(quote_faults(&quote), Vec::<String>::new());
    quote
}

/// Which transports a family's flows are tried with.
fn transports<F: Net>() -> Vec<Transport> {
    let mut all = vec![Transport::Tcp(SYN), Transport::Udp];
    if F::VERSION == 4 {
        all.push(Transport::UdpUnsummed);
    }
    all
}

fn from_the_backends_side_to_the_client<F: Net>() {
    for hook in ARRIVING {
        for transport in transports::<F>() {
            for keep in [8, 12, 17, 18, 20, 24, 200] {
                for message in errors::<F>() {
                    let node = Node::new();
                    let sent = draft(transport, client::<F>(), frontend::<F>());
                    let seen = node.walk(hook, &sent.build()).view().src;
                    let passed_on = draft(transport, seen, remote::<F>()).ttl(63);
                    let error = Draft::icmp(
                        router::<F>(),
                        seen.ip(),
                        message,
                        &quote::<F>(&passed_on, keep),
                    );
                    let out = node.walk(hook, &error.build());
                    assert_eq!(out.action, Action::Send(NIC));
                    let view = out.view();
                    // The client knows the frontend only; what is behind stays hidden.
                    assert_eq!((view.src.ip(), view.dst.ip()), (node_ip::<F>(), client_ip::<F>()));
                    assert_eq!((view.dst_mac, view.ttl), (CLIENT_MAC, 63));
                    let original = quote::<F>(&sent.clone().ttl(63), keep);
                    // Half a checksum cannot be brought up to date.
                    let whole = if keep == 17 { F::HEADER + 16 } else { original.len() };
                    let quoted = quoted(&out, message);
                    assert_eq!(quoted[..whole], original[..whole], "{transport:?}, {keep} bytes");
                    assert_eq!(quoted.len(), original.len());
                    assert_eq!(node.world.count_of(Reason::IcmpTranslated), 1);
                }
            }
        }
    }
}
in_both_families!(from_the_backends_side_to_the_client);

fn from_the_clients_side_to_the_backend<F: Net>() {
    for hook in ARRIVING {
        for transport in transports::<F>() {
            for keep in [8, 20, 200] {
                for message in errors::<F>() {
                    let node = Node::new();
                    let sent = draft(transport, client::<F>(), frontend::<F>());
                    let seen = node.walk(hook, &sent.build()).view().src;
                    let answer = draft(transport, remote::<F>(), seen);
                    node.walk(hook, &answer.build()).view();
                    let passed_on = draft(transport, frontend::<F>(), client::<F>()).ttl(63);
                    let error = Draft::icmp(
                        router::<F>(),
                        node_ip::<F>(),
                        message,
                        &quote::<F>(&passed_on, keep),
                    );
                    let out = node.walk(hook, &error.build());
                    assert_eq!(out.action, Action::Send(INSIDE));
                    let view = out.view();
                    assert_eq!(
                        (view.src.ip(), view.dst.ip()),
                        (inside_ip::<F>(), remote_ip::<F>())
                    );
                    let original = quote::<F>(&answer.ttl(63), keep);
                    assert_eq!(quoted(&out, message), original, "{transport:?}, {keep} bytes");
                }
            }
        }
    }
}
in_both_families!(from_the_clients_side_to_the_backend);

fn from_a_backend_on_this_node<F: Net>() {
    for message in errors::<F>() {
        for keep in [8, 200] {
            let node = Node::new();
            let sent = draft(Transport::Udp, client::<F>(), local_frontend::<F>());
            node.ingress(&sent).view();
            let delivered = draft(Transport::Udp, client::<F>(), local::<F>());
            for from in [local_ip::<F>(), node_ip::<F>()] {
                let quoted_bytes = quote::<F>(&delivered, keep);
                let error = Draft::icmp(from, client_ip::<F>(), message, &quoted_bytes);
                let out = node.egress(&error);
                assert_eq!(out.action, Action::Stack);
                let view = out.view();
                assert_eq!((view.src.ip(), view.dst.ip()), (node_ip::<F>(), client_ip::<F>()));
                assert_eq!(view.ttl, 64);
                assert_eq!(quoted(&out, message), quote::<F>(&sent, keep));
            }
        }
    }
}
in_both_families!(from_a_backend_on_this_node);

fn to_a_backend_on_this_node<F: Net>() {
    for hook in ARRIVING {
        for message in errors::<F>() {
            let node = Node::new();
            node.connect_local::<F>(client::<F>());
            let answer = draft(Transport::Tcp(ACK), local::<F>(), client::<F>());
            node.egress(&answer).view();
            let passed_on = draft(Transport::Tcp(ACK), local_frontend::<F>(), client::<F>());
            let quoted_bytes = quote::<F>(&passed_on, 8);
            let error = Draft::icmp(router::<F>(), node_ip::<F>(), message, &quoted_bytes);
            let out = node.walk(hook, &error.build());
            assert_eq!(out.action, Action::Stack);
            let view = out.view();
            assert_eq!((view.src.ip(), view.dst.ip()), (router::<F>(), local_ip::<F>()));
            assert_eq!(quoted(&out, message), quote::<F>(&answer, 8));
        }
    }
}
in_both_families!(to_a_backend_on_this_node);

fn behind_tags_and_options<F: Net>() {
    let node = Node::new();
    let sent = draft(Transport::Tcp(SYN), client::<F>(), frontend::<F>());
    let seen = node.xdp(&sent).view().src;
    let passed_on = draft(Transport::Tcp(SYN), seen, remote::<F>()).ttl(63);
    let message = errors::<F>()[0];
    let error = Draft::icmp(router::<F>(), seen.ip(), message, &quote::<F>(&passed_on, 8));
    let odd = match F::VERSION {
        4 => error.options(&[7, 7, 4, 0, 0, 0, 0, 0]),
        _ => error.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]),
    };
    let odd = odd.tag(0x8100, 5).tag(0x8100, 6);
    assert_eq!(node.xdp(&odd).action, Action::Pass, "its receiver has no such tags");
    node.put_behind::<F>([tag(0x8100, 5), tag(0x8100, 6)]);
    node.world.change_control(|control| control.epoch += 1);
    let out = node.xdp(&odd);
    assert_eq!((out.action, out.view().tags), (Action::Send(NIC), 2));
    assert_eq!(quoted(&out, message), quote::<F>(&sent.ttl(63), 8));
}
in_both_families!(behind_tags_and_options);

fn about_a_packet_with_options<F: Net>() {
    let node = Node::new();
    let odd = |draft: Draft| match F::VERSION {
        4 => draft.options(&[7, 7, 4, 0, 0, 0, 0, 0]),
        _ => draft.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]),
    };
    let sent = odd(draft(Transport::Tcp(SYN), client::<F>(), frontend::<F>()));
    let seen = node.xdp(&sent).view().src;
    let passed_on = odd(draft(Transport::Tcp(SYN), seen, remote::<F>())).ttl(63);
    let message = errors::<F>()[1];
    let error = Draft::icmp(router::<F>(), seen.ip(), message, &quote::<F>(&passed_on, 16));
    let out = node.xdp(&error);
    assert_eq!(quoted(&out, message), quote::<F>(&sent.ttl(63), 16));
}
in_both_families!(about_a_packet_with_options);

/// What lies in the frame behind the IP packet is no part of the message.
fn with_something_behind_the_packet<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let sent = draft(Transport::Tcp(SYN), client::<F>(), frontend::<F>());
        let seen = node.walk(hook, &sent.build()).view().src;
        let passed_on = draft(Transport::Tcp(SYN), seen, remote::<F>()).ttl(63);
        let message = errors::<F>()[0];
        let error = Draft::icmp(router::<F>(), seen.ip(), message, &quote::<F>(&passed_on, 8));
        let trailer = [0xa5; 30];
        let out = node.walk(hook, &[error.build(), trailer.to_vec()].concat());
        assert_eq!(out.action, Action::Send(NIC));
        assert_eq!(out.bytes[out.bytes.len() - trailer.len()..], trailer);
        assert_eq!(quoted(&out, message), quote::<F>(&sent.ttl(63), 8));
    }
}
in_both_families!(with_something_behind_the_packet);

/// A quote that ends, by the length of the packet, before the ports: they are not ours to read.
fn whose_quote_is_cut_short<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let sent = draft(Transport::Tcp(SYN), client::<F>(), frontend::<F>());
        let seen = node.walk(hook, &sent.build()).view().src;
        let passed_on = draft(Transport::Tcp(SYN), seen, remote::<F>()).packet();
        for keep in 0..F::HEADER + 8 {
            let message = errors::<F>()[0];
            let error = Draft::icmp(router::<F>(), seen.ip(), message, &passed_on[..keep]);
            // The rest of it stands behind the end.
            let frame = [error.build(), passed_on[keep..].to_vec()].concat();
            let out = node.walk(hook, &frame);
            assert_eq!((out.action, &out.bytes), (Action::Pass, &frame), "{keep} bytes");
        }
    }
}
in_both_families!(whose_quote_is_cut_short);

fn about_no_flow_of_ours<F: Net>() {
    for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        let before = node.halves::<F>();
        let off = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port() ^ 1);
        for (src, dst) in [
            (off(seen), remote::<F>()),
            (seen, off(remote::<F>())),
            (remote::<F>(), seen),
            (frontend::<F>(), off(client::<F>())),
            (client::<F>(), frontend::<F>()),
        ] {
            for message in errors::<F>() {
                let about = tcp(src, dst, ACK).packet();
                let error = Draft::icmp(router::<F>(), src.ip(), message, &about).build();
                let out = node.walk(hook, &error);
                assert_eq!((out.action, out.bytes), (Action::Pass, error), "{src} > {dst}");
            }
        }
        assert_eq!(node.halves::<F>(), before);
    }
}
in_both_families!(about_no_flow_of_ours);

/// Errors are easily forged: even those that match a flow change nothing about it.
fn errors_change_no_flow<F: Net>() {
    for hook in ARRIVING {
        let node = Node::new();
        let seen = node.connect::<F>(client::<F>());
        let before = node.halves::<F>();
        node.world.wait(5 * HZ);
        node.world.change_control(|control| control.epoch += 1);
        for message in errors::<F>() {
            let about = tcp(seen, remote::<F>(), ACK).packet();
            let out =
                node.walk(hook, &Draft::icmp(router::<F>(), seen.ip(), message, &about).build());
            assert_eq!(out.action, Action::Send(NIC));
        }
        assert_eq!(node.halves::<F>(), before);
    }
}
in_both_families!(errors_change_no_flow);

fn about_a_flow_whose_backend_is_gone<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    node.end_backend::<F>(REMOTE_BACKEND);
    let about = tcp(seen, remote::<F>(), ACK).packet();
    let error = Draft::icmp(router::<F>(), seen.ip(), errors::<F>()[0], &about).build();
    let out = node.xdp(&Draft::icmp(router::<F>(), seen.ip(), errors::<F>()[0], &about));
    assert_eq!((out.action, out.bytes), (Action::Pass, error));
    assert_eq!(node.halves::<F>().len(), 2, "errors end nothing");
}
in_both_families!(about_a_flow_whose_backend_is_gone);

fn at_the_end_of_their_own_hops<F: Net>() {
    for hook in ARRIVING {
        for ttl in [0, 1] {
            let node = Node::new();
            let seen = node.connect::<F>(client::<F>());
            let about = tcp(seen, remote::<F>(), ACK).packet();
            let error = Draft::icmp(router::<F>(), seen.ip(), errors::<F>()[0], &about).ttl(ttl);
            assert_eq!(node.walk(hook, &error.build()).action, Action::Drop);
            assert_eq!(node.world.count_of(Reason::TtlExceeded), 1);
            assert_eq!(node.world.count_of(Reason::IcmpTranslated), 0);
        }
    }
}
in_both_families!(at_the_end_of_their_own_hops);

fn what_is_no_error_is_left_alone<F: Net>() {
    let node = Node::new();
    let seen = node.connect::<F>(client::<F>());
    let about = tcp(seen, remote::<F>(), ACK).packet();
    let others =
        if F::VERSION == 4 { vec![0, 4, 5, 8, 13, 30] } else { vec![0, 5, 100, 128, 129, 135] };
    for kind in others {
        let message = Icmp { kind, code: 0, word: [0; 4] };
        for hook in ARRIVING {
            let frame = Draft::icmp(router::<F>(), seen.ip(), message, &about).build();
            let out = node.walk(hook, &frame);
            assert_eq!((out.action, out.bytes), (Action::Pass, frame), "type {kind}");
        }
    }
}
in_both_families!(what_is_no_error_is_left_alone);
