//! Clients that a service knows again.

use std::net::SocketAddr;

use nodeport_common::abi::{
    BACKEND_DRAINING, BACKEND_GONE, FRONTEND_AFFINITY_STEP, FRONTEND_INTERNAL, Frontend,
    FrontendKey, IPPROTO_TCP,
};
use nodeport_common::core::state::SYN;
use nodeport_common::frames::{tcp, udp};

use crate::support::*;

const SECONDS: u32 = 600;

/// A node whose service knows its clients again, with two backends behind it.
fn node<F: Net>() -> Node {
    let node = Node::new();
    change::<F>(&node, |frontend| frontend.affinity = SECONDS);
    offer::<F>(&node, &[REMOTE_BACKEND, OTHER_BACKEND]);
    node
}

fn change<F: Net>(node: &Node, change: impl Fn(&mut Frontend)) {
    F::maps(&node.world).frontends.borrow_mut().values_mut().for_each(change);
}

/// The service's table is made of these alone, a slot for each.
fn offer<F: Net>(node: &Node, backends: &[u32]) {
    let offset = 100;
    {
        let mut slots = node.world.slots.borrow_mut();
        slots.resize(offset, 0);
        slots.extend(backends);
    }
    change::<F>(node, |frontend| {
        (frontend.slots_offset, frontend.slots_len) = (offset as u32, backends.len() as u32);
    });
}

/// Which backend a new connection from that port goes to.
fn opens<F: Net>(node: &Node, port: u16) -> SocketAddr {
    node.xdp(&tcp(SocketAddr::new(client_ip::<F>(), port), frontend::<F>(), SYN)).view().dst
}

fn state<F: Net>(node: &Node, backend: SocketAddr, state: u8) {
    let mut backends = F::maps(&node.world).backends.borrow_mut();
    let its = |one: &&mut nodeport_common::abi::Backend<F::Addr>| {
        one.address == F::bytes(backend.ip()) && one.port == backend.port()
    };
    backends.iter_mut().filter(its).for_each(|one| {
        one.state = state;
        one.generation += u32::from(state == BACKEND_GONE);
    });
}

fn all_that_a_client_opens_goes_to_one_backend<F: Net>() {
    let node = node::<F>();
    let first = opens::<F>(&node, 2_000);
    for port in 2_001..2_030 {
        assert_eq!(opens::<F>(&node, port), first);
        let datagram = udp(SocketAddr::new(client_ip::<F>(), port), frontend::<F>());
        assert_eq!(node.xdp(&datagram).view().dst, first);
    }
}
in_both_families!(all_that_a_client_opens_goes_to_one_backend);

/// The table has changed, and the client's slot is another backend's: it stays where it was.
fn a_client_stays_when_backends_come<F: Net>() {
    let node = node::<F>();
    offer::<F>(&node, &[REMOTE_BACKEND]);
    let first = opens::<F>(&node, 2_000);
    offer::<F>(&node, &[OTHER_BACKEND]);
    assert_eq!(opens::<F>(&node, 2_001), first);
}
in_both_families!(a_client_stays_when_backends_come);

/// What is new slides the limit; what goes on does not, as with kube-proxy.
fn a_client_is_forgotten_when_it_opens_nothing_for_too_long<F: Net>() {
    let node = node::<F>();
    offer::<F>(&node, &[REMOTE_BACKEND]);
    let first = opens::<F>(&node, 2_000);
    offer::<F>(&node, &[OTHER_BACKEND]);
    for turn in 1..4 {
        node.world.wait(SECONDS * HZ);
        assert_eq!(opens::<F>(&node, 2_000 + turn), first, "just in time");
    }
    node.world.wait(SECONDS * HZ + 1);
    let second = opens::<F>(&node, 2_010);
    assert_ne!(second, first);
    assert_eq!(opens::<F>(&node, 2_011), second);
}
in_both_families!(a_client_is_forgotten_when_it_opens_nothing_for_too_long);

/// One that ends, or is gone, or whose index another has: the client gets another one, and keeps that.
fn a_backend_that_takes_no_new_flows_is_left<F: Net>() {
    for ending in [BACKEND_DRAINING, BACKEND_GONE] {
        let node = node::<F>();
        let first = opens::<F>(&node, 2_000);
        state::<F>(&node, first, ending);
        let second = opens::<F>(&node, 2_001);
        assert_ne!(second, first);
        state::<F>(&node, first, nodeport_common::abi::BACKEND_USABLE);
        assert_eq!(opens::<F>(&node, 2_002), second, "it stays with the new one");
    }
}
in_both_families!(a_backend_that_takes_no_new_flows_is_left);

fn an_index_that_another_backend_got_is_not_the_clients<F: Net>() {
    let node = node::<F>();
    offer::<F>(&node, &[REMOTE_BACKEND]);
    let first = opens::<F>(&node, 2_000);
    F::maps(&node.world).backends.borrow_mut()[REMOTE_BACKEND as usize].generation += 1;
    offer::<F>(&node, &[OTHER_BACKEND]);
    assert_ne!(opens::<F>(&node, 2_001), first);
}
in_both_families!(an_index_that_another_backend_got_is_not_the_clients);

fn without_affinity_nobody_is_known_again<F: Net>() {
    let node = node::<F>();
    offer::<F>(&node, &[REMOTE_BACKEND]);
    let first = opens::<F>(&node, 2_000);
    change::<F>(&node, |frontend| frontend.affinity = 0);
    offer::<F>(&node, &[OTHER_BACKEND]);
    assert_ne!(opens::<F>(&node, 2_001), first, "at once");
}
in_both_families!(without_affinity_nobody_is_known_again);

/// It comes back before the client's time is over.
fn affinity_that_comes_back_knows_nobody<F: Net>() {
    let node = node::<F>();
    offer::<F>(&node, &[REMOTE_BACKEND]);
    let first = opens::<F>(&node, 2_000);
    change::<F>(&node, |frontend| {
        frontend.affinity = 0;
        frontend.flags += FRONTEND_AFFINITY_STEP;
    });
    change::<F>(&node, |frontend| frontend.affinity = SECONDS);
    offer::<F>(&node, &[OTHER_BACKEND]);
    let second = opens::<F>(&node, 2_001);
    assert_ne!(second, first);
    offer::<F>(&node, &[REMOTE_BACKEND]);
    assert_eq!(opens::<F>(&node, 2_002), second, "and from now on it knows");
}
in_both_families!(affinity_that_comes_back_knows_nobody);

/// Whichever address of the service port the client uses; other service ports, and the ClusterIP, whose
/// endpoints may be others, are apart.
fn clients_are_known_by_service_port<F: Net>() {
    let node = node::<F>();
    offer::<F>(&node, &[REMOTE_BACKEND]);
    let first = opens::<F>(&node, 2_000);
    offer::<F>(&node, &[OTHER_BACKEND]);
    let key = FrontendKey {
        address: F::Addr::default(),
        port: frontend::<F>().port(),
        protocol: IPPROTO_TCP,
        pad: 0,
    };
    let (maps, address) = (F::maps(&node.world), F::party(9, 99));
    let known = maps.frontends.borrow()[&key];
    let exact = FrontendKey { address: F::bytes(address), ..key };
    let asks = |port| {
        let target = SocketAddr::new(address, frontend::<F>().port());
        node.xdp(&tcp(SocketAddr::new(client_ip::<F>(), port), target, SYN)).view().dst
    };
    for (port, frontend, is_known) in [
        (2_001, known, true),
        (2_002, Frontend { flags: FRONTEND_INTERNAL, ..known }, false),
        (2_003, Frontend { service: known.service + 50, ..known }, false),
    ] {
        maps.frontends.borrow_mut().insert(exact, frontend);
        assert_eq!(asks(port) == first, is_known, "{frontend:?}");
    }
}
in_both_families!(clients_are_known_by_service_port);

/// The choice is the same on all nodes, and clients are spread.
fn clients_are_spread_by_their_addresses<F: Net>() {
    let [one, other] = [node::<F>(), node::<F>()];
    let mut chosen = std::collections::BTreeMap::<SocketAddr, u32>::new();
    for number in 1..=200 {
        let at = |node: &Node, port| {
            let client = SocketAddr::new(F::party(40, number), port);
            node.xdp(&tcp(client, frontend::<F>(), SYN)).view().dst
        };
        let backend = at(&one, 2_000);
        assert_eq!(at(&other, 3_000), backend);
        *chosen.entry(backend).or_default() += 1;
    }
    assert!(chosen.len() == 2 && chosen.values().all(|count| *count > 60), "{chosen:?}");
}
in_both_families!(clients_are_spread_by_their_addresses);
