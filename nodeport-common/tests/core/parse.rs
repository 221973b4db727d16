//! Headers of every form: what is understood is served, the rest goes up as it came.

use nodeport_common::abi::{Reason, Tags};
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::parse::ipv6::MAX_EXTENSIONS;
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, tcp, udp};

use crate::support::*;

const ARRIVING: [Hook; 2] = [Hook::Xdp, Hook::Ingress];

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NOTHING: u8 = 59;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// PadN over the rest of eight bytes.
const PADDED: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

#[track_caller]
fn assert_served<F: Net>(packet: &Draft) {
    for hook in ARRIVING {
        let node = Node::new();
        let out = node.walk(hook, &packet.build());
        assert_eq!((out.action, out.view().dst), (Action::Send(INSIDE), remote::<F>()), "{hook:?}");
        // And as one of a live flow, which is another path through the code.
        let again = node.walk(hook, &packet.build());
        assert_eq!(again.bytes, out.bytes);
    }
}

#[track_caller]
fn assert_passed<F: Net>(frame: &[u8], reason: Option<Reason>) {
    for hook in ARRIVING {
        let node = Node::new();
        let out = node.walk(hook, frame);
        assert_eq!((out.action, out.bytes.as_slice()), (Action::Pass, frame), "{hook:?}");
        // What XDP passes, TC sees again, and counts.
        let counted = reason.filter(|_| hook != Hook::Xdp);
        let expected: Vec<_> = counted.into_iter().map(|reason| (reason, 1)).collect();
        assert_eq!(node.world.counters().into_iter().collect::<Vec<_>>(), expected, "{hook:?}");
        assert!(node.halves::<F>().is_empty());
    }
}

fn drafts<F: Net>() -> [Draft; 2] {
    [tcp(client::<F>(), frontend::<F>(), SYN), udp(client::<F>(), frontend::<F>())]
}

#[test]
fn ipv4_options_are_stepped_over() {
    for draft in drafts::<V4>() {
        for length in (4..=40).step_by(4) {
            assert_served::<V4>(&draft.clone().options(&vec![1; length]));
        }
    }
}

#[test]
fn ipv6_extensions_are_stepped_over() {
    for draft in drafts::<V6>() {
        assert_served::<V6>(&draft.clone().extension(HOP_BY_HOP, &PADDED));
        assert_served::<V6>(&draft.clone().extension(DESTINATION, &PADDED));
        let mut long = [0; 64];
        (long[1], long[2], long[3]) = (7, 1, 60);
        assert_served::<V6>(&draft.clone().extension(DESTINATION, &long));
        // No segments left: it has arrived.
        assert_served::<V6>(&draft.clone().extension(ROUTING, &[0, 0, 4, 0, 0, 0, 0, 0]));
        // Length in units of four bytes, less two: 24 bytes.
        let mut authentication = [0; 24];
        authentication[1] = 4;
        assert_served::<V6>(&draft.clone().extension(AUTHENTICATION, &authentication));
    }
}

#[test]
fn ipv6_extensions_are_stepped_over_up_to_a_bound() {
    for draft in drafts::<V6>() {
        let chain = |length| {
            (0..length).fold(draft.clone(), |draft, _| draft.extension(DESTINATION, &PADDED))
        };
        // The last step of the walk is to see the transport header.
        assert_served::<V6>(&chain(MAX_EXTENSIONS));
        for length in [MAX_EXTENSIONS + 1, MAX_EXTENSIONS + 2, 20] {
            assert_passed::<V6>(&chain(length).build(), Some(Reason::Unparsed));
        }
    }
}

#[test]
fn ipv6_headers_beyond_reach_are_passed() {
    for draft in drafts::<V6>() {
        let mut long = [0; 2048];
        (long[1], long[2]) = (255, 1);
        let frame = draft.extension(DESTINATION, &long).build();
        assert_passed::<V6>(&frame, Some(Reason::Unparsed));
    }
}

#[test]
fn a_segment_routed_packet_is_the_kernels() {
    for draft in drafts::<V6>() {
        let frame = draft
            .extension(
                ROUTING,
                &[0, 2, 4, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
            )
            .build();
        assert_passed::<V6>(&frame, Some(Reason::Unparsed));
    }
}

#[test]
fn what_is_neither_tcp_nor_udp_is_passed() {
    for draft in drafts::<V6>() {
        for protocol in [NOTHING, MOBILITY, 50, 132, 200] {
            assert_passed::<V6>(&draft.clone().extension(protocol, &PADDED).build(), None);
        }
    }
    for protocol in [2, 41, 47, 50, 132, 255] {
        let mut frame = tcp(client::<V4>(), frontend::<V4>(), SYN).build();
        frame[23] = protocol;
        assert_passed::<V4>(&frame, None);
    }
}

#[test]
fn fragments_are_told_from_whole_packets() {
    for draft in drafts::<V4>() {
        // Behind the first: to XDP, all are TC's.
        for (offset, more) in [(0, true), (1, true), (185, false), (8191, false)] {
            for draft in [draft.clone(), draft.clone().options(&[1; 8])] {
                let frame = draft.fragment(offset, more).build();
                let out = Node::new().walk(Hook::Xdp, &frame);
                assert_eq!((out.action, out.bytes), (Action::Pass, frame));
            }
        }
        assert_served::<V4>(&draft.clone().may_fragment());
    }
    for draft in drafts::<V6>() {
        for header in [[0, 0, 0, 1, 9, 9, 9, 9], [0, 0, 5, 0, 9, 9, 9, 9]] {
            for draft in [draft.clone(), draft.clone().extension(HOP_BY_HOP, &PADDED)] {
                let frame = draft.extension(FRAGMENT, &header).build();
                let out = Node::new().walk(Hook::Xdp, &frame);
                assert_eq!((out.action, out.bytes), (Action::Pass, frame));
            }
        }
        // RFC 6946: a packet in one fragment is a whole one.
        let whole = [0, 0, 0, 0, 9, 9, 9, 9];
        assert_served::<V6>(&draft.clone().extension(FRAGMENT, &whole));
        assert_served::<V6>(&draft.extension(HOP_BY_HOP, &PADDED).extension(FRAGMENT, &whole));
    }
}

/// A fragment of a live flow, not the first: where the ports would be, there is data.
#[test]
fn fragments_of_a_live_flow_are_passed() {
    let node = Node::new();
    node.connect::<V4>(client::<V4>());
    let before = node.halves::<V4>();
    let frame = tcp(client::<V4>(), frontend::<V4>(), ACK).fragment(10, false).build();
    let out = node.xdp(&tcp(client::<V4>(), frontend::<V4>(), ACK).fragment(10, false));
    assert_eq!((out.action, out.bytes), (Action::Pass, frame));
    assert_eq!(node.halves::<V4>(), before);
}

fn tags_are_stepped_over<F: Net>() {
    for draft in drafts::<F>() {
        for kind in [0x8100, 0x88a8] {
            let one = draft.clone().tag(kind, 0xe007);
            let two = draft.clone().tag(kind, 0xefff).tag(0x8100, 8);
            assert_sent_below::<F>(&one, [tag(kind, 7), 0]);
            assert_sent_below::<F>(&two, [tag(kind, 0xfff), tag(0x8100, 8)]);
            let frame = draft.clone().tag(kind, 1).tag(0x8100, 2).tag(0x8100, 3).build();
            assert_passed::<F>(&frame, None);
        }
        // QinQ of before the standard.
        assert_passed::<F>(&draft.clone().tag(0x9100, 1).build(), None);
    }
}
in_both_families!(tags_are_stepped_over);

/// Served as a newcomer and as one of a live flow; in XDP, with the tags that it came with.
#[track_caller]
fn assert_sent_below<F: Net>(packet: &Draft, tags: Tags) {
    for (hook, action) in
        [(Hook::Xdp, Action::Send(INSIDE)), (Hook::Ingress, Action::Neighbour(INSIDE))]
    {
        let node = Node::new();
        node.put_behind::<F>(tags);
        let out = node.walk(hook, &packet.build());
        assert_eq!((out.action, out.view().dst), (action, remote::<F>()));
        assert_eq!(node.walk(hook, &packet.build()).bytes, out.bytes);
    }
}

/// XDP can put no tag on and take none off: TC can, so it gets the frame as it came, and alone
/// counts it.
fn what_leaves_with_other_tags_is_left_to_tc<F: Net>() {
    let none: fn(Draft) -> Draft = |draft| draft;
    let five: fn(Draft) -> Draft = |draft| draft.tag(0x8100, 5);
    let six: fn(Draft) -> Draft = |draft| draft.tag(0x8100, 6);
    let service: fn(Draft) -> Draft = |draft| draft.tag(0x88a8, 5);
    let both: fn(Draft) -> Draft = |draft| draft.tag(0x8100, 5).tag(0x8100, 6);
    for (hop, others) in [
        (None, vec![five, both]),
        (Some([tag(0x8100, 5), 0]), vec![none, six, service, both]),
        (Some([tag(0x8100, 5), tag(0x8100, 6)]), vec![none, five]),
    ] {
        let node = Node::new();
        if let Some(tags) = hop {
            node.put_behind::<F>(tags);
        }
        let assert_passed = |change: fn(Draft) -> Draft, flags| {
            let packet = change(tcp(client::<F>(), frontend::<F>(), flags));
            let before = node.halves::<F>();
            let out = node.xdp(&packet);
            assert_eq!((out.action, out.bytes), (Action::Pass, packet.build()), "{hop:?}");
            assert_eq!(node.halves::<F>(), before, "{hop:?}");
        };
        others.iter().for_each(|change| assert_passed(*change, SYN));
        let seen = node.ingress(&tcp(client::<F>(), frontend::<F>(), SYN)).view().src;
        node.ingress(&tcp(remote::<F>(), seen, SYN | ACK)).view();
        others.iter().for_each(|change| assert_passed(*change, ACK));
        node.ingress(&tcp(client::<F>(), frontend::<F>(), ACK)).view();
        others.iter().for_each(|change| assert_passed(*change, ACK));
    }
}
in_both_families!(what_leaves_with_other_tags_is_left_to_tc);

fn tags_stay_as_they_were<F: Net>() {
    let node = Node::new();
    node.put_behind::<F>([tag(0x88a8, 1), tag(0x8100, 2)]);
    let out = node.xdp(&drafts::<F>()[0].clone().tag(0x88a8, 0x2001).tag(0x8100, 0x6002));
    assert_eq!(out.action, Action::Send(INSIDE));
    assert_eq!(out.bytes[12..20], [0x88, 0xa8, 0x20, 0x01, 0x81, 0x00, 0x60, 0x02]);
}
in_both_families!(tags_stay_as_they_were);

fn a_frame_that_ends_inside_its_headers_is_passed<F: Net>() {
    let plain = tcp(client::<F>(), frontend::<F>(), SYN);
    let odd = match F::VERSION {
        4 => plain.clone().options(&[1; 12]),
        _ => plain.clone().extension(HOP_BY_HOP, &PADDED),
    };
    let datagram = udp(client::<F>(), frontend::<F>()).payload(&[]);
    for draft in [plain, odd.tag(0x8100, 1), datagram] {
        let whole = draft.build();
        for end in 0..whole.len() {
            for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                let node = Node::new();
                let out = node.walk(hook, &whole[..end]);
                assert_eq!((out.action, out.bytes.as_slice()), (Action::Pass, &whole[..end]));
                assert!(node.halves::<F>().is_empty(), "{end} of {} bytes", whole.len());
            }
        }
    }
}
in_both_families!(a_frame_that_ends_inside_its_headers_is_passed);

/// Offset of the length field, and what it counts beyond the IP header.
fn set_length<F: Net>(frame: &mut [u8], beyond: usize) {
    let (at, value) = if F::VERSION == 4 { (16, 20 + beyond) } else { (18, beyond) };
    frame[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// The IP header says that the packet ends inside the transport header: what lies behind is no
/// header, whatever it looks like.
fn a_packet_that_ends_inside_its_header_is_passed<F: Net>() {
    for (draft, header) in drafts::<F>().into_iter().zip([20, 8]) {
        for beyond in 0..header {
            let mut frame = draft.build();
            set_length::<F>(&mut frame, beyond);
            assert_passed::<F>(&frame, Some(Reason::Unparsed));
        }
    }
}
in_both_families!(a_packet_that_ends_inside_its_header_is_passed);

/// The kernel joins TCP segments to packets longer than the header can say, and says 0.
fn joined_segments_without_a_length_are_served<F: Net>() {
    use nodeport_common::core::host::SkbFrame;
    let node = Node::new();
    node.connect::<F>(client::<F>());
    let data = tcp(client::<F>(), frontend::<F>(), ACK).payload(&[5; 3000]);
    let too_long = MTU - F::HEADER as u16 - 19;
    for (gso_size, action) in [
        (1400, Action::Send(INSIDE)),
        // Joined of nothing: the header contradicts the frame.
        (0, Action::Pass),
        // Longer than the path, all the same: told so.
        (too_long, Action::Back(NIC)),
    ] {
        let mut frame = SkbFrame { gso_size, ..SkbFrame::new(data.build()) };
        let at = if F::VERSION == 4 { 16 } else { 18 };
        frame.bytes[at..at + 2].fill(0);
        assert_eq!(node.world.ingress(NIC, &mut frame).action(), action, "{gso_size}");
    }
    assert_eq!(node.world.count_of(Reason::Unparsed), 1);
    assert_eq!(node.world.count_of(Reason::TooBig), 1);
}
in_both_families!(joined_segments_without_a_length_are_served);

fn padding_behind_the_packet_stays<F: Net>() {
    for draft in drafts::<F>() {
        let frame = [draft.build(), vec![0; 6]].concat();
        let node = Node::new();
        let out = node.walk(Hook::Xdp, &frame);
        assert_eq!((out.action, out.bytes.len()), (Action::Send(INSIDE), frame.len()));
        assert_eq!(out.view().dst, remote::<F>());
    }
}
in_both_families!(padding_behind_the_packet_stays);

#[test]
fn ipv4_headers_that_contradict_themselves_are_passed() {
    for draft in drafts::<V4>() {
        let frame = draft.build();
        for first in [0x40, 0x41, 0x44, 0x00, 0x55, 0x65, 0xf5] {
            let mut bad = frame.clone();
            bad[14] = first;
            assert_passed::<V4>(&bad, Some(Reason::Unparsed));
        }
        // The packet ends inside its own options.
        let mut bad = draft.clone().options(&[1; 20]).build();
        bad[16..18].copy_from_slice(&[0, 30]);
        assert_passed::<V4>(&bad, Some(Reason::Unparsed));
    }
}

#[test]
fn ipv6_headers_that_contradict_themselves_are_passed() {
    for draft in drafts::<V6>() {
        for first in [0x00, 0x40, 0x45, 0x70] {
            let mut bad = draft.build();
            bad[14] = first;
            assert_passed::<V6>(&bad, Some(Reason::Unparsed));
        }
    }
}

#[test]
fn what_is_not_ip_is_passed() {
    for kind in [[0x08, 0x06], [0x88, 0xcc], [0x00, 0x2e], [0x86, 0xdc]] {
        let mut frame = tcp(client::<V4>(), frontend::<V4>(), SYN).build();
        frame[12..14].copy_from_slice(&kind);
        assert_passed::<V4>(&frame, None);
    }
}
