//! Packets in fragments, in any order: both twins keep, send on and translate the same, and what the
//! kernel sends on is read off the interface.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nodeport_common::abi::{ADDRESS_NAMED, FrontendKey, IPPROTO_UDP, Reason};
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Net, View, cut, faults, join, udp};

use crate::network::{IN, OUT};
use crate::state::*;
use crate::step::Twins;
use crate::trials::Trials;

/// The tests.
pub(crate) fn add(trials: &mut Trials) {
    for (name, order) in ORDERS {
        trials.add(format!("fragments::ipv4::{name}"), move |twins| any_way::<V4>(twins, order));
        trials.add(format!("fragments::ipv6::{name}"), move |twins| any_way::<V6>(twins, order));
    }
    trials.add("fragments::ipv4::to_a_named_address", to_a_named_address::<V4>);
    trials.add("fragments::ipv6::to_a_named_address", to_a_named_address::<V6>);
    trials.add("fragments::ipv4::of_others", of_others::<V4>);
    trials.add("fragments::ipv6::of_others", of_others::<V6>);
    trials.add("fragments::ipv4::a_flood", a_flood::<V4>);
    trials.add("fragments::ipv6::a_flood", a_flood::<V6>);
}

/// Puts frames into an order.
type Order = fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>;

const ORDERS: [(&str, Order); 4] = [
    ("in_order", |frames| frames),
    ("first_one_last", |frames| frames.into_iter().rev().collect()),
    ("first_one_in_the_middle", |mut frames| {
        frames.rotate_right(1);
        frames
    }),
    ("each_one_twice", |frames| {
        frames.into_iter().rev().flat_map(|one| [one.clone(), one]).collect()
    }),
];

const SIZE: usize = 1_200;

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn datagram(src: SocketAddr, dst: SocketAddr, length: usize, id: u32) -> Vec<Vec<u8>> {
    cut(&udp(src, dst).payload(&payload(length)).build(), SIZE, id)
}

/// A socket that gets every frame of the outer interface.
fn capture() -> OwnedFd {
    const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes numbers.
    let opened = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(ALL)) };
    assert!(opened >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: it was opened just now, and nobody else has it.
    let opened = unsafe { OwnedFd::from_raw_fd(opened) };
    // A hundred frames come at once.
    let room: libc::c_int = 8 << 20;
    let option = (&raw const room).cast();
    let (level, name, size) = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size_of_val(&room) as u32);
    // SAFETY: the number lives until the call returns, and has that size.
    let grown = unsafe { libc::setsockopt(opened.as_raw_fd(), level, name, option, size) };
    assert_eq!(grown, 0, "{}", std::io::Error::last_os_error());
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ALL,
        sll_ifindex: OUT as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the address lives until the call returns, and has that size.
    let bound = unsafe { libc::bind(opened.as_raw_fd(), (&raw const address).cast(), size) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    opened
}

/// Waits until all these frames have been seen on the interface.
fn expect(capture: &OwnedFd, frames: &[Vec<u8>]) {
    let mut missing: Vec<&Vec<u8>> = frames.iter().collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut buffer = vec![0; 1 << 16];
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "{} frames were not sent on", missing.len());
        let room = buffer.len();
        // SAFETY: the buffer has that much room.
        let length =
            unsafe { libc::recv(capture.as_raw_fd(), buffer.as_mut_ptr().cast(), room, 0) };
        let Ok(length) = usize::try_from(length) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let seen = missing.iter().position(|frame| **frame == buffer[..length]);
        seen.map(|at| missing.remove(at));
    }
}

/// Gives frames to both; what they send on is met again.
fn walk(
    twins: &Twins,
    capture: &OwnedFd,
    hook: Hook,
    frames: Vec<Vec<u8>>,
) -> Vec<(Action, Vec<u8>)> {
    let mut out = Vec::new();
    for (at, frame) in frames.into_iter().enumerate() {
        let mut next = vec![frame];
        for _ in 0..200 {
            let Some(frame) = next.pop() else { break };
            let what = format!("fragment {at} at {hook:?}");
            let done = twins.both(&what, hook, &frame).expect("the kernel takes the frame");
            let sent: Vec<_> =
                twins.host().ring.sent.borrow_mut().drain(..).map(|(_, frame)| frame).collect();
            expect(capture, &sent);
            next.extend(sent);
            if done.0 != Action::Drop {
                out.push(done);
            }
        }
        assert!(next.is_empty(), "frames go round and round");
    }
    out
}

#[track_caller]
fn packet(out: &[(Action, Vec<u8>)], action: Action) -> View {
    assert!(out.iter().all(|(taken, _)| *taken == action), "all of it goes one way");
    let frames: Vec<_> = out.iter().map(|(_, frame)| frame.clone()).collect();
    let whole = join(&frames).expect("all of it goes on");
    assert_eq!(faults(&whole), Vec::<String>::new());
    View::new(&whole).expect("faults would have told")
}

/// To backends elsewhere and on this node, through the stack and past it, and back.
fn any_way<F: Net>(twins: &mut Twins, order: Order) {
    let capture = capture();
    let mut id = 0;
    for length in [4_000, 9_000, 60_000] {
        // Senders give each packet a number of its own.
        let mut go = |hook, src, dst| {
            id += 1;
            walk(twins, &capture, hook, order(datagram(src, dst, length, id)))
        };
        let right = |view: View, src, dst| {
            assert_eq!((view.src, view.dst), (src, dst));
            assert_eq!(view.payload, payload(length));
        };
        let there =
            packet(&go(Hook::Ingress, client::<F>(), frontend::<F>(REMOTE)), Action::Send(IN));
        right(there, snat::<F>(8), backend::<F>(REMOTE));
        let back =
            packet(&go(Hook::Ingress, backend::<F>(REMOTE), snat::<F>(8)), Action::Send(OUT));
        right(back, frontend::<F>(REMOTE), client::<F>());

        let there = packet(&go(Hook::Ingress, client::<F>(), frontend::<F>(LOCAL)), Action::Stack);
        right(there, client::<F>(), backend::<F>(LOCAL));
        let back = packet(&go(Hook::Egress, backend::<F>(LOCAL), client::<F>()), Action::Stack);
        right(back, frontend::<F>(LOCAL), client::<F>());

        let there = go(Hook::Ingress, client::<F>(), frontend::<F>(OWN_VETH));
        let there = packet(&there, Action::Pod(crate::network::POD));
        right(there, client::<F>(), backend::<F>(OWN_VETH));
        let back = packet(&go(Hook::Pod, backend::<F>(OWN_VETH), client::<F>()), Action::Send(OUT));
        right(back, frontend::<F>(OWN_VETH), client::<F>());
    }
    let frame = datagram(client::<F>(), frontend::<F>(REMOTE), 4_000, 9).remove(1);
    assert_eq!(twins.both("XDP", Hook::Xdp, &frame), Some((Action::Pass, frame)));
}

/// A load balancer's address, which is not the node's and to which the node would forward: fragments
/// that come before the first one are kept all the same.
fn to_a_named_address<F: Net>(twins: &mut Twins) {
    let address = F::party(9, 7);
    let mut state = State::new();
    name_address::<V4>(&mut state.v4);
    name_address::<V6>(&mut state.v6);
    twins.write(state);
    let capture = capture();
    let target = SocketAddr::new(address, port(REMOTE));
    let mut frames = datagram(client::<F>(), target, 4_000, 1);
    frames.reverse();
    let there = packet(&walk(twins, &capture, Hook::Ingress, frames), Action::Send(IN));
    assert_eq!((there.src, there.dst), (snat::<F>(8), backend::<F>(REMOTE)));
    assert_eq!(there.payload, payload(4_000));
    // Those for an address that nobody names are not kept.
    let other = SocketAddr::new(F::party(9, 8), port(REMOTE));
    let frame = datagram(client::<F>(), other, 4_000, 2).remove(1);
    assert_eq!(twins.both("forwarded", Hook::Ingress, &frame), Some((Action::Pass, frame)));
}

/// Gives the remote backend's service a frontend at an address that is not the node's.
fn name_address<F: Net>(side: &mut Side<F::Addr>) {
    let address = F::bytes(F::party(9, 7));
    let any = FrontendKey {
        address: F::Addr::default(),
        port: port(REMOTE),
        protocol: IPPROTO_UDP,
        pad: 0,
    };
    let frontend = side.frontends[&any];
    side.frontends.insert(FrontendKey { address, ..any }, frontend);
    side.addresses.push((address, ADDRESS_NAMED));
}

fn of_others<F: Net>(twins: &mut Twins) {
    let capture = capture();
    let closed = SocketAddr::new(node::<F>(), 9);
    let mut frames = datagram(client::<F>(), closed, 4_000, 1);
    frames.reverse();
    let out = walk(twins, &capture, Hook::Ingress, frames.clone());
    assert!(out.iter().all(|(action, _)| *action == Action::Pass));
    let passed: BTreeSet<_> = out.into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(passed, frames.into_iter().collect());
    // Without a backend, the rest goes nowhere.
    let frames = datagram(client::<F>(), frontend::<F>(EMPTY), 4_000, 2);
    let out = walk(twins, &capture, Hook::Ingress, frames);
    assert_eq!(out.iter().map(|(action, _)| *action).collect::<Vec<_>>(), [Action::Back(OUT)]);
    assert_eq!(twins.host().count_of(Reason::FragmentDropped), 3);
}

fn a_flood<F: Net>(twins: &mut Twins) {
    let capture = capture();
    for id in 0..2_000 {
        let junk = datagram(client::<F>(), frontend::<F>(REMOTE), 2_000, 1_000 + id).remove(1);
        twins.both("junk", Hook::Ingress, &junk).expect("the kernel takes the frame");
    }
    let ousted = twins.host().count_of(Reason::FragmentOusted);
    assert_eq!(ousted, 2_000 - 512, "no more wait than there is room for");
    let frames = datagram(client::<F>(), frontend::<F>(REMOTE), 9_000, 1);
    let there = packet(&walk(twins, &capture, Hook::Ingress, frames), Action::Send(IN));
    assert_eq!(there.payload, payload(9_000));
}
