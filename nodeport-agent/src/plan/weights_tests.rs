//! What weights and algorithms do to a plan, row by row.

use serde_json::{Value, json};

use super::testing::settings;
use super::*;
use crate::model::testing::{annotated, draining, entry, name, node, ready, slice};
use crate::model::{Algorithm, Family, PortName, Protocol, Service};

const WEIGHTS: &str = "nodeport.dev/weights";

/// An endpoint that is ready and meant for the clients of a zone.
fn hinted(address: &str, node: &str, zone: &str) -> Value {
    let mut endpoint = ready(address, node);
    endpoint["hints"] = json!({"forZones": [{"name": zone}]});
    endpoint["zone"] = zone.into();
    endpoint
}

/// The external group of a Service with these annotations, policy and endpoints, as seen from node
/// `n1` in zone `a`.
fn planned(annotations: &Value, local: bool, endpoints: &Value) -> Group {
    let ports = json!([{"port": 80, "nodePort": 30007}]);
    let mut service = Service::clone(&annotated("web", ports, annotations.clone()));
    service.families = Some(vec![Family::V4]);
    service.external_local = local;
    let slices = vec![slice("web", 1, json!([{"port": 80}]), endpoints.clone())];
    let mut node = Node::clone(&node("n1", &["192.0.2.1"]));
    node.zone = Some("a".into());
    let mut planner = Planner::new(settings());
    let entries = [(name("web"), entry(Arc::new(service), slices))].into_iter().collect();
    planner.update(Update { node: Some(Arc::new(node)), entries });
    assert_eq!(planner.desired, plan(&planner.model, &settings()));
    assert_eq!(check::desired(&planner.desired), []);
    let port = PortName { service: name("web"), port: "".into(), protocol: Protocol::Tcp };
    let key = GroupKey { port, family: Family::V4, traffic: Traffic::External };
    Group::clone(&planner.desired.groups[&key])
}

fn shown(targets: &[Target]) -> Vec<String> {
    targets.iter().map(|one| format!("{}x{}", one.at.ip(), one.weight)).collect()
}

#[test]
fn an_endpoint_that_weighs_nothing_is_as_one_that_is_not_ready() {
    let two = json!([ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2")]);
    let last = json!([ready("10.0.0.1", "n1"), draining("10.0.0.2", "n2")]);
    let zones = json!([hinted("10.0.0.1", "n1", "a"), hinted("10.0.0.2", "n2", "b")]);
    type Row<'a> = (&'a str, bool, &'a Value, &'a [&'a str], &'a [&'a str], bool);
    let rows: [Row<'_>; 12] = [
        // annotation, Local?, endpoints: usable, lingering, dropped rather than refused
        ("", false, &two, &["10.0.0.1x1", "10.0.0.2x1"], &[], false),
        ("10.0.0.1=3", false, &two, &["10.0.0.1x3", "10.0.0.2x1"], &[], false),
        ("node/n2=0", false, &two, &["10.0.0.1x1"], &["10.0.0.2x0"], false),
        // Nobody is left: refused, as with no endpoint at all.
        ("*=0", false, &two, &[], &["10.0.0.1x0", "10.0.0.2x0"], false),
        // Local, and the one here is spared: others could answer, so whoever balances goes there.
        ("node/n1=0", true, &two, &[], &["10.0.0.1x0", "10.0.0.2x1"], true),
        ("node/n2=0", true, &two, &["10.0.0.1x1"], &["10.0.0.2x0"], false),
        ("*=0", true, &two, &[], &["10.0.0.1x0", "10.0.0.2x0"], false),
        // Without a ready one, those that terminate and still serve are the last resort.
        ("10.0.0.1=0", false, &last, &["10.0.0.2x1"], &["10.0.0.1x0"], false),
        // But not against the user's word.
        ("*=0", false, &last, &[], &["10.0.0.1x0", "10.0.0.2x0"], false),
        // A zone that is spared sends its clients to the others.
        ("", false, &zones, &["10.0.0.1x1"], &["10.0.0.2x1"], false),
        ("zone/a=0", false, &zones, &["10.0.0.2x1"], &["10.0.0.1x0"], false),
        // What makes no sense counts for nothing, the first entry as well.
        ("10.0.0.1=0, nobody=7", false, &two, &["10.0.0.1x1", "10.0.0.2x1"], &[], false),
    ];
    for (weights, local, endpoints, usable, lingering, drops) in rows {
        let group = planned(&json!({WEIGHTS: weights}), local, endpoints);
        let found = (shown(&group.usable), shown(&group.lingering), group.drops);
        let wanted = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let wanted = (wanted(usable), wanted(lingering), drops);
        assert_eq!(found, wanted, "{weights:?}, local {local}");
    }
}

#[test]
fn the_algorithm_is_that_of_the_service() {
    let endpoints = json!([ready("10.0.0.1", "n1")]);
    for (annotations, algorithm) in [
        (json!({}), Algorithm::Maglev),
        (json!({"nodeport.dev/algorithm": "maglev"}), Algorithm::Maglev),
        (json!({"nodeport.dev/algorithm": "random"}), Algorithm::Random),
        (json!({"nodeport.dev/algorithm": "least"}), Algorithm::Least),
        (json!({"nodeport.dev/algorithm": "most"}), Algorithm::Maglev),
    ] {
        assert_eq!(planned(&annotations, false, &endpoints).algorithm, algorithm);
    }
}
