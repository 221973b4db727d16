//! The plan as a whole.

use serde_json::json;

use super::testing::settings;
use super::*;
use crate::model::testing::{draining, entry, name, node, ready, service, service_with, slice};
use crate::model::{Family, PortName, Protocol};

fn planner() -> Planner {
    let mut planner = Planner::new(settings());
    let node = Some(node("n1", &["192.0.2.1", "2001:db8::1"]));
    planner.update(Update { node, entries: HashMap::default() });
    planner
}

/// Takes in entries, leaving the node as it is, and holds the outcome against the plan from
/// nothing.
fn update<const N: usize>(planner: &mut Planner, entries: [(&str, Entry); N]) -> Changed {
    let entries = entries.into_iter().map(|(key, entry)| (name(key), entry)).collect();
    let changed = planner.update(Update { node: planner.model.node.clone(), entries });
    assert_eq!(planner.desired, plan(&planner.model, &settings()));
    assert_eq!(check::desired(&planner.desired), []);
    changed
}

fn key(service: &str, port: &str, family: Family) -> GroupKey {
    let port = PortName { service: name(service), port: port.into(), protocol: Protocol::Tcp };
    GroupKey { port, family, traffic: Traffic::External }
}

fn ports() -> serde_json::Value {
    json!([{"port": 80, "nodePort": 30007}])
}

fn web(endpoints: serde_json::Value) -> Entry {
    entry(service("web", ports()), vec![slice("web", 1, json!([{"port": 8080}]), endpoints)])
}

fn usable(planner: &Planner, key: &GroupKey) -> Vec<String> {
    planner.desired.groups[key].usable.iter().map(|target| target.at.to_string()).collect()
}

#[test]
fn a_node_port_leads_to_its_endpoints() {
    let mut planner = planner();
    update(&mut planner, [("web", web(json!([ready("10.0.0.2", "n2"), ready("10.0.0.1", "n1")])))]);
    let group = &planner.desired.groups[&key("web", "", Family::V4)];
    assert_eq!(group.frontends, [FrontendAt::node_port(Family::V4, 30007, Protocol::Tcp)].into());
    let told: Vec<_> = group.usable.iter().map(|t| (t.at.to_string(), t.local)).collect();
    assert_eq!(told, [("10.0.0.1:8080".into(), true), ("10.0.0.2:8080".into(), false)]);
    assert_eq!(planner.desired.node_addresses.as_ref().unwrap().len(), 2);
}

#[test]
fn absent_families_are_those_of_the_slices() {
    let mut planner = planner();
    let endpoint = |address| json!([ready(address, "n1")]);
    let both = vec![
        slice("web", 1, json!([{"port": 80}]), endpoint("10.0.0.1")),
        slice("web", 2, json!([{"port": 80}]), endpoint("fd00::1")),
    ];
    update(&mut planner, [("web", entry(service("web", ports()), both.clone()))]);
    assert_eq!(planner.desired.groups.len(), 2);

    let one = service_with("web", json!({"ports": ports(), "ipFamilies": ["IPv6"]}));
    update(&mut planner, [("web", entry(one, both))]);
    let families: Vec<_> = planner.desired.groups.keys().map(|key| key.family).collect();
    assert_eq!(families, [Family::V6]);
}

#[test]
fn a_family_that_is_asked_for_is_served_without_endpoints() {
    let mut planner = planner();
    let spec = json!({"ports": ports(), "ipFamilies": ["IPv4"]});
    update(&mut planner, [("web", entry(service_with("web", spec), vec![]))]);
    assert_eq!(planner.desired.groups[&key("web", "", Family::V4)].usable, []);
}

/// As kube-proxy: dropped where endpoints exist that the policy excludes, refused where none does.
#[test]
fn packets_without_an_endpoint_are_dropped_only_if_others_could_answer() {
    let mut planner = planner();
    let policy = |policy| json!({"ports": ports(), "externalTrafficPolicy": policy});
    let unready = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false}});
    for (etp, endpoints, drops) in [
        ("Local", json!([ready("10.0.0.2", "n2")]), true),
        ("Local", json!([draining("10.0.0.2", "n2")]), true),
        ("Local", json!([ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2")]), false),
        ("Local", json!([unready]), false),
        ("Local", json!([]), false),
        ("Cluster", json!([ready("10.0.0.2", "n2")]), false),
        ("Cluster", json!([]), false),
    ] {
        let slices = vec![slice("web", 1, json!([{"port": 80}]), endpoints.clone())];
        let mut spec = policy(etp);
        spec["ipFamilies"] = json!(["IPv4"]);
        update(&mut planner, [("web", entry(service_with("web", spec), slices))]);
        let group = &planner.desired.groups[&key("web", "", Family::V4)];
        assert_eq!(group.drops, drops, "{etp}: {endpoints}");
    }
}

#[test]
fn a_named_port_may_differ_between_slices() {
    let mut planner = planner();
    let listed = json!([{"name": "http", "port": 80, "nodePort": 30007}]);
    let slices = vec![
        slice("web", 1, json!([{"name": "http", "port": 8080}]), json!([ready("10.0.0.1", "n1")])),
        slice(
            "web",
            2,
            json!([{"name": "http", "port": 8081}, {"name": "x", "port": 1}]),
            json!([ready("10.0.0.2", "n1")]),
        ),
    ];
    update(&mut planner, [("web", entry(service("web", listed), slices))]);
    let wanted = ["10.0.0.1:8080", "10.0.0.2:8081"];
    assert_eq!(usable(&planner, &key("web", "http", Family::V4)), wanted);
}

/// A service port has the slice's port of its own name and protocol; no name is a name too.
#[test]
fn ports_are_matched_by_name_and_protocol() {
    for (of_service, of_slice, matches) in [
        (json!({}), json!({}), true),
        (json!({"name": ""}), json!({"name": null}), true),
        (json!({"name": "http"}), json!({}), false),
        (json!({}), json!({"name": "http"}), false),
        (json!({"name": "http"}), json!({"name": "HTTP"}), false),
        (json!({"name": "http"}), json!({"name": "http", "protocol": "TCP"}), true),
        (json!({"name": "http"}), json!({"name": "http", "protocol": "UDP"}), false),
        // Without a number it means every port, which is not for proxies.
        (json!({"name": "http"}), json!({"name": "http", "port": null}), false),
    ] {
        let mut planner = planner();
        let (mut port, mut behind) =
            (json!({"port": 80, "nodePort": 30007}), json!({"port": 8080}));
        let with = |one: &mut serde_json::Value, more: &serde_json::Value| {
            one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        };
        with(&mut port, &of_service);
        with(&mut behind, &of_slice);
        let slices = vec![slice("web", 1, json!([behind]), json!([ready("10.0.0.1", "n2")]))];
        update(&mut planner, [("web", entry(service("web", json!([port])), slices))]);
        let named = of_service["name"].as_str().unwrap_or_default();
        let found = usable(&planner, &key("web", named, Family::V4));
        assert_eq!(found.len(), usize::from(matches), "{of_service} {of_slice}");
    }
}

/// A thousand slices of one service make one set of endpoints.
#[test]
fn a_service_may_have_a_thousand_slices() {
    let mut planner = planner();
    let one = |number: u32| {
        let address = format!("10.1.{}.{}", number / 250, number % 250 + 1);
        slice("web", number, json!([{"port": 80}]), json!([ready(&address, "n2")]))
    };
    update(&mut planner, [("web", entry(service("web", ports()), (0..1_000).map(one).collect()))]);
    assert_eq!(usable(&planner, &key("web", "", Family::V4)).len(), 1_000);
}

#[test]
fn an_endpoint_in_two_slices_counts_once() {
    let mut planner = planner();
    let of = |number, endpoint| slice("web", number, json!([{"port": 80}]), json!([endpoint]));
    let slices = vec![of(1, draining("10.0.0.1", "n2")), of(2, ready("10.0.0.1", "n2"))];
    update(&mut planner, [("web", entry(service("web", ports()), slices))]);
    let group = &planner.desired.groups[&key("web", "", Family::V4)];
    assert_eq!((group.usable.len(), group.lingering.len()), (1, 0));
}

#[test]
fn endpoints_that_take_no_new_flows_linger() {
    let mut planner = planner();
    let unready = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false}});
    let endpoints = json!([ready("10.0.0.1", "n1"), draining("10.0.0.2", "n1"), unready]);
    let both = json!([
        {"name": "t", "port": 80, "nodePort": 30007},
        {"name": "u", "port": 80, "nodePort": 30007, "protocol": "UDP"},
    ]);
    let behind = json!([{"name": "t", "port": 80}, {"name": "u", "port": 80, "protocol": "UDP"}]);
    let entry = entry(service("web", both), vec![slice("web", 1, behind, endpoints)]);
    update(&mut planner, [("web", entry)]);
    let lingering: Vec<_> =
        planner.desired.groups.values().map(|group| group.lingering.len()).collect();
    // A UDP flow to an endpoint that does not serve must find another.
    assert_eq!(lingering, [2, 1]);
}

#[test]
fn affinity_is_that_of_the_service() {
    let mut planner = planner();
    for (affinity, seconds) in [("ClientIP", 10_800), ("None", 0)] {
        let spec = json!({"ports": ports(), "ipFamilies": ["IPv4"], "sessionAffinity": affinity});
        update(&mut planner, [("web", entry(service_with("web", spec), vec![]))]);
        assert_eq!(planner.desired.groups[&key("web", "", Family::V4)].affinity, seconds);
    }
}

#[test]
fn with_the_local_policy_only_endpoints_on_this_node_count() {
    let mut planner = planner();
    let spec = json!({"ports": ports(), "externalTrafficPolicy": "Local"});
    let endpoints = json!([ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2")]);
    let slices = vec![slice("web", 1, json!([{"port": 80}]), endpoints)];
    update(&mut planner, [("web", entry(service_with("web", spec), slices))]);
    assert_eq!(usable(&planner, &key("web", "", Family::V4)), ["10.0.0.1:80"]);
}

#[test]
fn of_two_that_want_one_node_port_the_first_has_it_until_it_goes() {
    let mut planner = planner();
    let other = |name| {
        entry(
            service(name, ports()),
            vec![slice(name, 1, json!([{"port": 80}]), json!([ready("10.0.0.1", "n1")]))],
        )
    };
    update(&mut planner, [("b", other("b"))]);
    let changed = update(&mut planner, [("a", other("a"))]);
    assert_eq!(changed.groups.len(), 2, "one comes, one goes");
    let finding = &changed.findings[&name("b")][0];
    assert!(finding.to_string().contains("30007 is taken by Service default/a"), "{finding}");
    assert_eq!(finding.field, "spec.ports[0].nodePort");

    let changed = update(&mut planner, [("a", Entry::default())]);
    assert_eq!(changed.findings[&name("b")], []);
    assert!(planner.desired.groups.contains_key(&key("b", "", Family::V4)));
}

#[test]
fn an_endpoint_at_a_node_port_of_this_node_is_refused_as_long_as_it_is_one() {
    let mut planner = planner();
    let loops = |address| {
        let slices =
            vec![slice("loop", 1, json!([{"port": 30007}]), json!([ready(address, "n1")]))];
        entry(service("loop", json!([{"port": 80, "nodePort": 30008}])), slices)
    };
    update(&mut planner, [("loop", loops("192.0.2.1"))]);
    assert_eq!(usable(&planner, &key("loop", "", Family::V4)), ["192.0.2.1:30007"]);

    let changed = update(&mut planner, [("web", web(json!([ready("10.0.0.1", "n1")])))]);
    assert_eq!(usable(&planner, &key("loop", "", Family::V4)).len(), 0);
    let finding = changed.findings[&name("loop")][0].to_string();
    assert!(finding.contains("endpoints[0].addresses[0]: 192.0.2.1:30007"), "{finding}");

    update(&mut planner, [("web", Entry::default())]);
    assert_eq!(usable(&planner, &key("loop", "", Family::V4)).len(), 1);
    update(&mut planner, [("loop", loops("192.0.2.2"))]);
    assert_eq!(usable(&planner, &key("loop", "", Family::V4)).len(), 1);
}

#[test]
fn what_stays_the_same_is_not_reported_as_changed() {
    let mut planner = planner();
    let entry = web(json!([ready("10.0.0.1", "n1")]));
    assert_eq!(update(&mut planner, [("web", entry.clone())]).groups.len(), 1);
    assert_eq!(update(&mut planner, [("web", entry)]).groups.len(), 0);
}

#[test]
fn slices_without_a_service_wait_for_it() {
    let mut planner = planner();
    let full = web(json!([ready("10.0.0.1", "n1")]));
    let waiting = Entry { service: None, slices: full.slices.clone() };
    assert_eq!(update(&mut planner, [("web", waiting)]).groups.len(), 0);
    assert_eq!(update(&mut planner, [("web", full)]).groups.len(), 1);
    assert_eq!(update(&mut planner, [("web", Entry::default())]).groups.len(), 1);
    assert_eq!(planner.desired.groups.len(), 0);
}

#[test]
fn a_change_of_the_node_is_felt_everywhere() {
    let mut planner = planner();
    let hints = |address: &str, zone: &str| json!({"addresses": [address], "hints": {"forZones": [{"name": zone}]}});
    let endpoints = json!([hints("10.0.0.1", "a"), hints("10.0.0.2", "b")]);
    update(&mut planner, [("web", web(endpoints))]);
    assert_eq!(usable(&planner, &key("web", "", Family::V4)).len(), 2);

    let mut moved = (*node("n1", &["192.0.2.9"])).clone();
    moved.zone = Some("b".into());
    let node = Some(Arc::new(moved));
    planner.update(Update { node, entries: HashMap::default() });
    assert_eq!(usable(&planner, &key("web", "", Family::V4)), ["10.0.0.2:8080"]);
    assert_eq!(planner.desired.node_addresses.as_ref().unwrap().len(), 1);
}
