//! Which backend a new flow goes to where Maglev does not say.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nodeport_common::abi::{
    Backend, FRONTEND_LEAST, FRONTEND_RANDOM, Frontend, HOP_NEIGHBOUR, Load,
};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::core::verdict::Action;
use nodeport_common::frames::tcp;

use crate::support::*;

/// Backends behind the service.
const COUNT: u32 = 8;
/// The index of the first of them; others have those before.
const FIRST: u32 = 10;

/// A node with a service that has eight backends, one slot for each.
fn node<F: Net>(flags: u32) -> Node {
    let node = Node::new();
    let maps = F::maps(&node.world);
    {
        let mut backends = maps.backends.borrow_mut();
        let model = backends[REMOTE_BACKEND as usize];
        backends.resize(FIRST as usize, Backend::default());
        let numbered = |number: u32| Backend { port: TARGET + number as u16, weight: 1, ..model };
        backends.extend((0..COUNT).map(numbered));
    }
    let offset = node.world.slots.borrow().len() as u32;
    node.world.slots.borrow_mut().extend(FIRST..FIRST + COUNT);
    for number in 0..COUNT {
        node.world.mark_port(TARGET + number as u16, nodeport_common::abi::PORT_BACKEND);
    }
    change::<F>(&node, |frontend| {
        (frontend.slots_offset, frontend.slots_len) = (offset, COUNT);
        frontend.flags |= flags;
    });
    node
}

fn change<F: Net>(node: &Node, change: impl Fn(&mut Frontend)) {
    F::maps(&node.world).frontends.borrow_mut().values_mut().for_each(change);
}

fn weigh<F: Net>(node: &Node, number: u32, weight: u32) {
    F::maps(&node.world).backends.borrow_mut()[(FIRST + number) as usize].weight = weight;
}

fn load<F: Net>(node: &Node, number: u32, flows: u32) {
    F::maps(&node.world).loads.borrow_mut().insert(FIRST + number, Load { base: flows, opened: 0 });
}

/// Which backend a new connection from that port goes to.
fn opens<F: Net>(node: &Node, port: u16) -> u32 {
    let from = SocketAddr::new(client_ip::<F>(), port);
    number(node.xdp(&tcp(from, frontend::<F>(), SYN)).view().dst)
}

fn number(at: SocketAddr) -> u32 {
    u32::from(at.port() - TARGET)
}

/// Connections of each backend, of so many from one address.
fn spread<F: Net>(node: &Node, count: u16) -> Vec<u32> {
    let mut counts = vec![0; COUNT as usize];
    for port in 2_000..2_000 + count {
        counts[opens::<F>(node, port) as usize] += 1;
        if port % 10 == 0 {
            node.world.wait(1);
        }
    }
    counts
}

/// Pearson's statistic against equal shares.
fn chi_square(counts: &[u32]) -> f64 {
    let fair = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|count| (f64::from(*count) - fair).powi(2) / fair).sum()
}

/// 99.9 % of fair draws among eight stay below it (seven degrees of freedom).
const UNFAIR: f64 = 24.32;

fn chance_favours_nobody<F: Net>() {
    let counts = spread::<F>(&node::<F>(FRONTEND_RANDOM), 1_600);
    assert!(chi_square(&counts) < UNFAIR, "{counts:?}");
}
in_both_families!(chance_favours_nobody);

/// Maglev sends the same ports to the same backend; chance does not know them again.
fn the_same_ports_get_another_backend_at_another_time<F: Net>() {
    let again = |flags| {
        let mut seen = BTreeMap::new();
        for turn in 0..800 {
            let node = node::<F>(flags);
            node.world.wait(turn);
            *seen.entry(opens::<F>(&node, 2_000)).or_insert(0) += 1;
        }
        seen.into_values().collect::<Vec<u32>>()
    };
    assert_eq!(again(0), [800]);
    let counts = again(FRONTEND_RANDOM);
    assert!(counts.len() == COUNT as usize && chi_square(&counts) < UNFAIR, "{counts:?}");
}
in_both_families!(the_same_ports_get_another_backend_at_another_time);

/// What XDP cannot send TC meets in the same jiffy, and both must choose alike: if TC drew anew, backends
/// that XDP can send to would get more than their share.
fn tc_draws_what_xdp_has_drawn<F: Net>() {
    for flags in [FRONTEND_RANDOM, FRONTEND_LEAST] {
        for port in 2_000..2_050 {
            let frame = tcp(SocketAddr::new(client_ip::<F>(), port), frontend::<F>(), SYN);
            // XDP stores nothing, so its choice is seen where it can send.
            let (node, twin) = (node::<F>(flags), node::<F>(flags));
            for route in F::maps(&node.world).routes.borrow_mut().values_mut() {
                route.hop.kind = HOP_NEIGHBOUR;
            }
            assert_eq!(node.xdp(&frame).action, Action::Pass);
            assert_eq!(node.ingress(&frame).view().dst, twin.xdp(&frame).view().dst, "{flags}");
        }
    }
}
in_both_families!(tc_draws_what_xdp_has_drawn);

fn of_two_the_one_with_fewer_flows_is_taken<F: Net>() {
    let node = node::<F>(FRONTEND_LEAST);
    // All but one have flows without end: whoever draws it takes it.
    (0..COUNT).for_each(|number| load::<F>(&node, number, 1_000_000));
    load::<F>(&node, 3, 0);
    let counts = spread::<F>(&node, 1_600);
    // Two draws miss it in (7/8)^2 of all cases: 375 are expected, 200 were one draw's. Five standard
    // deviations are 85.
    assert!((290..460).contains(&counts[3]), "{counts:?}");
    let rest: Vec<_> = counts.iter().copied().filter(|count| *count != counts[3]).collect();
    assert!(rest.iter().all(|count| (100..260).contains(count)), "{counts:?}");
}
in_both_families!(of_two_the_one_with_fewer_flows_is_taken);

/// Each flow that is opened is noted at once: without any count of the agent's they are spread far more
/// evenly than by chance.
fn what_was_opened_since_the_count_counts<F: Net>() {
    let node = node::<F>(FRONTEND_LEAST);
    let counts = spread::<F>(&node, 1_600);
    assert!(counts.iter().all(|count| count.abs_diff(200) <= 6), "{counts:?}");
    let noted: Vec<_> = (0..COUNT)
        .map(|number| F::maps(&node.world).loads.borrow()[&(FIRST + number)].opened)
        .collect();
    assert_eq!(noted, counts);
}
in_both_families!(what_was_opened_since_the_count_counts);

/// Twice the weight, twice the flows.
fn flows_are_compared_by_weight<F: Net>() {
    let node = node::<F>(FRONTEND_LEAST);
    (0..COUNT).for_each(|number| load::<F>(&node, number, 100));
    weigh::<F>(&node, 5, 2);
    let counts = spread::<F>(&node, 1_600);
    // 800 flows before and 1,600 now, in nine shares: 267 each, 533 for the heavy one; that it is drawn
    // as often as the others, which the table would change, keeps it below.
    assert!(counts[5] > 300, "{counts:?}");
    assert!(counts.iter().enumerate().all(|(at, count)| at == 5 || *count < 200), "{counts:?}");
}
in_both_families!(flows_are_compared_by_weight);

/// Where nobody asks for loads, none are kept.
fn loads_cost_only_those_who_want_them<F: Net>() {
    for flags in [0, FRONTEND_RANDOM] {
        let node = node::<F>(flags);
        spread::<F>(&node, 50);
        assert!(F::maps(&node.world).loads.borrow().is_empty());
    }
}
in_both_families!(loads_cost_only_those_who_want_them);

/// The one with fewer flows takes none: then the other has to do.
fn one_that_takes_no_flows_is_not_preferred<F: Net>() {
    let node = node::<F>(FRONTEND_LEAST);
    (1..COUNT).for_each(|number| load::<F>(&node, number, 1_000));
    F::maps(&node.world).backends.borrow_mut()[FIRST as usize].state =
        nodeport_common::abi::BACKEND_DRAINING;
    // Four slots are tried before a packet counts as one without a backend: of few packets, none is.
    assert_eq!(spread::<F>(&node, 100)[0], 0);
}
in_both_families!(one_that_takes_no_flows_is_not_preferred);

fn a_client_that_is_known_stays_whatever_the_algorithm<F: Net>() {
    for flags in [FRONTEND_RANDOM, FRONTEND_LEAST] {
        let node = node::<F>(flags);
        change::<F>(&node, |frontend| frontend.affinity = 600);
        let first = opens::<F>(&node, 2_000);
        load::<F>(&node, first, 1_000_000);
        for port in 2_001..2_100 {
            node.world.wait(1);
            assert_eq!(opens::<F>(&node, port), first);
        }
    }
}
in_both_families!(a_client_that_is_known_stays_whatever_the_algorithm);

/// Another algorithm is for new flows; those that are there stay where they are.
fn flows_stay_when_the_algorithm_changes<F: Net>() {
    let node = node::<F>(0);
    let open: Vec<_> = (2_000..2_040).map(|port| (port, opens::<F>(&node, port))).collect();
    for flags in [FRONTEND_RANDOM, FRONTEND_LEAST, 0] {
        change::<F>(&node, |frontend| {
            frontend.flags = frontend.flags & !(FRONTEND_RANDOM | FRONTEND_LEAST) | flags;
        });
        node.world.wait(7);
        for (port, backend) in &open {
            let from = SocketAddr::new(client_ip::<F>(), *port);
            let out = node.xdp(&tcp(from, frontend::<F>(), ACK));
            assert_eq!(number(out.view().dst), *backend, "{flags}");
        }
    }
}
in_both_families!(flows_stay_when_the_algorithm_changes);
