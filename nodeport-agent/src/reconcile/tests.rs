//! Steps from a store that is filled by hand, against the maps in memory.

use nodeport_common::abi::IPPROTO_TCP;
use serde_json::json;

use super::*;
use crate::dataplane::snat_ports::Key;
use crate::dataplane::{Op, Scarce};
use crate::health::LIMIT;
use crate::model::testing::{name, ready, service, slice};
use crate::plan::seed::of_uid;
use crate::sync::fake::Fake;

const UID: &str = "7d1a2b3c-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
const OTHER_UID: &str = "8d1a2b3c-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
const DEFAULT: u32 = 5;

fn of_cluster(before: Option<u32>) -> SeedRule {
    SeedRule::OfCluster { before, otherwise: DEFAULT }
}

/// A store in which all is listed; the Service `default/kubernetes` has this UID, if any.
fn listed(uid: Option<&str>) -> Arc<Store> {
    let store = Arc::new(Store::default());
    let web = service("web", json!([{"port": 80, "nodePort": 30007}]));
    store.list_services([web].into_iter().chain(uid.map(kubernetes)).collect());
    let endpoints = json!([ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2")]);
    store.list_slices(vec![slice("web", 1, json!([{"port": 8080}]), endpoints)]);
    store.list_node();
    store
}

fn kubernetes(uid: &str) -> Arc<crate::model::Service> {
    let service = service("kubernetes", json!([]));
    Arc::new(crate::model::Service { uid: uid.into(), ..(*service).clone() })
}

/// An agent that has taken its first step.
fn begun(store: &Arc<Store>, rule: SeedRule, fake: &Fake) -> Reconciler {
    let sync = Sync::start(Box::new(fake.clone())).unwrap();
    let mut reconciler =
        Reconciler::new(store.clone(), crate::plan::testing::settings(), sync, rule);
    reconciler.step(Instant::now());
    reconciler
}

/// The seed that the maps have, and what other commands are told of it.
fn seeds(reconciler: &mut Reconciler, fake: &Fake) -> (u32, Option<u32>) {
    reconciler.set_outdated();
    (fake.maps().seed, reconciler.take_state().unwrap().cluster_seed)
}

#[test]
fn a_clusters_uid_gives_the_seed_and_the_same_uid_the_same() {
    let seed = of_uid(UID).unwrap();
    let fakes = [Fake::new(1 << 16), Fake::new(1 << 16)];
    for fake in &fakes {
        let mut agent = begun(&listed(Some(UID)), of_cluster(None), fake);
        assert_eq!(seeds(&mut agent, fake), (seed, Some(seed)));
    }
    assert_eq!(fakes[0].maps().slots, fakes[1].maps().slots);
    let first = fakes[0].take_written().into_iter().find(|op| *op != Op::Barrier);
    assert_eq!(first, Some(Op::SetSeed(seed)), "before anything chooses by it");
}

#[test]
fn a_given_seed_wins_over_the_clusters() {
    let fake = Fake::new(1 << 16);
    let mut agent = begun(&listed(Some(UID)), SeedRule::Given(9), &fake);
    assert_eq!(seeds(&mut agent, &fake), (9, None));
}

#[test]
fn without_the_service_the_default_counts() {
    let fake = Fake::new(1 << 16);
    let mut agent = begun(&listed(None), of_cluster(None), &fake);
    assert_eq!(seeds(&mut agent, &fake), (DEFAULT, None));
}

#[test]
fn the_seed_stays_while_the_agent_runs() {
    let (fake, store, seed) = (Fake::new(1 << 16), listed(Some(UID)), of_uid(UID).unwrap());
    let mut agent = begun(&store, of_cluster(None), &fake);
    for change in [None, Some(OTHER_UID), Some("none")] {
        match change {
            Some(uid) => store.set_service(kubernetes(uid)),
            None => store.remove_service(&name("kubernetes")),
        }
        agent.step(Instant::now());
        assert_eq!(seeds(&mut agent, &fake), (seed, Some(seed)), "{change:?}");
    }
    let late = listed(None);
    let mut agent = begun(&late, of_cluster(None), &fake);
    late.set_service(kubernetes(UID));
    agent.step(Instant::now());
    assert_eq!(seeds(&mut agent, &fake), (DEFAULT, None));
}

#[test]
fn a_new_start_finds_the_seed_in_the_maps() {
    let (fake, seed) = (Fake::new(1 << 16), of_uid(UID).unwrap());
    drop(begun(&listed(Some(UID)), of_cluster(None), &fake));
    for uid in [Some(UID), None] {
        fake.take_written();
        let mut agent = begun(&listed(uid), of_cluster(Some(seed)), &fake);
        assert_eq!(seeds(&mut agent, &fake), (seed, Some(seed)));
        assert_eq!(fake.take_written(), [Op::Barrier], "{uid:?}");
    }
    let other = of_uid(OTHER_UID).unwrap();
    let mut agent = begun(&listed(Some(OTHER_UID)), of_cluster(Some(seed)), &fake);
    assert_eq!(seeds(&mut agent, &fake), (other, Some(other)));
}

#[test]
fn a_seed_that_cannot_be_written_is_tried_again() {
    let fake = Fake::new(1 << 16);
    fake.fail(|op| matches!(op, Op::SetSeed(_)));
    let mut agent = begun(&listed(Some(UID)), of_cluster(None), &fake);
    assert_eq!(agent.failures.keys().collect::<Vec<_>>(), [&Subject::Seed]);
    fake.fail(|_| false);
    agent.step(agent.wake_at().unwrap());
    agent.step(Instant::now() + std::time::Duration::from_secs(5));
    assert_eq!(fake.maps().seed, of_uid(UID).unwrap());
    assert!(agent.failures.is_empty());
}

/// One tenant's Service that finds no room must not take the node from all others' balancers.
#[test]
fn a_service_that_cannot_be_written_makes_nobody_unwell() {
    let fake = Fake::new(1 << 16);
    fake.fail(|op| matches!(op, Op::PutFrontend4(..)));
    let mut agent = begun(&listed(None), of_cluster(None), &fake);
    agent.step(Instant::now());
    assert_eq!(agent.take_state().unwrap().failures.len(), 1);
    assert!(agent.health().is_healthy(Instant::now() + 2 * LIMIT));
}

#[test]
fn scarce_ports_are_a_finding_about_their_service_as_long_as_they_are() {
    let fake = Fake::new(1 << 16);
    let mut agent = begun(&listed(None), of_cluster(None), &fake);
    let told = |agent: &mut Reconciler| {
        agent.step(Instant::now());
        let state = agent.take_state()?;
        Some(state.findings.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let id = agent.take_state().unwrap().services[0].id;
    assert_eq!(told(&mut agent), None);
    let to = Key {
        backend: "10.0.0.1:8080".parse().unwrap(),
        source: "10.1.0.1".parse().unwrap(),
        protocol: IPPROTO_TCP,
    };
    let (scarce, unreserved) = (vec![Scarce { service: id, to }], Some("why".to_owned()));
    let report = PortReport { ports: 1_000, scarce, unreserved };
    fake.maps().port_report = Arc::new(report.clone());
    let findings = told(&mut agent).unwrap();
    assert!(
        findings[0].starts_with("Service default/web: source ports: most of the 1000 "),
        "{findings:?}"
    );
    assert!(findings[0].contains("to the backend 10.0.0.1:8080/TCP"), "{findings:?}");
    assert!(findings[1].starts_with("Node ") && findings[1].ends_with(": why"), "{findings:?}");
    assert_eq!(told(&mut agent), None, "nothing is new");
    fake.maps().port_report = Arc::new(PortReport { scarce: Vec::new(), ..report });
    assert_eq!(told(&mut agent).unwrap().len(), 1);
}
