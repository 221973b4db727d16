//! Fragments: whatever order they come in, what the receiver puts together is the packet that was
//! sent, translated; and those that never become a packet harm nobody.

use nodeport_common::abi::{HOP_POD, HOP_STACK, NextHop, PORT_FRONTEND, Reason};
use nodeport_common::core::env::Hook;
use nodeport_common::core::fragment::{Limits, MOST_WAITING};
use nodeport_common::core::host::{Answer, SkbFrame};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Transport, View, cut, faults, join};
use proptest::prelude::*;

use crate::support::*;

/// Bytes of a packet behind its IP header that fit into a fragment.
const SIZE: usize = 1_448;

/// The limits that a world begins with.
const LIMITS: Limits = Limits { seed: 1, sets: 1_024, waiting: 512, timeout: 1_250 };

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// What came of frames, one after the other, each with what was sent on by it.
struct Outcome {
    /// The frames that went on, in order.
    out: Vec<(Action, Vec<u8>)>,
    /// Those that were passed as they came.
    passed: Vec<Vec<u8>>,
}

/// Gives frames to a hook; what is sent on is met at the same hook again.
fn walk(node: &Node, hook: Hook, frames: impl IntoIterator<Item = Vec<u8>>) -> Outcome {
    let mut outcome = Outcome { out: Vec::new(), passed: Vec::new() };
    for frame in frames {
        let mut next = vec![frame];
        for _ in 0..1_000 {
            let Some(frame) = next.pop() else { break };
            let out = node.walk(hook, &frame);
            match out.action {
                Action::Pass => outcome.passed.push(out.bytes),
                Action::Drop => {}
                action => outcome.out.push((action, out.bytes)),
            }
            next.extend(node.world.ring.sent.borrow_mut().drain(..).map(|(_, frame)| frame));
        }
        assert!(next.is_empty(), "frames go round and round");
    }
    outcome
}

impl Outcome {
    /// The packet that the receiver gets, if all of it went the same way.
    #[track_caller]
    fn packet(&self, action: Action) -> View {
        assert!(self.out.iter().all(|(taken, _)| *taken == action), "all of it goes one way");
        let frames: Vec<_> = self.out.iter().map(|(_, frame)| frame.clone()).collect();
        let whole = join(&frames).expect("all of it goes on");
        assert_eq!(faults(&whole), Vec::<String>::new());
        View::new(&whole).expect("faults would have told")
    }
}

/// A datagram in fragments.
fn datagram(
    src: std::net::SocketAddr,
    dst: std::net::SocketAddr,
    length: usize,
    id: u32,
) -> Vec<Vec<u8>> {
    cut(&draft(Transport::Udp, src, dst).payload(&payload(length)).build(), SIZE, id)
}

fn reversed(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.reverse();
    frames
}

/// Lets the node's inner address, at which backends elsewhere answer, be its own.
fn node<F: Net>() -> Node {
    let node = Node::new();
    let hop = NextHop { kind: HOP_STACK, epoch: 1, ..NextHop::default() };
    let own = Answer { from: F::bytes(inside_ip::<F>()), hop, watched: false, to_pod: false };
    F::maps(&node.world).routes.borrow_mut().insert(F::bytes(inside_ip::<F>()), own);
    node
}

/// Both ways, with the fragments of each in an order of its own.
fn there_and_back<F: Net>(order: impl Fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>, length: usize) {
    let node = node::<F>();
    let there = order(datagram(client::<F>(), frontend::<F>(), length, 7));
    let count = there.len();
    let went = walk(&node, Hook::Ingress, there);
    let seen = went.packet(Action::Send(INSIDE));
    assert_eq!((seen.src.ip(), seen.dst), (inside_ip::<F>(), remote::<F>()));
    assert_eq!((seen.payload, seen.ttl), (payload(length), 63));
    assert!(went.passed.is_empty());

    let back = order(datagram(remote::<F>(), seen.src, length, 7));
    let came = walk(&node, Hook::Ingress, back).packet(Action::Send(NIC));
    assert_eq!((came.src, came.dst), (frontend::<F>(), client::<F>()));
    assert_eq!(came.payload, payload(length));
    assert_paired::<F>(&node);
    assert!(node.world.ring.is_empty(), "nothing waits any more");
    assert_eq!(node.halves::<F>().len(), 2, "one flow");
    let packets: u64 = node.halves::<F>().iter().map(|(_, _, flow)| flow.packets).sum();
    assert_eq!(packets, 2 * count as u64, "every fragment counts");
}

fn in_order<F: Net>() {
    for length in [1_500, 4_000, 60_000] {
        there_and_back::<F>(|frames| frames, length);
    }
}
in_both_families!(in_order);

fn first_one_last<F: Net>() {
    for length in [1_500, 4_000, 60_000] {
        there_and_back::<F>(reversed, length);
    }
}
in_both_families!(first_one_last);

fn duplicated<F: Net>() {
    let twice =
        |frames: Vec<Vec<u8>>| frames.into_iter().flat_map(|f| [f.clone(), f]).collect::<Vec<_>>();
    let node = node::<F>();
    for frames in [
        datagram(client::<F>(), frontend::<F>(), 4_000, 1),
        reversed(datagram(client::<F>(), frontend::<F>(), 4_000, 2)),
    ] {
        let went = walk(&node, Hook::Ingress, twice(frames));
        assert_eq!(went.out.len(), 6, "duplicates are the receiver's");
        assert_eq!(went.packet(Action::Send(INSIDE)).payload, payload(4_000));
    }
    assert_eq!(node.halves::<F>().len(), 2, "one flow");
}
in_both_families!(duplicated);

/// What overlaps goes on as it is: which of both counts is for the receiver to say.
fn overlapping<F: Net>() {
    let node = node::<F>();
    let frames = datagram(client::<F>(), frontend::<F>(), 4_000, 1);
    let mut other = frames[1].clone();
    let last = other.len() - 1;
    other[last] ^= 0xff;
    let went = walk(&node, Hook::Ingress, [frames[0].clone(), frames[1].clone(), other.clone()]);
    assert_eq!(went.out.len(), 3);
    assert_eq!(went.out[2].1.last(), other.last());
    assert_ne!(went.out[1].1.last(), other.last());
}
in_both_families!(overlapping);

fn local_backends_through_the_stack<F: Net>() {
    for order in [(|frames| frames) as fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>, reversed] {
        let node = node::<F>();
        let there = order(datagram(client::<F>(), local_frontend::<F>(), 4_000, 3));
        let seen = walk(&node, Hook::Ingress, there).packet(Action::Stack);
        assert_eq!((seen.src, seen.dst), (client::<F>(), local::<F>()));
        assert_eq!((seen.payload, seen.ttl), (payload(4_000), 64));
        let back = order(datagram(local::<F>(), client::<F>(), 4_000, 3));
        let passed = walk(&node, Hook::Pod, back.clone());
        assert!(passed.out.is_empty() && passed.passed.len() == 3, "not met at the veth");
        let came = walk(&node, Hook::Egress, back).packet(Action::Stack);
        assert_eq!((came.src, came.dst), (local_frontend::<F>(), client::<F>()));
        assert_eq!(came.payload, payload(4_000));
    }
}
in_both_families!(local_backends_through_the_stack);

fn local_backends_in_fast_mode<F: Net>() {
    for order in [(|frames| frames) as fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>, reversed] {
        let node = node::<F>();
        node.world.change_control(|control| control.fast_local = 1);
        let hop = NextHop {
            ifindex: POD_LINK,
            dst_mac: [2, 0, 0, 0, 5, 20],
            src_mac: [2, 0, 0, 0, 5, 1],
            mtu: MTU,
            epoch: 1,
            kind: HOP_POD,
            ..NextHop::default()
        };
        let answer = Answer { from: F::bytes(node_ip::<F>()), hop, watched: false, to_pod: true };
        F::maps(&node.world).routes.borrow_mut().insert(F::bytes(local_ip::<F>()), answer);
        let there = order(datagram(client::<F>(), local_frontend::<F>(), 4_000, 3));
        let seen = walk(&node, Hook::Ingress, there).packet(Action::Pod(POD_LINK));
        assert_eq!((seen.src, seen.dst, seen.ttl), (client::<F>(), local::<F>(), 63));
        let back = order(datagram(local::<F>(), client::<F>(), 4_000, 3));
        let came = walk(&node, Hook::Pod, back).packet(Action::Send(NIC));
        assert_eq!((came.src, came.dst), (local_frontend::<F>(), client::<F>()));
        assert_eq!(came.payload, payload(4_000));
    }
}
in_both_families!(local_backends_in_fast_mode);

fn tcp_segments<F: Net>() {
    let node = node::<F>();
    let seen = node.connect::<F>(client::<F>());
    let segment = draft(Transport::Tcp(ACK), client::<F>(), frontend::<F>());
    let frames = cut(&segment.payload(&payload(4_000)).build(), SIZE, 1);
    let went = walk(&node, Hook::Ingress, reversed(frames)).packet(Action::Send(INSIDE));
    assert_eq!((went.src, went.dst, went.payload), (seen, remote::<F>(), payload(4_000)));
}
in_both_families!(tcp_segments);

/// Two clients whose packets bear the same number, piece by piece side by side.
fn packets_of_two_clients_stay_apart<F: Net>() {
    let node = node::<F>();
    let other = std::net::SocketAddr::new(F::party(9, 8), 40_000);
    let client_route = F::maps(&node.world).routes.borrow()[&F::bytes(client_ip::<F>())];
    F::maps(&node.world).routes.borrow_mut().insert(F::bytes(other.ip()), client_route);
    let (mine, theirs) = (
        reversed(datagram(client::<F>(), frontend::<F>(), 4_000, 9)),
        reversed(datagram(other, frontend::<F>(), 4_000, 9)),
    );
    let mixed: Vec<_> = mine.into_iter().zip(theirs).flat_map(|(a, b)| [a, b]).collect();
    let went = walk(&node, Hook::Ingress, mixed);
    assert_eq!((went.out.len(), went.passed.len()), (6, 0));
    let halves = node.halves::<F>();
    assert_eq!(halves.len(), 4, "two flows");
    for (_, _, flow) in halves.iter().filter(|(_, _, flow)| !is_reply(flow)) {
        assert_eq!(flow.packets, 3, "each with its own fragments");
    }
}
in_both_families!(packets_of_two_clients_stay_apart);

/// What others get in fragments is theirs, in any order.
fn what_is_not_ours_is_passed_whole<F: Net>() {
    for order in [(|frames| frames) as fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>, reversed] {
        let node = node::<F>();
        let closed = std::net::SocketAddr::new(node_ip::<F>(), 4_500);
        let frames = datagram(client::<F>(), closed, 4_000, 3);
        let went = walk(&node, Hook::Ingress, order(frames.clone()));
        assert!(went.out.is_empty());
        let passed = join(&went.passed).expect("all of it");
        assert_eq!(Some(passed), join(&frames));
        assert_eq!(node.world.count_of(Reason::Fragment), 3);
        // What only passes through the node does not even wait.
        let through =
            datagram(client::<F>(), std::net::SocketAddr::new(F::party(77, 1), 9), 4_000, 4);
        let went = walk(&node, Hook::Ingress, reversed(through.clone()));
        assert_eq!(went.passed, reversed(through));
        assert!(node.world.ring.is_empty());
    }
}
in_both_families!(what_is_not_ours_is_passed_whole);

fn the_rest_of_what_is_refused_goes_nowhere<F: Net>() {
    for order in [(|frames| frames) as fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>, reversed] {
        let node = node::<F>();
        for frontend in F::maps(&node.world).frontends.borrow_mut().values_mut() {
            frontend.slots_len = 0;
        }
        let went =
            walk(&node, Hook::Ingress, order(datagram(client::<F>(), frontend::<F>(), 4_000, 3)));
        assert_eq!((went.out.len(), went.passed.len()), (1, 0), "one error");
        assert_eq!(went.out[0].0, Action::Back(NIC));
        assert_eq!(node.world.count_of(Reason::NoBackend), 1);
        assert_eq!(node.world.count_of(Reason::FragmentDropped), 2);
    }
}
in_both_families!(the_rest_of_what_is_refused_goes_nowhere);

/// RFC 1122, 3.2.2: errors are about first fragments alone.
fn no_errors_about_later_ones<F: Net>() {
    for (ttl, mtu, reason) in [(1, MTU, Reason::TtlExceeded), (64, 1_000, Reason::TooBig)] {
        let node = node::<F>();
        // A live flow, whose way is narrow from now on.
        let first = datagram(client::<F>(), frontend::<F>(), 1_500, 1);
        walk(&node, Hook::Ingress, first[..1].to_vec());
        if let Some(answer) =
            F::maps(&node.world).routes.borrow_mut().get_mut(&F::bytes(remote_ip::<F>()))
        {
            answer.hop.mtu = mtu;
        }
        node.world.change_control(|control| control.epoch += 1);
        let draft = draft(Transport::Udp, client::<F>(), frontend::<F>()).ttl(ttl);
        let later = cut(&draft.payload(&payload(4_000)).build(), SIZE, 1).remove(1);
        let went = walk(&node, Hook::Ingress, [later]);
        assert!(went.out.is_empty() && went.passed.is_empty());
        assert_eq!(node.world.count_of(reason), 1);
    }
}
in_both_families!(no_errors_about_later_ones);

fn what_waits_too_long_is_lost<F: Net>() {
    let node = node::<F>();
    let frames = datagram(client::<F>(), frontend::<F>(), 4_000, 3);
    walk(&node, Hook::Ingress, frames[1..].to_vec());
    node.world.wait(LIMITS.timeout);
    let went = walk(&node, Hook::Ingress, frames[..1].to_vec());
    assert_eq!(went.out.len(), 1, "the first one alone");
    assert_eq!(node.world.count_of(Reason::FragmentSent), 0);
    // A number that comes again is another packet's.
    node.world.wait(LIMITS.timeout);
    let again = datagram(client::<F>(), frontend::<F>(), 4_000, 3);
    let went = walk(&node, Hook::Ingress, reversed(again));
    assert_eq!(went.packet(Action::Send(INSIDE)).payload, payload(4_000));
}
in_both_families!(what_waits_too_long_is_lost);

fn a_flow_that_ended_takes_its_fragments_along<F: Net>() {
    let node = node::<F>();
    let frames = datagram(client::<F>(), frontend::<F>(), 4_000, 3);
    walk(&node, Hook::Ingress, frames[..1].to_vec());
    node.end_backend::<F>(REMOTE_BACKEND);
    let went = walk(&node, Hook::Ingress, frames[1..].to_vec());
    assert!(went.out.is_empty() && went.passed.is_empty());
    assert_eq!(node.world.count_of(Reason::FragmentDropped), 2);
}
in_both_families!(a_flow_that_ended_takes_its_fragments_along);

/// Fragments that never become a packet: they take no more than there is, packets that come in order
/// do not suffer, nor do those whose last fragment came a moment ago, nor others' packets.
fn a_flood<F: Net>() {
    let node = node::<F>();
    let junk = |id| datagram(client::<F>(), frontend::<F>(), 1_500, 1_000_000 + id).remove(1);
    for id in 0..5_000 {
        walk(&node, Hook::Ingress, [junk(id)]);
    }
    assert_eq!(node.world.ring.len(), LIMITS.waiting as usize);
    let sets = F::maps(&node.world).datagrams.borrow().len();
    assert!(sets <= LIMITS.sets as usize, "{sets}");
    let ousted = node.world.count_of(Reason::FragmentOusted);
    assert_eq!(ousted, 5_000 - u64::from(LIMITS.waiting));

    // In order, with junk between the parts.
    let frames = datagram(client::<F>(), frontend::<F>(), 60_000, 1);
    let mixed = frames.into_iter().enumerate().flat_map(|(at, f)| [f, junk(10_000 + at as u32)]);
    let went = walk(&node, Hook::Ingress, mixed);
    assert_eq!(went.packet(Action::Send(INSIDE)).payload, payload(60_000));
    // The first one last.
    let frames = reversed(datagram(client::<F>(), frontend::<F>(), 60_000, 2));
    let went = walk(&node, Hook::Ingress, frames);
    assert_eq!(went.packet(Action::Send(INSIDE)).payload, payload(60_000));
    assert_eq!(went.passed.len(), 41, "while it lasts, others get theirs at once");
}
in_both_families!(a_flood);

fn a_packet_in_too_many_parts<F: Net>() {
    let node = node::<F>();
    let frame =
        draft(Transport::Udp, client::<F>(), frontend::<F>()).payload(&payload(4_000)).build();
    let frames = cut(&frame, 16, 3);
    let waited = walk(&node, Hook::Ingress, frames[1..].to_vec());
    assert!(waited.out.is_empty() && waited.passed.is_empty());
    assert_eq!(node.world.ring.len(), usize::from(MOST_WAITING));
    let dropped = frames.len() as u64 - 1 - u64::from(MOST_WAITING);
    assert_eq!(node.world.count_of(Reason::FragmentDropped), dropped);
}
in_both_families!(a_packet_in_too_many_parts);

fn what_cannot_wait_is_passed_or_dropped<F: Net>() {
    let later = || datagram(client::<F>(), frontend::<F>(), 4_000, 3)[1..2].to_vec();
    // Its place is being written.
    let node = node::<F>();
    node.world.ring.busy.set(1);
    assert_eq!(walk(&node, Hook::Ingress, later()).passed, later());
    // Too long for a place.
    let long = cut(
        &draft(Transport::Udp, client::<F>(), frontend::<F>()).payload(&payload(20_000)).build(),
        9_600,
        3,
    );
    assert_eq!(walk(&node, Hook::Ingress, long[1..2].to_vec()).passed, long[1..2]);
    // Another CPU has the set.
    node.world.ring.locked.set(1);
    let went = walk(&node, Hook::Ingress, later());
    assert!(went.passed.is_empty() && node.world.count_of(Reason::Raced) == 1);
    // Before the agent has said how many may wait.
    node.world.ring.limits.set(None);
    assert_eq!(walk(&node, Hook::Ingress, later()).passed, later());
    assert!(node.world.ring.is_empty());
    let first = datagram(client::<F>(), frontend::<F>(), 4_000, 4)[..1].to_vec();
    assert_eq!(walk(&node, Hook::Ingress, first).out.len(), 1, "it has its ports");
}
in_both_families!(what_cannot_wait_is_passed_or_dropped);

/// The sum that a network card has made of a later fragment stays right, for the receiver to add up.
fn sums_of_later_fragments_stay_right<F: Net>() {
    let node = node::<F>();
    let frames = datagram(client::<F>(), local_frontend::<F>(), 4_000, 3);
    walk(&node, Hook::Ingress, frames[..1].to_vec());
    let sum = |bytes: &[u8]| {
        bytes[14..].chunks(2).fold(0u32, |sum, pair| {
            let sum = sum + u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            (sum & 0xffff) + (sum >> 16)
        }) as u16
    };
    for frame in &frames[1..] {
        let mut skb = SkbFrame { sum: Some(sum(frame)), ..SkbFrame::new(frame.clone()) };
        assert_eq!(node.world.ingress(NIC, &mut skb).action(), Action::Stack);
        let (is, should) = (skb.sum.expect("kept"), sum(&skb.bytes));
        assert!(
            is == should || is.wrapping_add(should) == 0xffff && (is == 0 || should == 0),
            "{is:x} {should:x}"
        );
    }
}
in_both_families!(sums_of_later_fragments_stay_right);

#[test]
fn a_port_of_nobody_keeps_its_syn() {
    // A first fragment too short for its transport header leads to nothing.
    let node = Node::new();
    node.world.mark_port(REMOTE_PORT, PORT_FRONTEND);
    use nodeport_common::core::family::V4;
    let segment = draft(Transport::Tcp(SYN), client::<V4>(), frontend::<V4>());
    let frames = cut(&segment.build(), 8, 3);
    let went = walk(&node, Hook::Ingress, frames.clone());
    assert_eq!(went.passed, frames);
    assert!(node.halves::<V4>().is_empty());
}

/// Any order, of several packets at once, with duplicates.
fn any_order<F: Net>(picks: &[(usize, usize)], lengths: &[usize]) {
    let node = node::<F>();
    let packets: Vec<_> = lengths
        .iter()
        .enumerate()
        .map(|(at, length)| datagram(client::<F>(), frontend::<F>(), *length, at as u32 + 1))
        .collect();
    let mut frames: Vec<_> = packets.iter().flatten().cloned().collect();
    for (from, to) in picks {
        let (from, to) = (from % frames.len(), to % frames.len());
        frames.swap(from, to);
    }
    let went = walk(&node, Hook::Ingress, frames);
    assert!(went.passed.is_empty());
    // By their numbers, which stay.
    for (at, length) in lengths.iter().enumerate() {
        let id = at as u32 + 1;
        let of = |frame: &&(Action, Vec<u8>)| number::<F>(&frame.1) == id;
        let out =
            Outcome { out: went.out.iter().filter(of).cloned().collect(), passed: Vec::new() };
        assert_eq!(out.out.len(), packets[at].len());
        assert_eq!(out.packet(Action::Send(INSIDE)).payload, payload(*length));
    }
    assert!(node.world.ring.is_empty());
}

fn number<F: Net>(frame: &[u8]) -> u32 {
    if F::VERSION == 4 {
        return u32::from(u16::from_be_bytes([frame[18], frame[19]]));
    }
    u32::from_be_bytes([frame[58], frame[59], frame[60], frame[61]])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn in_any_order(
        picks in prop::collection::vec((any::<usize>(), any::<usize>()), 0..200),
        lengths in prop::collection::vec(1_500usize..9_000, 1..6),
    ) {
        any_order::<nodeport_common::core::family::V4>(&picks, &lengths);
        any_order::<nodeport_common::core::family::V6>(&picks, &lengths);
    }
}
