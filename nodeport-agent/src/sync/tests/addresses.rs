//! What is known of addresses, in the maps.

use super::*;

#[test]
fn addresses_of_the_node_follow_it_and_outlive_its_object() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    agent.set([]);
    agent.node = node("n1", &["192.0.2.7"]);
    agent.set([]);
    assert_eq!(fake.maps().addresses4, [([192, 0, 2, 7], ADDRESS_SERVED)].into());
    assert_eq!(fake.maps().addresses6.len(), 0);
    agent.node = node("n1", &[]);
    agent.set([]);
    assert_eq!(fake.maps().addresses4.len(), 1);
}

#[test]
fn addresses_that_frontends_name_are_known_as_long_as_one_does() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    let ports = || json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let balancer = || {
        let slice = slice("web", 1, ports(), two());
        entry(balanced("web", ports(), &["203.0.113.5"], &[]), vec![slice])
    };
    agent.set([("web", balancer())]);
    let (node, vip) = ([192, 0, 2, 1], [203, 0, 113, 5]);
    let known = [(node, ADDRESS_SERVED), (vip, ADDRESS_NAMED)];
    assert_eq!(fake.maps().addresses4, known.into());
    // The node gets that address: both are told of it.
    agent.sync.set_own_addresses(&[IpAddr::from(node), IpAddr::from(vip)].into());
    agent.set([]);
    let known = [(node, ADDRESS_SERVED | ADDRESS_OWN), (vip, ADDRESS_NAMED | ADDRESS_OWN)];
    assert_eq!(fake.maps().addresses4, known.into());
    // Another agent finds it so, and writes nothing.
    fake.take_written();
    let mut second = Agent::new(&fake);
    second.sync.set_own_addresses(&[IpAddr::from(node), IpAddr::from(vip)].into());
    second.set([("web", balancer())]);
    let of_addresses =
        |op: &Op| matches!(op, Op::PutAddress4(..) | Op::RemoveAddress4(_) | Op::PutAddress6(..));
    assert!(!fake.take_written().iter().any(of_addresses));
    // What nothing speaks for any more is forgotten.
    second.sync.set_own_addresses(&[IpAddr::from(node)].into());
    second.set([("web", Entry::default())]);
    assert_eq!(fake.maps().addresses4, [(node, ADDRESS_SERVED | ADDRESS_OWN)].into());
}

#[test]
fn addresses_that_could_not_be_written_are_tried_again() {
    let fake = Fake::new(SLOTS);
    let mut agent = Agent::new(&fake);
    fake.fail(|op| matches!(op, Op::PutAddress4(..)));
    assert_eq!(agent.set([]).failed.len(), 1);
    assert_eq!(fake.maps().addresses4.len(), 0);
    fake.fail(|_| false);
    agent.rest();
    assert_eq!(fake.maps().addresses4, [([192, 0, 2, 1], ADDRESS_SERVED)].into());
}
