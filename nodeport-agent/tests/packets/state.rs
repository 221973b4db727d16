//! What the agent has written: plain values that both the kernel's maps and the host's are
//! filled from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use nodeport_common::abi::{
    ADDRESS_SERVED, BACKEND_LOCAL, BACKEND_USABLE, Backend, Control, DEVICE_ATTACHED, DEVICE_POD,
    DEVICE_REDIRECT, Device, Exit, Frontend, FrontendKey, HOP_NEIGHBOUR, HOP_POD, HOP_SEND,
    HOP_STACK, HOP_TAGGED, IPPROTO_TCP, IPPROTO_UDP, NextHop, PORT_BACKEND, PORT_FRONTEND,
    PORT_SNAT, SourceRange,
};
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::host::Answer;
use nodeport_common::frames::Net;

use crate::network::{DARK, IN, MTU, NARROW, NARROW_POD, OUT, POD, ROUTER, SLOW, mac, own_mac};

/// The backends' port.
pub(crate) const TARGET: u16 = 8080;
/// The SNAT port: a range of one, so that every frame is known beforehand.
pub(crate) const SNAT: u16 = 20_000;
/// Jiffies per second, as far as the programs know: so many that nothing depends on how long a
/// test takes.
const HZ: u32 = 1_000_000;

/// Indexes of backends. The frontend of each listens on [`port`] of it.
pub(crate) const REMOTE: u32 = 1;
pub(crate) const LOCAL: u32 = 2;
pub(crate) const OTHER: u32 = 3;
pub(crate) const UNKNOWN_NEIGHBOUR: u32 = 4;
pub(crate) const BEHIND_SLOW: u32 = 5;
pub(crate) const BEHIND_DARK: u32 = 6;
pub(crate) const BEHIND_NARROW: u32 = 7;
pub(crate) const WITHOUT_ROUTE: u32 = 8;
pub(crate) const UNREACHABLE: u32 = 9;
pub(crate) const OWN_ADDRESS: u32 = 10;
pub(crate) const GONE: u32 = 11;
/// A pod of this node with a veth of its own.
pub(crate) const OWN_VETH: u32 = 12;
const BACKENDS: u32 = 13;
/// The frontend without slots.
pub(crate) const EMPTY: u32 = 13;

/// The nodePort of the service with that backend.
pub(crate) const fn port(backend: u32) -> u16 {
    30_000 + backend as u16
}

/// What is written for one family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side<A: Ord> {
    pub(crate) frontends: BTreeMap<FrontendKey<A>, Frontend>,
    /// Networks whose clients may use guarded frontends, with the bits of each that count.
    pub(crate) ranges: Vec<(SourceRange<A>, u32)>,
    pub(crate) backends: Vec<Backend<A>>,
    pub(crate) addresses: Vec<(A, u32)>,
    /// What the kernel's routes will say; only the host needs to be told.
    pub(crate) routes: BTreeMap<A, Answer<A>>,
}

/// All that is written.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) control: Control,
    pub(crate) ports: BTreeMap<u16, u8>,
    pub(crate) slots: Vec<u32>,
    pub(crate) devices: BTreeMap<u32, Device>,
    /// The devices as flows name them.
    pub(crate) exits: Vec<Exit>,
    pub(crate) v4: Side<[u8; 4]>,
    pub(crate) v6: Side<[u8; 16]>,
}

impl State {
    pub(crate) fn new() -> Self {
        let mut state = Self {
            control: Control {
                epoch: 1,
                hz: HZ,
                hash_seed: 7,
                snat_first: SNAT,
                snat_count: 1,
                errors_per_second: 1_000_000,
                fib_source: 1,
                fast_local: 1,
                ..Control::default()
            },
            ports: BTreeMap::from([(TARGET, PORT_BACKEND), (SNAT, PORT_SNAT)]),
            slots: (0..BACKENDS).collect(),
            devices: BTreeMap::new(),
            // None is the first.
            exits: vec![Exit::default()],
            v4: side::<V4>(),
            v6: side::<V6>(),
        };
        for backend in 1..=EMPTY {
            state.ports.insert(port(backend), PORT_FRONTEND);
        }
        for (index, net, flags) in [
            (OUT, 1, DEVICE_ATTACHED | DEVICE_REDIRECT),
            (IN, 8, DEVICE_ATTACHED | DEVICE_REDIRECT),
            (SLOW, 7, DEVICE_ATTACHED),
            (POD, 3, DEVICE_POD),
        ] {
            let device = Device {
                flags,
                address4: V4::bytes(V4::party(net, 1)),
                address6: V6::bytes(V6::party(net, 1)),
                mac: own_mac(net),
                exit: exit(index),
                ..Device::default()
            };
            assert_eq!(state.exits.len(), usize::from(device.exit), "the next exit");
            state.exits.push(Exit { ifindex: index, mac: device.mac, pad: [0; 6] });
            state.devices.insert(index, device);
        }
        state
    }
}

impl State {
    /// Whether the program is at the pod's veth, as far as the host's routes say.
    pub(crate) fn follow_pod(&mut self, follow: bool) {
        follow_pod::<V4>(&mut self.v4, follow);
        follow_pod::<V6>(&mut self.v6, follow);
    }
}

fn follow_pod<F: Net>(side: &mut Side<F::Addr>, follow: bool) {
    let mut way = answer::<F>(OWN_VETH);
    if !follow {
        (way.hop, way.to_pod) = (neighbour(POD, 1, NARROW_POD), false);
    }
    side.routes.insert(F::bytes(backend_ip::<F>(OWN_VETH)), way);
}

/// Makes VLAN devices of the interfaces, whose frames have these tags: protocol and VLAN.
pub(crate) fn put_behind(state: &mut State, tags: &[(u16, u16)]) {
    let mut words = [0; 2];
    for (word, (protocol, id)) in words.iter_mut().zip(tags) {
        let ([a, b], [c, d]) = (protocol.to_be_bytes(), id.to_be_bytes());
        *word = u32::from_ne_bytes([a, b, c, d]);
    }
    for device in state.devices.values_mut() {
        if device.flags & DEVICE_REDIRECT != 0 {
            (device.flags, device.lower, device.tags) = (DEVICE_ATTACHED, OUT, words);
        }
    }
    tag(&mut state.v4);
    tag(&mut state.v6);
    state.control.epoch += 1;
}

fn tag<A: Ord>(side: &mut Side<A>) {
    for answer in side.routes.values_mut() {
        if answer.hop.kind == HOP_SEND {
            answer.hop.kind = HOP_TAGGED;
        }
    }
}

fn side<F: Net>() -> Side<F::Addr> {
    let mut side =
        Side { addresses: vec![(F::bytes(node::<F>()), ADDRESS_SERVED)], ..Side::default() };
    for index in 0..=EMPTY {
        for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
            let key =
                FrontendKey { address: F::Addr::default(), port: port(index), protocol, pad: 0 };
            let slots_len = u32::from(index != EMPTY);
            let frontend =
                Frontend { service: index, slots_offset: index, slots_len, ..Frontend::default() };
            side.frontends.insert(key, frontend);
        }
    }
    for index in 0..BACKENDS {
        side.backends.push(Backend {
            address: F::bytes(backend_ip::<F>(index)),
            port: TARGET,
            flags: if matches!(index, LOCAL | OWN_VETH) { BACKEND_LOCAL } else { 0 },
            state: if index == GONE { 0 } else { BACKEND_USABLE },
            generation: 5,
            weight: 1,
        });
    }
    for index in [
        REMOTE,
        OTHER,
        UNKNOWN_NEIGHBOUR,
        BEHIND_SLOW,
        BEHIND_DARK,
        BEHIND_NARROW,
        WITHOUT_ROUTE,
        OWN_ADDRESS,
        OWN_VETH,
    ] {
        side.routes.insert(F::bytes(backend_ip::<F>(index)), answer::<F>(index));
    }
    // The node's own addresses are no way to anywhere.
    for net in [1, 3, 6, 7, 8] {
        let hop = NextHop { kind: HOP_STACK, epoch: 1, ..NextHop::default() };
        let own = Answer { from: F::bytes(F::party(net, 1)), hop, watched: true, to_pod: false };
        side.routes.insert(F::bytes(F::party(net, 1)), own);
    }
    for number in [7, 8] {
        let hop = send(OUT, own_mac(1), mac(1, ROUTER), MTU);
        let from = F::bytes(node::<F>());
        let answer = Answer { from, hop, watched: true, to_pod: false };
        side.routes.insert(F::bytes(F::party(9, number)), answer);
    }
    side
}

/// The index of an interface among the exits.
const fn exit(ifindex: u32) -> u16 {
    match ifindex {
        OUT => 1,
        IN => 2,
        SLOW => 3,
        POD => 4,
        _ => 0,
    }
}

fn send(ifindex: u32, src_mac: [u8; 6], dst_mac: [u8; 6], mtu: u16) -> NextHop {
    let exit = exit(ifindex);
    NextHop { ifindex, epoch: 1, dst_mac, src_mac, mtu, exit, kind: HOP_SEND, pad: 0 }
}

fn neighbour(ifindex: u32, epoch: u16, mtu: u16) -> NextHop {
    let exit = exit(ifindex);
    NextHop { ifindex, epoch, mtu, exit, kind: HOP_NEIGHBOUR, ..NextHop::default() }
}

/// What the kernel says of the way to a backend.
fn answer<F: Net>(index: u32) -> Answer<F::Addr> {
    let (net, hop) = match index {
        REMOTE => (8, send(IN, own_mac(8), mac(8, 20), MTU)),
        OTHER => (8, send(IN, own_mac(8), mac(8, 21), MTU)),
        // The path's width is not told where the neighbour is not known.
        UNKNOWN_NEIGHBOUR => (8, neighbour(IN, 0, u16::MAX)),
        BEHIND_SLOW => (7, neighbour(SLOW, 1, MTU)),
        // Flows cannot name it, so that they look again each time.
        BEHIND_DARK => (6, neighbour(DARK, 0, MTU)),
        OWN_VETH => {
            let hop = send(POD, own_mac(3), mac(3, 20), NARROW_POD);
            (3, NextHop { kind: HOP_POD, ..hop })
        }
        BEHIND_NARROW => (8, send(IN, own_mac(8), mac(8, ROUTER), NARROW)),
        _ => (1, NextHop { kind: HOP_STACK, epoch: 1, ..NextHop::default() }),
    };
    let to_pod = index == OWN_VETH;
    let watched = !matches!(index, BEHIND_DARK | OWN_VETH);
    Answer { from: F::bytes(F::party(net, 1)), hop, watched, to_pod }
}

/// The node's address, at which its services are.
pub(crate) fn node<F: Net>() -> IpAddr {
    F::party(1, 1)
}

fn backend_ip<F: Net>(index: u32) -> IpAddr {
    match index {
        LOCAL => F::party(5, 20),
        OTHER => F::party(8, 21),
        UNKNOWN_NEIGHBOUR => F::party(8, 22),
        BEHIND_SLOW => F::party(7, 20),
        BEHIND_DARK => F::party(6, 20),
        BEHIND_NARROW => F::party(4, 20),
        OWN_VETH => F::party(3, 20),
        WITHOUT_ROUTE => F::party(97, 20),
        UNREACHABLE => F::party(98, 20),
        OWN_ADDRESS => node::<F>(),
        _ => F::party(8, 20),
    }
}

/// A client.
pub(crate) fn client<F: Net>() -> SocketAddr {
    SocketAddr::new(F::party(9, 7), 40_000)
}

/// What the client addresses to get to that backend.
pub(crate) fn frontend<F: Net>(backend: u32) -> SocketAddr {
    SocketAddr::new(node::<F>(), port(backend))
}

/// The backend itself.
pub(crate) fn backend<F: Net>(index: u32) -> SocketAddr {
    SocketAddr::new(backend_ip::<F>(index), TARGET)
}

/// What a backend in net `net` sees as the client.
pub(crate) fn snat<F: Net>(net: u8) -> SocketAddr {
    SocketAddr::new(F::party(net, 1), SNAT)
}
