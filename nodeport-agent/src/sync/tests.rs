//! Following a plan, against the maps in memory. The fake checks after every write that no
//! packet meets an inconsistent state; these tests check what it all comes to.

mod addresses;
mod weights;

use std::sync::Arc;

use foldhash::HashMap;
use nodeport_common::abi::{
    ADDRESS_NAMED, ADDRESS_OWN, ADDRESS_SERVED, BACKEND_DRAINING, BACKEND_GONE, BACKEND_USABLE,
    FRONTEND_AFFINITY, FRONTEND_AFFINITY_STEP, FRONTEND_YIELDS,
};
use serde_json::json;

use super::fake::Fake;
use super::*;
use crate::dataplane::Op;
use crate::model::testing::{
    annotated, balanced, draining, entry, name, node, ready, rules, service, slice,
};
use crate::model::{Entry, Node, Origin, Protocol, Service};
use crate::plan::{Held, Planner, Traffic, Update};

const SLOTS: usize = 1 << 16;

/// An agent without its loop.
pub(super) struct Agent {
    pub(super) fake: Fake,
    pub(super) planner: Planner,
    pub(super) sync: Sync,
    pub(super) now: Instant,
    node: Arc<Node>,
}

impl Agent {
    pub(super) fn new(fake: &Fake) -> Self {
        Self::seeded(fake, 7)
    }

    fn seeded(fake: &Fake, seed: u32) -> Self {
        let mut sync = Sync::start(Box::new(fake.clone())).unwrap();
        sync.set_seed(seed);
        let planner = Planner::new(crate::plan::testing::settings());
        let node = node("n1", &["192.0.2.1", "2001:db8::1"]);
        Self { fake: fake.clone(), planner, sync, now: Instant::now(), node }
    }

    pub(super) fn update(&mut self, entries: HashMap<crate::model::Name, Entry>) -> Report {
        let changed = self.planner.update(Update { node: Some(self.node.clone()), entries });
        self.sync.follow(self.planner.desired(), &changed.groups, true, self.now)
    }

    fn set<const N: usize>(&mut self, entries: [(&str, Entry); N]) -> Report {
        self.update(entries.into_iter().map(|(key, entry)| (name(key), entry)).collect())
    }

    /// Leaves these ports to processes of the node.
    pub(super) fn leave(&mut self, held: Held) -> Report {
        let changed = self.planner.leave(held);
        self.sync.follow(self.planner.desired(), &changed.groups, true, self.now)
    }

    /// Lets time pass until nothing is left to do.
    pub(super) fn rest(&mut self) {
        for _ in 0..100 {
            let Some(at) = self.sync.wake_at() else { return };
            self.now = self.now.max(at);
            self.sync.follow(self.planner.desired(), &BTreeSet::new(), true, self.now);
        }
        panic!("still busy");
    }

    /// What the plan means, in the words of [`fake::Maps::meaning`].
    pub(super) fn planned(&self) -> BTreeMap<String, BTreeSet<String>> {
        let words = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => format!("{:?}", address.octets()),
            std::net::IpAddr::V6(address) => format!("{:?}", address.octets()),
        };
        let mut meaning = BTreeMap::new();
        for group in self.planner.desired().groups.values() {
            for at in &group.frontends {
                let key = format!("{}:{}/{}", words(at.address), at.port, at.protocol.number());
                let usable = group.usable.iter().filter(|_| !group.yields.contains(at));
                let ends = usable.map(|one| format!("{}:{}", words(one.at.ip()), one.at.port()));
                meaning.insert(key, ends.collect());
            }
        }
        meaning
    }

    pub(super) fn check(&self) {
        assert_eq!(self.fake.maps().meaning(), self.planned());
    }
}

fn web_at(node_port: u16, endpoints: serde_json::Value) -> Entry {
    web_named("web", node_port, endpoints)
}

fn web_named(name: &str, node_port: u16, endpoints: serde_json::Value) -> Entry {
    let ports = json!([{"port": 80, "nodePort": node_port}]);
    entry(service(name, ports), vec![slice(name, 1, json!([{"port": 8080}]), endpoints)])
}

fn two() -> serde_json::Value {
    json!([ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2")])
}

fn key() -> GroupKey {
    use crate::model::{Family, PortName};
    let port = PortName { service: name("web"), port: "".into(), protocol: Protocol::Tcp };
    GroupKey { port, family: Family::V4, traffic: Traffic::External }
}

fn states(agent: &Agent) -> Vec<(String, u8)> {
    let (_, members) = agent.sync.place(&key()).unwrap_or_default();
    members.into_iter().map(|member| (member.at.ip().to_string(), member.state)).collect()
}

#[test]
fn a_service_comes_and_goes() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    assert!(agent.set([("web", web_at(30007, two()))]).failed.is_empty());
    agent.check();
    assert_eq!(fake.maps().addresses4.len(), 1);
    agent.set([("web", Entry::default())]);
    agent.check();
    agent.rest();
    let maps = fake.maps();
    assert_eq!((maps.live(), maps.ports.len(), maps.frontends4.len()), (0, 0, 0));
    assert!(agent.sync.state.groups.is_empty());
}

/// After each write, a client that is let in before and after is let in, and no other is.
#[test]
fn source_ranges_change_in_an_order_that_shuts_nobody_out_and_lets_nobody_in() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    let web = |ranges: &[&str]| {
        let service = balanced("web", json!([{"port": 80}]), &["192.0.2.50"], ranges);
        entry(service, vec![slice("web", 1, json!([{"port": 8080}]), two())])
    };
    let kinds = |fake: &Fake| -> String {
        let kind = |op: &Op| match op {
            Op::AddRange(..) => Some('+'),
            Op::RemoveRange(..) => Some('-'),
            Op::PutFrontend4(..) | Op::RemoveFrontend4(..) => Some('F'),
            _ => None,
        };
        fake.take_written().iter().filter_map(kind).collect()
    };
    let (one, other) = (&["10.0.0.0/8"][..], &["10.1.0.0/16"][..]);
    for (ranges, wanted) in
        [(Some(one), "+F"), (Some(other), "+-"), (Some(&[]), "F-"), (Some(one), "+F"), (None, "F-")]
    {
        agent.set([("web", ranges.map(web).unwrap_or_default())]);
        assert_eq!(kinds(&fake), wanted, "{ranges:?}");
        agent.check();
        agent.rest();
        fake.take_written();
    }
    assert!(fake.maps().ranges.is_empty());
}

#[test]
fn one_more_endpoint_costs_the_same_beside_many_services() {
    let count = |services: u16| {
        let fake = Fake::new(1 << 20);
        let mut agent = Agent::new(&fake);
        let others = (0..services).map(|n| {
            let named = format!("s{n}");
            (name(&named), web_named(&named, 30100 + n, two()))
        });
        agent.update(others.collect());
        agent.set([("web", web_at(30007, two()))]);
        agent.rest();
        fake.take_written();
        let three =
            json!([ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2"), ready("10.0.0.3", "n2")]);
        agent.set([("web", web_at(30007, three))]);
        fake.take_written().len()
    };
    assert_eq!(count(0), 3, "a backend, its slots, the frontend");
    assert_eq!(count(500), 3);
}

#[test]
fn a_backend_that_drains_keeps_its_index_and_generation() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    let before = agent.sync.place(&key()).unwrap();
    agent.set([(
        "web",
        web_at(30007, json!([ready("10.0.0.1", "n1"), draining("10.0.0.2", "n2")])),
    )]);
    // Until the barrier, a packet may be between the old table and it.
    assert_eq!(states(&agent)[1], ("10.0.0.2".into(), BACKEND_USABLE));
    agent.rest();
    assert_eq!(states(&agent)[1], ("10.0.0.2".into(), BACKEND_DRAINING));
    agent.set([("web", web_at(30007, two()))]);
    assert_eq!(agent.sync.place(&key()).unwrap(), before);
    agent.check();
}

#[test]
fn a_port_that_is_left_to_a_process_keeps_its_backends_and_comes_back() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    agent.rest();
    let (places, meaning) = (agent.sync.place(&key()), fake.maps().meaning());
    let ports = fake.maps().ports.clone();
    let any = ((30007, Protocol::Tcp), "0.0.0.0".parse().unwrap());
    agent.leave([any].into_iter().collect());
    agent.rest();
    agent.check();
    let frontends: Vec<_> =
        fake.maps().frontends4.values().map(|one| (one.flags, one.slots_len)).collect();
    assert_eq!(frontends, [(FRONTEND_YIELDS, 0)]);
    assert_eq!(agent.sync.place(&key()), places, "flows go on: backends and generations stay");
    assert_eq!(fake.maps().ports, ports, "packets of those flows are met");

    // An agent that starts meanwhile finds it so.
    let mut agent = Agent::new(&fake);
    agent.planner.leave([any].into_iter().collect());
    agent.set([("web", web_at(30007, two()))]);
    agent.rest();
    assert_eq!(agent.sync.place(&key()), places);
    agent.leave(Held::default());
    agent.rest();
    agent.check();
    assert_eq!(fake.maps().meaning(), meaning);
    assert_eq!(agent.sync.place(&key()), places);
}

/// Who was known before affinity was switched off is not known when it comes back; at no frontend, and
/// not if an agent begins in between.
#[test]
fn affinity_that_comes_back_knows_nobody() {
    let fake = Fake::new(SLOTS);
    let web = |affinity: &str, port: u16| {
        let ports = json!([{"port": 80, "nodePort": port}]);
        let balanced = json!({
            "metadata": {"name": "web", "uid": "web"},
            "spec": {"type": "LoadBalancer", "ports": ports, "sessionAffinity": affinity},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}},
        });
        let object = serde_json::from_value(balanced).unwrap();
        let service = Service::new(&object, Origin::Api, &rules());
        entry(service.into(), vec![slice("web", 1, json!([{"port": 8080}]), two())])
    };
    let told = || {
        let maps = fake.maps();
        let all = maps.frontends4.values().map(|one| (one.flags & FRONTEND_AFFINITY, one.affinity));
        let all: BTreeSet<_> = all.collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all.first().map(|(time, affinity)| (time / FRONTEND_AFFINITY_STEP, *affinity)).unwrap()
    };
    let mut agent = Agent::new(&fake);
    let set = |agent: &mut Agent, affinity, port| {
        agent.set([("web", web(affinity, port))]);
        agent.rest();
        agent.check();
        told()
    };
    assert_eq!(set(&mut agent, "None", 30007), (0, 0));
    for time in 0..300 {
        assert_eq!(set(&mut agent, "ClientIP", 30007), (time % 256, 10_800));
        // A frontend that comes later begins with what the others have.
        assert_eq!(set(&mut agent, "ClientIP", 30008), (time % 256, 10_800));
        assert_eq!(set(&mut agent, "None", 30008), ((time + 1) % 256, 0));
        if time % 100 == 0 {
            agent = Agent::new(&fake);
        }
        assert_eq!(set(&mut agent, "None", 30007), ((time + 1) % 256, 0));
    }
}

#[test]
fn an_endpoint_that_never_took_a_flow_needs_no_place_to_drain() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([(
        "web",
        web_at(30007, json!([ready("10.0.0.1", "n1"), draining("10.0.0.2", "n2")])),
    )]);
    agent.rest();
    assert_eq!(states(&agent).len(), 1);
}

#[test]
fn an_index_is_another_generation_after_its_backend_went() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    let index = agent.sync.place(&key()).unwrap().1[1].index;
    agent.set([("web", web_at(30007, json!([ready("10.0.0.1", "n1")])))]);
    agent.rest();
    let gone = fake.maps().backends4[&index];
    assert_eq!((gone.state, gone.generation), (BACKEND_GONE, 2));
}

#[test]
fn a_node_port_changes_hands_without_a_gap() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    fake.take_written();
    let other = web_named("other", 30007, json!([ready("10.0.0.9", "n2")]));
    agent.set([("web", Entry::default()), ("other", other)]);
    agent.check();
    let removed = |op: &Op| matches!(op, Op::RemoveFrontend4(_));
    assert!(!fake.take_written().iter().any(removed));
    agent.rest();
    assert_eq!(fake.maps().live(), 1);
}

#[test]
fn a_node_port_whose_new_owner_cannot_be_served_is_removed() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    fake.fail(|op| matches!(op, Op::WriteSlots { .. }));
    let other = web_named("other", 30007, json!([ready("10.0.0.9", "n2")]));
    let report = agent.set([("web", Entry::default()), ("other", other)]);
    let failed: Vec<_> = report.failed.iter().map(|(subject, _)| subject.to_string()).collect();
    assert_eq!(failed, ["Service default/other (TCP), IPv4"]);
    assert!(fake.maps().frontends4.is_empty());
    fake.fail(|_| false);
    agent.rest();
    agent.check();
}

#[test]
fn what_fails_is_tried_again_and_leaves_the_others_alone() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    fake.fail(|op| matches!(op, Op::PutBackend4(_, backend) if backend.address == [10, 0, 0, 2]));
    let other = web_named("other", 30008, json!([ready("10.0.0.9", "n2")]));
    let report = agent.set([("web", web_at(30007, two())), ("other", other)]);
    assert_eq!(report.failed.len(), 1);
    assert_eq!(fake.maps().frontends4.len(), 1);
    fake.fail(|_| false);
    agent.now += Duration::from_secs(1);
    let report = agent.sync.follow(agent.planner.desired(), &BTreeSet::new(), true, agent.now);
    assert_eq!(report.recovered, [Subject::Group(key())]);
    agent.check();
}

#[test]
fn a_full_map_of_slots_is_named_and_hits_one_service_only() {
    let fake = Fake::new(600);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    let other = web_named(
        "other",
        30008,
        json!([ready("10.0.0.8", "n2"), ready("10.0.0.9", "n2"), ready("10.0.0.7", "n2")]),
    );
    let report = agent.set([("other", other)]);
    let [(subject, error)] = &report.failed[..] else { panic!("{report:?}") };
    assert_eq!(subject.to_string(), "Service default/other (TCP), IPv4");
    assert!(error.to_string().contains("raise --max-slots"), "{error}");
    assert_eq!(fake.maps().meaning().len(), 1);
}

#[test]
fn room_that_waits_to_be_freed_is_found_when_it_is_needed() {
    let fake = Fake::new(600);
    let mut agent = Agent::new(&fake);
    for last in 1..20 {
        let endpoints = json!([ready("10.0.0.1", "n1"), ready(&format!("10.0.1.{last}"), "n2")]);
        let report = agent.set([("web", web_at(30007, endpoints))]);
        assert!(report.failed.is_empty(), "{report:?}");
        agent.check();
    }
}

#[test]
fn taking_over_writes_nothing_that_is_right() {
    let fake = Fake::new(SLOTS);
    let mut first = Agent::new(&fake);
    let entries = || [("web", web_at(30007, two())), ("other", web_named("other", 30008, two()))];
    first.set(entries());
    first.rest();
    let places = first.sync.place(&key());
    fake.take_written();
    drop(first);

    let mut second = Agent::new(&fake);
    second.set(entries());
    second.rest();
    assert_eq!(fake.take_written(), [Op::Barrier]);
    assert_eq!(second.sync.place(&key()), places);
    second.set([("web", web_at(30007, json!([ready("10.0.0.1", "n1")])))]);
    second.rest();
    second.check();
}

#[test]
fn taking_over_a_service_without_endpoints_takes_nobodys_table() {
    let fake = Fake::new(SLOTS);
    let mut first = Agent::new(&fake);
    // The table of the one is where that of the other would be, if it had one.
    let entries =
        || [("web", web_at(30007, two())), ("empty", web_named("empty", 30008, json!([])))];
    first.set(entries());
    first.rest();
    fake.take_written();
    let mut second = Agent::new(&fake);
    second.set(entries());
    second.rest();
    assert_eq!(fake.take_written(), [Op::Barrier]);
}

#[test]
fn taking_over_sees_what_changed_meanwhile() {
    let fake = Fake::new(SLOTS);
    let mut first = Agent::new(&fake);
    let gone = web_named("gone", 30009, json!([ready("10.0.0.7", "n1")]));
    first.set([("web", web_at(30007, two())), ("gone", gone)]);
    drop(first);

    let mut second = Agent::new(&fake);
    let endpoints =
        json!([draining("10.0.0.1", "n1"), ready("10.0.0.2", "n2"), ready("10.0.0.3", "n2")]);
    second.set([("web", web_at(30007, endpoints))]);
    second.check();
    second.rest();
    let told: Vec<_> = states(&second).into_iter().map(|(_, state)| state).collect();
    assert_eq!(told, [BACKEND_DRAINING, BACKEND_USABLE, BACKEND_USABLE]);
    assert_eq!(fake.maps().live(), 3);

    drop(second);
    let mut third = Agent::new(&fake);
    third.set([("web", web_at(30007, two()))]);
    third.check();
    third.rest();
    let generations: Vec<_> =
        third.sync.place(&key()).unwrap().1.iter().map(|m| m.generation).collect();
    assert_eq!(generations, [1, 1], "the one that drained came back as itself");
}

#[test]
fn nothing_found_is_removed_before_the_world_is_complete() {
    let fake = Fake::new(SLOTS);
    let mut first = Agent::new(&fake);
    first.set([("web", web_at(30007, two())), ("late", web_named("late", 30008, two()))]);
    drop(first);

    let mut second = Agent::new(&fake);
    let entries = [(name("web"), web_at(30007, two()))].into_iter().collect();
    let changed = second.planner.update(Update { node: Some(second.node.clone()), entries });
    second.sync.follow(second.planner.desired(), &changed.groups, false, second.now);
    assert_eq!(fake.maps().meaning().len(), 2);
    assert_eq!(fake.maps().live(), 4);
    second.sync.follow(second.planner.desired(), &BTreeSet::new(), true, second.now);
    second.rest();
    assert_eq!(fake.maps().meaning().len(), 1);
    assert_eq!(fake.maps().live(), 2);
}

/// The id of the service port.
fn id(agent: &Agent) -> Option<u32> {
    agent.sync.place(&key()).map(|(id, _)| id)
}

#[test]
fn an_id_that_another_had_counts_from_zero() {
    let fake = Fake::new(SLOTS);
    let mut first = Agent::new(&fake);
    let other = || web_named("other", 30008, two());
    first.set([("other", other())]);
    first.set([("web", web_at(30007, two()))]);
    let old = id(&first).unwrap();
    fake.maps().counted = [(1, 5), (old, 7)].into();
    first.set([("web", Entry::default())]);
    first.rest();
    drop(first);

    // An agent that starts anew gives out the lowest ids again.
    let mut second = Agent::new(&fake);
    fake.fail(|op| matches!(op, Op::ClearService(_)));
    let report = second.set([("other", other()), ("web", web_at(30007, two()))]);
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert_eq!((id(&second), fake.maps().frontends4.len()), (Some(old), 1));
    fake.fail(|_| false);
    second.now += Duration::from_secs(1);
    second.set([]);
    second.check();
    assert_eq!(fake.maps().counted, [(1, 5)].into(), "one that was served on keeps its own");

    fake.maps().counted.insert(old, 3);
    second.set([("web", web_at(30009, json!([ready("10.0.0.3", "n2")])))]);
    second.check();
    assert_eq!(fake.maps().counted, [(1, 5), (old, 3)].into(), "it is cleared once");
}

#[test]
fn an_id_of_both_families_is_cleared_once() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    let ports = || json!([{"port": 8080}]);
    let six = slice("web", 2, ports(), json!([ready("fd00::1", "n1")]));
    let web = web_at(30007, two());
    agent.set([("web", Entry { slices: [web.slices.clone(), vec![six]].concat(), ..web })]);
    agent.check();
    let cleared = |op: &Op| matches!(op, Op::ClearService(_));
    assert_eq!(fake.take_written().iter().filter(|op| cleared(op)).count(), 1);
    assert_eq!(fake.maps().frontends6.len(), 1);
}

#[test]
fn changes_wait_for_no_barrier_and_what_they_replace_for_the_next_one() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    agent.rest();
    fake.take_written();
    let mut written = Vec::new();
    for round in 1..=60 {
        // Each round replaces the backend of the one before; the fake lets a barrier take three.
        let endpoints = json!([ready("10.0.0.1", "n1"), ready(&format!("10.0.1.{round}"), "n2")]);
        agent.now += GATHER / 2;
        agent.set([("web", web_at(30007, endpoints))]);
        agent.check();
        written.extend(fake.take_written());
    }
    assert!(!written.contains(&Op::Barrier), "the loop has waited for one");
    let gone = |op: &Op| matches!(op, Op::PutBackend4(_, one) if one.state == BACKEND_GONE);
    assert!(written.iter().any(gone), "nothing was freed meanwhile");
    agent.rest();
    assert_eq!(fake.maps().live(), 2);
}

#[test]
fn a_barrier_that_fails_frees_nothing_and_is_tried_again() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    fake.fail(|op| *op == Op::Barrier);
    agent.set([("web", web_at(30007, json!([ready("10.0.0.1", "n1")])))]);
    let mut failed = Vec::new();
    for _ in 0..10 {
        agent.now += GATHER;
        failed.extend(agent.set([]).failed);
    }
    let subjects: BTreeSet<_> = failed.into_iter().map(|(subject, _)| subject).collect();
    assert_eq!(subjects, [Subject::Leavings].into());
    assert_eq!(fake.maps().live(), 2);
    fake.fail(|_| false);
    agent.rest();
    assert_eq!(fake.maps().live(), 1);
}

#[test]
fn another_seed_writes_the_tables_anew() {
    let fake = Fake::new(SLOTS);
    let mut first = Agent::new(&fake);
    first.set([("web", web_at(30007, two()))]);
    let before = fake.maps().frontends4.values().next().copied();
    let mut second = Agent::seeded(&fake, 8);
    second.set([("web", web_at(30007, two()))]);
    assert_ne!(fake.maps().frontends4.values().next().copied(), before);
    let after = fake.maps().frontends4.values().next().copied();
    assert_eq!(after.map(|one| one.service), before.map(|one| one.service));
    second.rest();
    second.check();
}

#[test]
fn frontends_that_point_nowhere_are_written_anew() {
    let fake = Fake::new(SLOTS);
    let mut first = Agent::new(&fake);
    first.set([("web", web_at(30007, two()))]);
    fake.maps().frontends4.values_mut().for_each(|value| value.slots_offset = u32::MAX - 3);
    let mut second = Agent::new(&fake);
    second.set([("web", web_at(30007, two()))]);
    second.check();
    second.rest();
    assert_eq!(fake.maps().live(), 2);
}

/// What one endpoint's change costs depends on its service alone, however many others there are.
#[test]
fn writes_for_a_change_do_not_grow_with_the_number_of_services() {
    let writes = |count: u16| {
        let fake = Fake::new(1 << 20);
        let mut agent = Agent::new(&fake);
        let other = |number: u16| {
            let named = format!("other-{number}");
            let ends = json!([ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2")]);
            (name(&named), web_named(&named, 30_010 + number, ends))
        };
        agent.update((0..count).map(other).collect());
        agent.set([("web", web_at(30007, two()))]);
        agent.rest();
        fake.take_written();
        let ends = json!([ready("10.0.0.1", "n1"), ready("10.0.0.3", "n2")]);
        agent.set([("web", web_at(30007, ends))]);
        agent.rest();
        agent.check();
        fake.take_written()
    };
    let (alone, among) = (writes(0), writes(1_000));
    assert_eq!(alone.len(), among.len(), "{alone:?}, {among:?}");
    // The backend that came, the slots, the frontend, the backend that went.
    assert!(alone.len() <= 5, "{alone:?}");
}

/// A client whose service is gone is told at its next packet, and what its pod still sends is held back:
/// for as long as such flows live, under the next agent as well.
#[test]
fn ports_of_a_service_that_went_are_known_as_long_as_its_flows_live() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", web_at(30007, two()))]);
    agent.rest();
    let ports = fake.maps().ports.clone();
    agent.set([("web", Entry::default())]);
    let (pass, gone) = (Duration::from_secs(1), agent.now);
    while agent.now - gone < LINGER - pass {
        agent.now += pass;
        agent.set([]);
        assert_eq!(fake.maps().ports, ports);
    }
    let mut next = Agent::new(&fake);
    next.set([]);
    for wait in [pass, LINGER - pass] {
        next.now += wait;
        next.set([]);
        assert_eq!(fake.maps().ports, ports, "its time begins anew");
    }
    fake.fail(|op| matches!(op, Op::SetPort(30007, 0)));
    next.now += 2 * pass;
    assert_eq!(next.set([]).failed.len(), 1);
    assert_eq!(fake.maps().ports.keys().copied().collect::<Vec<_>>(), [30007]);
    fake.fail(|_| false);
    next.rest();
    assert!(fake.maps().ports.is_empty());
}
