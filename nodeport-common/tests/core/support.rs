//! A node with two services, one with its backend elsewhere and one with its backend here, and
//! the packets of a client of theirs.

use std::net::{IpAddr, SocketAddr};

use nodeport_common::abi::{
    ADDRESS_SERVED, BACKEND_LOCAL, BACKEND_USABLE, Backend, Control, FLOW_PROVED, FLOW_REPLY,
    FLOW_SETTLED, Flow, FlowKey, Frontend, FrontendKey, HOP_SEND, HOP_TAGGED, IPPROTO_TCP,
    IPPROTO_UDP, NextHop, PORT_BACKEND, PORT_FRONTEND, PORT_SNAT, Tags,
};
use nodeport_common::core::env::Hook;
use nodeport_common::core::expiry::Limits;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::flow::partner_key;
use nodeport_common::core::host::{Answer, SkbFrame, World, XdpFrame};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::{Draft, Transport, View, faults, tcp};
pub(crate) use nodeport_common::frames::{Net, key};

/// Makes a test for each family of a function that is generic over them.
macro_rules! in_both_families {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn ipv4() {
                super::$name::<nodeport_common::core::family::V4>();
            }

            #[test]
            fn ipv6() {
                super::$name::<nodeport_common::core::family::V6>();
            }
        }
    )+};
}
pub(crate) use in_both_families;

pub(crate) const NIC: u32 = 2;
pub(crate) const INSIDE: u32 = 3;
/// The near end of the veth of the pod on this node.
pub(crate) const POD_LINK: u32 = 5;
pub(crate) const REMOTE_PORT: u16 = 30007;
pub(crate) const LOCAL_PORT: u16 = 30008;
pub(crate) const TARGET: u16 = 8080;
pub(crate) const SNAT_FIRST: u16 = 20000;
pub(crate) const SNAT_COUNT: u16 = 1000;
pub(crate) const HZ: u32 = 250;
pub(crate) const MTU: u16 = 1500;

pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
pub(crate) const CLIENT_SIDE_MAC: [u8; 6] = [2, 0, 0, 0, 9, 2];
pub(crate) const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 8, 1];
pub(crate) const BACKEND_SIDE_MAC: [u8; 6] = [2, 0, 0, 0, 8, 2];

pub(crate) fn client_ip<F: Net>() -> IpAddr {
    F::party(9, 7)
}

/// The node's address, at which its services are.
pub(crate) fn node_ip<F: Net>() -> IpAddr {
    F::party(1, 1)
}

/// The node's address towards backends elsewhere: another one, so that no test takes one for the
/// other.
pub(crate) fn inside_ip<F: Net>() -> IpAddr {
    F::party(8, 1)
}

pub(crate) fn remote_ip<F: Net>() -> IpAddr {
    F::party(8, 20)
}

pub(crate) fn local_ip<F: Net>() -> IpAddr {
    F::party(5, 20)
}

pub(crate) fn client<F: Net>() -> SocketAddr {
    SocketAddr::new(client_ip::<F>(), 40000)
}

/// The frontend whose backend is elsewhere.
pub(crate) fn frontend<F: Net>() -> SocketAddr {
    SocketAddr::new(node_ip::<F>(), REMOTE_PORT)
}

/// The frontend whose backend is on this node.
pub(crate) fn local_frontend<F: Net>() -> SocketAddr {
    SocketAddr::new(node_ip::<F>(), LOCAL_PORT)
}

pub(crate) fn remote<F: Net>() -> SocketAddr {
    SocketAddr::new(remote_ip::<F>(), TARGET)
}

pub(crate) fn local<F: Net>() -> SocketAddr {
    SocketAddr::new(local_ip::<F>(), TARGET)
}

/// Index of the backend elsewhere.
pub(crate) const REMOTE_BACKEND: u32 = 1;
/// Index of the backend on this node.
pub(crate) const LOCAL_BACKEND: u32 = 2;
/// Index of a second backend elsewhere, which no slot names at first.
pub(crate) const OTHER_BACKEND: u32 = 3;

/// A half of a flow, and whether it has proved itself.
pub(crate) type Half<A> = (bool, FlowKey<A>, Flow<A>);

/// A node.
pub(crate) struct Node {
    pub(crate) world: World,
}

/// What became of a frame.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) action: Action,
    pub(crate) bytes: Vec<u8>,
}

impl Out {
    /// The frame taken apart; fails if anything is wrong with it.
    #[track_caller]
    pub(crate) fn view(&self) -> View {
        assert_eq!(faults(&self.bytes), Vec::<String>::new(), "{:?}", self.action);
        View::new(&self.bytes).expect("faults would have told")
    }
}

impl Node {
    /// A node with both services in both families.
    pub(crate) fn new() -> Self {
        let node = Self { world: World::default() };
        node.world.now.set(100_000);
        node.world.control.set(Some(Control {
            epoch: 1,
            hz: HZ,
            hash_seed: 7,
            snat_first: SNAT_FIRST,
            snat_count: SNAT_COUNT,
            errors_per_second: 10,
            ..Control::default()
        }));
        *node.world.slots.borrow_mut() = vec![REMOTE_BACKEND, LOCAL_BACKEND];
        for port in [REMOTE_PORT, LOCAL_PORT] {
            node.world.mark_port(port, PORT_FRONTEND);
        }
        node.world.mark_port(TARGET, PORT_BACKEND);
        for port in SNAT_FIRST..SNAT_FIRST + SNAT_COUNT {
            node.world.mark_port(port, PORT_SNAT);
        }
        node.fill::<V4>();
        node.fill::<V6>();
        node
    }

    fn fill<F: Net>(&self) {
        let maps = F::maps(&self.world);
        maps.addresses.borrow_mut().insert(F::bytes(node_ip::<F>()), ADDRESS_SERVED);
        for (port, slot, service) in [(REMOTE_PORT, 0, 11), (LOCAL_PORT, 1, 12)] {
            for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
                let key = FrontendKey { address: F::Addr::default(), port, protocol, pad: 0 };
                let frontend =
                    Frontend { service, slots_offset: slot, slots_len: 1, ..Frontend::default() };
                maps.frontends.borrow_mut().insert(key, frontend);
            }
        }
        let remote = usable::<F>(remote_ip::<F>(), 0);
        let local = usable::<F>(local_ip::<F>(), BACKEND_LOCAL);
        let other = usable::<F>(F::party(8, 21), 0);
        *maps.backends.borrow_mut() = vec![Backend::default(), remote, local, other];
        let inside = Self::answer::<F>(INSIDE, BACKEND_MAC, BACKEND_SIDE_MAC);
        let outside = Self::answer::<F>(NIC, CLIENT_MAC, CLIENT_SIDE_MAC);
        let mut routes = maps.routes.borrow_mut();
        routes.insert(F::bytes(remote_ip::<F>()), inside);
        routes.insert(F::bytes(F::party(8, 21)), inside);
        routes.insert(F::bytes(client_ip::<F>()), outside);
    }

    fn answer<F: Net>(ifindex: u32, dst_mac: [u8; 6], src_mac: [u8; 6]) -> Answer<F::Addr> {
        let hop = NextHop {
            ifindex,
            dst_mac,
            src_mac,
            mtu: MTU,
            epoch: 1,
            exit: 0,
            kind: HOP_SEND,
            pad: 0,
        };
        Answer { from: F::bytes(inside_ip::<F>()), hop, watched: true, to_pod: false }
    }

    /// Makes VLAN devices of both interfaces, whose frames have these tags.
    pub(crate) fn put_behind<F: Net>(&self, tags: Tags) {
        for ifindex in [NIC, INSIDE] {
            self.world.below.borrow_mut().insert(ifindex, (ifindex, tags));
        }
        for answer in F::maps(&self.world).routes.borrow_mut().values_mut() {
            answer.hop.kind = HOP_TAGGED;
        }
    }

    /// Walks a frame at a hook of the node's outer interface, or at the pod's veth.
    pub(crate) fn walk(&self, hook: Hook, frame: &[u8]) -> Out {
        let bytes = frame.to_vec();
        match hook {
            Hook::Xdp => {
                let mut frame = XdpFrame::new(bytes);
                let verdict = self.world.xdp(NIC, &mut frame);
                Out { action: verdict.action(), bytes: frame.bytes }
            }
            Hook::Ingress => self.skb(SkbFrame::new(bytes), NIC, World::ingress),
            Hook::Egress => self.skb(SkbFrame::new(bytes), NIC, World::egress),
            Hook::Pod => self.skb(SkbFrame::new(bytes), POD_LINK, World::pod),
        }
    }

    fn skb(
        &self,
        mut frame: SkbFrame,
        ifindex: u32,
        at: fn(&World, u32, &mut SkbFrame) -> nodeport_common::core::verdict::Verdict,
    ) -> Out {
        let verdict = at(&self.world, ifindex, &mut frame);
        Out { action: verdict.action(), bytes: frame.bytes }
    }

    /// Walks a frame in XDP.
    pub(crate) fn xdp(&self, draft: &Draft) -> Out {
        self.walk(Hook::Xdp, &draft.build())
    }

    /// Walks a frame in TC where it arrives.
    pub(crate) fn ingress(&self, draft: &Draft) -> Out {
        self.walk(Hook::Ingress, &draft.build())
    }

    /// Walks a frame in TC where it leaves.
    pub(crate) fn egress(&self, draft: &Draft) -> Out {
        self.walk(Hook::Egress, &draft.build())
    }

    /// Walks a frame in TC where it comes out of the pod's veth.
    pub(crate) fn pod(&self, draft: &Draft) -> Out {
        self.walk(Hook::Pod, &draft.build())
    }

    /// The half of a flow for packets from `src` to `dst`, and whether it has proved itself.
    pub(crate) fn half<F: Net>(
        &self,
        protocol: u8,
        src: SocketAddr,
        dst: SocketAddr,
    ) -> Option<(bool, Flow<F::Addr>)> {
        let key = key::<F>(protocol, src, dst);
        F::maps(&self.world).flows.get(&key).map(|flow| (has_proved(&flow), flow))
    }

    /// Removes a half.
    pub(crate) fn lose<F: Net>(&self, protocol: u8, src: SocketAddr, dst: SocketAddr) {
        let key = key::<F>(protocol, src, dst);
        assert!(F::maps(&self.world).flows.remove(&key), "no such half");
    }

    /// Every half.
    pub(crate) fn halves<F: Net>(&self) -> Vec<Half<F::Addr>> {
        let all = F::maps(&self.world).flows.all().into_iter();
        all.map(|(key, flow)| (has_proved(&flow), key, flow)).collect()
    }

    /// Opens a TCP connection with the backend elsewhere and completes its handshake; returns the
    /// address that the backend sees.
    pub(crate) fn connect<F: Net>(&self, client: SocketAddr) -> SocketAddr {
        use nodeport_common::core::state::{ACK, SYN};
        let seen = self.xdp(&tcp(client, frontend::<F>(), SYN)).view().src;
        let answered = self.xdp(&tcp(remote::<F>(), seen, SYN | ACK)).view();
        assert_eq!(answered.dst, client);
        self.xdp(&tcp(client, frontend::<F>(), ACK)).view();
        seen
    }

    /// The same with the backend on this node, which sees the client itself.
    pub(crate) fn connect_local<F: Net>(&self, client: SocketAddr) {
        use nodeport_common::core::state::{ACK, SYN};
        let out = self.ingress(&tcp(client, local_frontend::<F>(), SYN));
        assert_eq!((out.action, out.view().src), (Action::Stack, client));
        self.egress(&tcp(local::<F>(), client, SYN | ACK)).view();
        self.ingress(&tcp(client, local_frontend::<F>(), ACK)).view();
    }

    /// Gives a backend's index to nobody.
    pub(crate) fn end_backend<F: Net>(&self, index: u32) {
        let mut backends = F::maps(&self.world).backends.borrow_mut();
        let backend = &mut backends[index as usize];
        backend.state = nodeport_common::abi::BACKEND_GONE;
        backend.generation += 1;
    }

    /// Lets the remote service's slot name another backend.
    pub(crate) fn set_slot(&self, index: usize, backend: u32) {
        self.world.slots.borrow_mut()[index] = backend;
    }
}

fn usable<F: Net>(ip: IpAddr, flags: u8) -> Backend<F::Addr> {
    Backend {
        address: F::bytes(ip),
        port: TARGET,
        flags,
        state: BACKEND_USABLE,
        generation: 5,
        weight: 1,
    }
}

/// A packet of `transport` with some payload.
pub(crate) fn draft(transport: Transport, src: SocketAddr, dst: SocketAddr) -> Draft {
    Draft::new(src, dst, transport).payload(b"some bytes of it")
}

/// A VLAN tag as it lies in a frame.
pub(crate) fn tag(protocol: u16, id: u16) -> u32 {
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), id.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Whether the half has proved itself, so that it is never pushed out.
pub(crate) fn has_proved<A>(flow: &Flow<A>) -> bool {
    flow.flags & FLOW_PROVED != 0
}

/// Whether the half carries the backend's packets.
pub(crate) fn is_reply<A>(flow: &Flow<A>) -> bool {
    flow.flags & FLOW_REPLY != 0
}

/// Every half has a partner in the same state, whose partner it is; both have proved themselves, or
/// neither has.
#[track_caller]
pub(crate) fn assert_paired<F: Net>(node: &Node) {
    let halves = node.halves::<F>();
    for (proved, key, flow) in &halves {
        let other_key = partner_key(key, flow);
        let found = halves.iter().find(|(_, key, _)| *key == other_key);
        let Some((other_proved, _, other)) = found else { panic!("{key:?} has no partner") };
        assert_eq!((proved, flow.state), (other_proved, other.state), "{key:?}");
        assert_eq!(partner_key(&other_key, other), *key);
        assert_ne!(is_reply(flow), is_reply(other));
        assert_eq!(flow.flags & FLOW_SETTLED, other.flags & FLOW_SETTLED);
    }
}

/// What the agent has by default.
pub(crate) fn limits() -> Limits {
    Limits {
        tcp: 8_000 * HZ,
        tcp_answered: 60 * HZ,
        tcp_opening: 30 * HZ,
        tcp_closed: 10 * HZ,
        tcp_doubted: 120 * HZ,
        udp: 120 * HZ,
        udp_opening: 30 * HZ,
    }
}
