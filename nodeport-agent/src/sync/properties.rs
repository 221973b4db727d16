//! Whatever happens to services, writes and agents, and in whatever order: after every write
//! packets meet a consistent state (the fake sees to that), and in the end the maps mean what
//! the plan says and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use nodeport_common::abi::{PORT_BACKEND, PORT_FRONTEND};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fake::Fake;
use super::tests::Agent;
use crate::model::testing::{annotated, balanced, draining, entry, name, ready, slice};
use crate::model::{Algorithm, Entry, Protocol, Service};
use crate::plan::{self, FrontendAt, Held, NodePort};

#[derive(Clone, Debug)]
enum Step {
    /// Some services change, all at once.
    Change(Vec<(u8, Option<Shape>)>),
    /// Time passes: retries and tidying are due.
    Wait(u64),
    /// From now on every so-many-th write fails.
    Fail(u32),
    /// From now on these ports are left to processes, at any address or at one.
    Leave(Vec<(u16, bool)>),
    /// The agent is killed and started again.
    Restart,
}

#[derive(Clone, Debug)]
struct Shape {
    node_port: u16,
    /// Which of a load balancer's addresses it has, in both families; 0 for none.
    balancer: u8,
    /// Bits: which source ranges it has.
    ranges: u8,
    /// Weights of three endpoints.
    weights: [u32; 3],
    algorithm: usize,
    endpoints: Vec<End>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    six: bool,
    last: u8,
    local: bool,
    draining: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let end = (any::<bool>(), 1u8..6, any::<bool>(), prop::bool::weighted(0.3))
        .prop_map(|(six, last, local, draining)| End { six, last, local, draining });
    let balance = (prop::array::uniform3(prop_oneof![3 => Just(1u32), 1 => 0u32..4]), 0usize..3);
    let ends = prop::collection::vec(end, 0..8);
    let shape = (30000u16..30004, 0u8..3, 0u8..16, balance, ends).prop_map(
        |(node_port, balancer, ranges, (weights, algorithm), endpoints)| Shape {
            node_port,
            balancer,
            ranges,
            weights,
            algorithm,
            endpoints,
        },
    );
    let change = prop::collection::vec((0u8..4, prop::option::weighted(0.85, shape)), 1..4);
    prop_oneof![
        6 => change.prop_map(Step::Change),
        2 => prop_oneof![Just(0), Just(30), Just(500), Just(60_000)].prop_map(Step::Wait),
        1 => (0u32..4).prop_map(Step::Fail),
        1 => prop::collection::vec((30000u16..30004, any::<bool>()), 0..3).prop_map(Step::Leave),
        1 => Just(Step::Restart),
    ]
}

fn to_entry(named: &str, shape: &Shape) -> Entry {
    let ports = json!([{"port": 80, "nodePort": shape.node_port}]);
    let of = |six: bool| -> Vec<Value> {
        let ends = shape.endpoints.iter().filter(|end| end.six == six);
        ends.map(|end| {
            let address = match six {
                true => format!("fd00::{}", end.last),
                false => format!("10.0.0.{}", end.last),
            };
            let node = if end.local { "n1" } else { "n2" };
            if end.draining { draining(&address, node) } else { ready(&address, node) }
        })
        .collect()
    };
    let ends = [of(false), of(true)].into_iter().zip(1..).filter(|(ends, _)| !ends.is_empty());
    let slices =
        ends.map(|(ends, number)| slice(named, number, json!([{"port": 80}]), ends.into()));
    entry(to_service(named, ports, shape), slices.collect())
}

const RANGES: [&str; 4] = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "192.0.2.7/32"];

fn to_service(named: &str, ports: Value, shape: &Shape) -> Arc<Service> {
    let ips = [format!("192.0.2.{}", shape.balancer), format!("2001:db8::{}", shape.balancer)];
    let ips: Vec<&str> = ips.iter().filter(|_| shape.balancer > 0).map(String::as_str).collect();
    let is_there = |(bit, _): &(usize, &&str)| shape.ranges & 1 << bit != 0;
    let ranges: Vec<_> = RANGES.iter().enumerate().filter(is_there).map(|(_, one)| *one).collect();
    let mut service = Service::clone(&balanced(named, ports, &ips, &ranges));
    service.algorithm = Algorithm::ALL[shape.algorithm];
    let [a, b, c] = shape.weights;
    let weights = format!("10.0.0.1={a}, 10.0.0.2={b}, fd00::1={c}");
    service.weights = annotated(
        "",
        json!([{"port": 80, "nodePort": 30000}]),
        json!({"nodeport.dev/weights": weights}),
    )
    .weights
    .clone();
    Arc::new(service)
}

fn held((port, everywhere): &(u16, bool)) -> (NodePort, IpAddr) {
    let address = if *everywhere { "0.0.0.0" } else { "192.0.2.1" };
    ((*port, Protocol::Tcp), address.parse().unwrap())
}

fn run(steps: &[Step]) {
    let fake = Fake::new(1 << 15);
    let mut agent = Agent::new(&fake);
    let mut world = HashMap::default();
    let mut left = Held::default();
    for step in steps {
        match step {
            Step::Change(changes) => {
                let mut entries = HashMap::default();
                for (number, shape) in changes {
                    let named = format!("s{number}");
                    let entry =
                        shape.as_ref().map_or_else(Entry::default, |shape| to_entry(&named, shape));
                    entries.insert(name(&named), entry);
                }
                world.extend(entries.clone());
                agent.update(entries);
            }
            Step::Wait(milliseconds) => {
                agent.now += Duration::from_millis(*milliseconds);
                agent.update(HashMap::default());
            }
            Step::Fail(every) => {
                let (every, mut count) = (*every, 0);
                fake.fail(move |_| {
                    count += 1;
                    every > 0 && count % (every + 1) == 0
                });
            }
            Step::Leave(ports) => {
                left = ports.iter().map(held).collect();
                agent.leave(left.clone());
            }
            Step::Restart => {
                fake.fail(|_| false);
                agent = Agent::new(&fake);
                agent.planner.leave(left.clone());
                agent.update(world.clone());
            }
        }
    }
    fake.fail(|_| false);
    agent.update(HashMap::default());
    agent.rest();
    agent.check();
    let planner = &agent.planner;
    assert_eq!(*planner.desired(), plan::plan(planner.model(), planner.settings()));
    assert_eq!(plan::check::desired(planner.desired()), []);
    check_nothing_is_lost(&agent);
}

fn check_nothing_is_lost(agent: &Agent) {
    let state = &agent.sync.state;
    assert!(!state.has_leavings() && state.adoption.is_none());
    let members: usize = state.groups.values().map(|placed| placed.members.len()).sum();
    assert_eq!(agent.fake.maps().live(), members, "every live backend is somebody's");
    let mut regions = super::regions::Regions::new(1 << 15);
    for table in state.groups.values().flat_map(|placed| &placed.tables) {
        assert!(regions.reserve(table.region), "tables overlap");
    }
    let (left, right) = (format!("{regions:?}"), format!("{:?}", state.regions));
    assert_eq!(left, right, "what is in no table is free");
    check_ports(agent);
    check_ranges(agent);
    check_shares(agent);
}

/// Each backend has as many slots as its weight is of all weights, and is known to weigh that.
fn check_shares(agent: &Agent) {
    let maps = agent.fake.maps();
    for (key, group) in agent.planner.desired().groups.iter().filter(|(_, it)| it.opens_flows()) {
        let (_, members) = agent.sync.place(key).unwrap_or_default();
        let Some(at) = group.frontends.iter().find(|at| !group.yields.contains(at)) else {
            continue;
        };
        let slots = maps.slots_of(at);
        let sum: u32 = group.usable.iter().map(|target| target.weight).sum();
        for target in &group.usable {
            let member = members.iter().find(|member| member.at == target.at).unwrap();
            let count = slots.iter().filter(|slot| **slot == member.index).count() as f64;
            let fair = slots.len() as f64 * f64::from(target.weight) / f64::from(sum);
            assert!(fair * 0.99 - 1.0 <= count && count <= fair + 2.0, "{count}, fair: {fair}");
            assert_eq!(maps.weight(target.at.ip(), member.index), target.weight);
        }
    }
}

/// Who may use what is guarded is as planned, and nothing is left of what was guarded before.
fn check_ranges(agent: &Agent) {
    let mut wanted = BTreeMap::new();
    let mut count = 0;
    for group in agent.planner.desired().groups.values() {
        count += group.ranges.len();
        for FrontendAt { address, port, protocol } in &group.guarded {
            let name = format!("{address}:{port}/{}", protocol.number());
            wanted.insert(name, group.ranges.iter().copied().collect::<BTreeSet<_>>());
        }
    }
    assert_eq!(agent.fake.maps().guarded(), wanted);
    assert_eq!(agent.fake.maps().ranges.len(), count);
}

fn check_ports(agent: &Agent) {
    let mut wanted: BTreeMap<u16, u8> = BTreeMap::new();
    let groups = agent.planner.desired().groups.iter();
    for (key, group) in groups {
        for at in &group.frontends {
            *wanted.entry(at.port).or_default() |= PORT_FRONTEND;
        }
        let (_, members) = agent.sync.place(key).unwrap_or_default();
        for target in group.usable.iter().chain(&group.lingering) {
            if members.iter().any(|member| member.at == target.at) {
                *wanted.entry(target.at.port()).or_default() |= PORT_BACKEND;
            }
        }
    }
    assert_eq!(agent.fake.maps().ports, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_maps_end_up_as_the_plan_says(steps in prop::collection::vec(step(), 1..25)) {
        run(&steps);
    }
}
