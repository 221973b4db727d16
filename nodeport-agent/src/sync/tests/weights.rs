//! Weights and algorithms, in the maps.

use super::*;

/// Shares of the table's slots, by address, in percent.
fn shares(agent: &Agent) -> BTreeMap<String, u32> {
    let maps = agent.fake.maps();
    let frontend = *maps.frontends4.values().next().unwrap();
    let (first, len) = (frontend.slots_offset as usize, frontend.slots_len as usize);
    let mut shares = BTreeMap::new();
    for index in &maps.slots[first..first + len] {
        let address = std::net::Ipv4Addr::from(maps.backends4[index].address).to_string();
        *shares.entry(address).or_insert(0) += 1;
    }
    shares.values_mut().for_each(|count| *count = (*count * 100 + len as u32 / 2) / len as u32);
    shares
}

fn weighted(weights: &str, algorithm: &str) -> Entry {
    let ports = json!([{"port": 80, "nodePort": 30007}]);
    let annotations = json!({"nodeport.dev/weights": weights, "nodeport.dev/algorithm": algorithm});
    let slices = vec![slice("web", 1, json!([{"port": 8080}]), two())];
    entry(annotated("web", ports, annotations), slices)
}

#[test]
fn slots_and_backends_follow_weights() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    let of = |one, other| [("10.0.0.1".to_owned(), one), ("10.0.0.2".to_owned(), other)].into();
    agent.set([("web", weighted("", "maglev"))]);
    assert_eq!(shares(&agent), of(50, 50));
    let before = agent.sync.place(&key()).unwrap();
    fake.take_written();
    agent.set([("web", weighted("*=7", "maglev"))]);
    let writes = fake.take_written();
    let only_backends = writes.iter().all(|op| matches!(op, Op::PutBackend4(..)));
    assert!(only_backends && writes.len() == 2, "the table stays: {writes:?}");
    agent.set([("web", weighted("10.0.0.1=3", "maglev"))]);
    assert_eq!(shares(&agent), of(75, 25));
    let weights: Vec<_> = fake.maps().backends4.values().map(|one| one.weight).collect();
    assert_eq!(weights, [3, 1]);
    agent.set([("web", weighted("10.0.0.1=0", "maglev"))]);
    agent.rest();
    assert_eq!(shares(&agent), [("10.0.0.2".to_owned(), 100)].into());
    assert_eq!(states(&agent)[0], ("10.0.0.1".into(), BACKEND_DRAINING));
    agent.set([("web", weighted("", "maglev"))]);
    agent.rest();
    assert_eq!(agent.sync.place(&key()).unwrap(), before, "its flows have gone on");
}

#[test]
fn another_algorithm_writes_the_frontend_alone() {
    use nodeport_common::abi::{FRONTEND_LEAST, FRONTEND_RANDOM};
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([("web", weighted("node/n1=3", "maglev"))]);
    agent.rest();
    fake.take_written();
    for (algorithm, flags) in
        [("random", FRONTEND_RANDOM), ("least", FRONTEND_LEAST), ("maglev", 0)]
    {
        agent.set([("web", weighted("node/n1=3", algorithm))]);
        let written = fake.take_written();
        let [Op::PutFrontend4(_, frontend)] = written[..] else { panic!("{written:?}") };
        assert_eq!(frontend.flags, flags, "{algorithm}");
    }
}

#[test]
fn taking_over_knows_tables_with_weights() {
    let fake = Fake::new(SLOTS);
    let mut first = Agent::new(&fake);
    first.set([("web", weighted("10.0.0.1=3", "least"))]);
    first.rest();
    fake.take_written();
    drop(first);
    let mut second = Agent::new(&fake);
    second.set([("web", weighted("10.0.0.1=3", "least"))]);
    second.rest();
    assert_eq!(fake.take_written(), [Op::Barrier]);
    drop(second);
    // Another weight meanwhile: the table is made anew, and no backend.
    let mut third = Agent::new(&fake);
    third.set([("web", weighted("10.0.0.2=3", "least"))]);
    third.rest();
    let share = shares(&third);
    assert_eq!((share["10.0.0.1"], share["10.0.0.2"]), (25, 75));
    assert_eq!(fake.maps().live(), 2);
}
