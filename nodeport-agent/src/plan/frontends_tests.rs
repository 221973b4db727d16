//! Which addresses lead to a Service, to whose endpoints, and for whom.

use foldhash::HashMap;
use serde_json::{Value, json};

use super::super::testing::settings;
use super::super::{
    Changed, FrontendAt, GroupKey, Planner, Settings, Traffic, Update, check, plan,
};
use crate::config::{Networks, SourceRanges};
use crate::model::testing::{entry, name, node, ready, rules, slice};
use crate::model::{Entry, Family, Origin, PortName, Protocol, Service};

struct World {
    planner: Planner,
}

impl World {
    fn new(source_ranges: SourceRanges) -> Self {
        let mut planner = Planner::new(Settings { source_ranges, ..settings() });
        let node = Some(node("n1", &["192.0.2.1", "2001:db8::1"]));
        planner.update(Update { node, entries: HashMap::default() });
        Self { planner }
    }

    fn put(&mut self, service: &str, one: Entry) -> Changed {
        let node = self.planner.model().node.clone();
        let entries = [(name(service), one)].into_iter().collect();
        let changed = self.planner.update(Update { node, entries });
        assert_eq!(*self.planner.desired(), plan(self.planner.model(), self.planner.settings()));
        assert_eq!(check::desired(self.planner.desired()), []);
        changed
    }

    /// What leads to the group, what of that is guarded, and by what; and its usable endpoints.
    fn group(&self, service: &str, family: Family, traffic: Traffic) -> Option<[Vec<String>; 4]> {
        let port = PortName { service: name(service), port: "".into(), protocol: Protocol::Tcp };
        let group = self.planner.desired().groups.get(&GroupKey { port, family, traffic })?;
        let text = |at: &FrontendAt| at.to_string();
        Some([
            group.frontends.iter().map(text).collect(),
            group.guarded.iter().map(text).collect(),
            group.ranges.iter().map(ToString::to_string).collect(),
            group.usable.iter().map(|target| target.at.to_string()).collect(),
        ])
    }
}

/// A Service and its endpoints: in each family one on this node and one elsewhere.
fn web(named: &str, mut spec: Value, ips: &[&str]) -> Entry {
    if spec["ports"].is_null() {
        spec["ports"] = json!([{"port": 80, "nodePort": 30007}]);
    }
    let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let object = json!({
        "metadata": {"name": named, "uid": named}, "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    let mut rules = rules();
    (rules.serves.cluster_ips, rules.serves.external_ips) = (true, Networks::all());
    let service = Service::new(&serde_json::from_value(object).unwrap(), Origin::Api, &rules);
    let ends = |here, there| json!([ready(here, "n1"), ready(there, "n2")]);
    let slices = vec![
        slice(named, 1, json!([{"port": 8080}]), ends("10.0.0.1", "10.0.0.2")),
        slice(named, 2, json!([{"port": 8080}]), ends("fd00::1", "fd00::2")),
    ];
    entry(service.into(), slices)
}

#[test]
fn every_address_leads_to_the_service() {
    let mut world = World::new(SourceRanges::LoadBalancer);
    let spec = json!({
        "type": "LoadBalancer", "clusterIPs": ["10.96.0.7"], "externalIPs": ["198.51.100.1"],
    });
    world.put("web", web("web", spec, &["192.0.2.50", "2001:db8::50"]));
    let [frontends, guarded, ranges, usable] =
        world.group("web", Family::V4, Traffic::External).unwrap();
    let wanted = ["nodePort 30007/TCP (IPv4)", "192.0.2.50:80/TCP", "198.51.100.1:80/TCP"];
    assert_eq!(frontends, wanted);
    assert_eq!((guarded.len(), ranges.len()), (0, 0), "there are no source ranges");
    assert_eq!(usable, ["10.0.0.1:8080", "10.0.0.2:8080"]);
    let [frontends, ..] = world.group("web", Family::V6, Traffic::External).unwrap();
    assert_eq!(frontends, ["nodePort 30007/TCP (IPv6)", "[2001:db8::50]:80/TCP"]);
    let [frontends, ..] = world.group("web", Family::V4, Traffic::Internal).unwrap();
    assert_eq!(frontends, ["10.96.0.7:80/TCP"]);
    assert_eq!(world.group("web", Family::V6, Traffic::Internal), None);
}

/// `allocateLoadBalancerNodePorts: false`, and Services of type ClusterIP with external IPs.
#[test]
fn a_service_may_do_without_node_ports() {
    let mut world = World::new(SourceRanges::LoadBalancer);
    for (spec, ips, wanted) in [
        (json!({"type": "LoadBalancer"}), &["192.0.2.50"][..], "192.0.2.50:80/TCP"),
        (json!({"type": "ClusterIP", "externalIPs": ["198.51.100.1"]}), &[], "198.51.100.1:80/TCP"),
    ] {
        let mut spec = spec;
        spec["ports"] = json!([{"port": 80}]);
        world.put("web", web("web", spec, ips));
        let [frontends, ..] = world.group("web", Family::V4, Traffic::External).unwrap();
        assert_eq!(frontends, [wanted]);
    }
}

/// Each kind of traffic follows its own policy.
#[test]
fn policies_of_traffic_from_outside_and_inside_are_apart() {
    let mut world = World::new(SourceRanges::LoadBalancer);
    let (here, all) = (&["10.0.0.1:8080"][..], &["10.0.0.1:8080", "10.0.0.2:8080"][..]);
    for (external, internal, outside, inside) in [
        ("Cluster", "Cluster", all, all),
        ("Local", "Cluster", here, all),
        ("Cluster", "Local", all, here),
        ("Local", "Local", here, here),
    ] {
        let spec = json!({
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.7"],
            "externalTrafficPolicy": external, "internalTrafficPolicy": internal,
        });
        world.put("web", web("web", spec, &["192.0.2.50"]));
        for (traffic, wanted) in [(Traffic::External, outside), (Traffic::Internal, inside)] {
            let [.., usable] = world.group("web", Family::V4, traffic).unwrap();
            assert_eq!(usable, wanted, "{external}, {internal}: {traffic:?}");
        }
    }
}

/// Ranges of one family shut the other one out: kube-proxy leaves it open.
#[test]
fn source_ranges_guard_the_balancers_addresses_in_both_families() {
    let spec = json!({
        "type": "LoadBalancer", "externalIPs": ["198.51.100.1"], "clusterIPs": ["10.96.0.7"],
        "loadBalancerSourceRanges": ["203.0.113.0/24", "10.0.0.0/8"],
    });
    for (rule, wanted) in [
        (SourceRanges::LoadBalancer, &["192.0.2.50:80/TCP"][..]),
        (
            SourceRanges::All,
            &["nodePort 30007/TCP (IPv4)", "192.0.2.50:80/TCP", "198.51.100.1:80/TCP"],
        ),
    ] {
        let mut world = World::new(rule);
        world.put("web", web("web", spec.clone(), &["192.0.2.50", "2001:db8::50"]));
        let [_, guarded, ranges, _] = world.group("web", Family::V4, Traffic::External).unwrap();
        assert_eq!(guarded, wanted);
        assert_eq!(ranges, ["10.0.0.0/8", "203.0.113.0/24"]);
        let [_, guarded, ranges, _] = world.group("web", Family::V6, Traffic::External).unwrap();
        assert!(guarded.contains(&"[2001:db8::50]:80/TCP".to_owned()), "{guarded:?}");
        assert_eq!(ranges, [""; 0]);
        let [_, guarded, ..] = world.group("web", Family::V4, Traffic::Internal).unwrap();
        assert_eq!(guarded, [""; 0], "traffic of the cluster is not theirs to guard");
    }
}

#[test]
fn of_two_that_want_one_address_the_first_has_it_until_it_goes() {
    let mut world = World::new(SourceRanges::LoadBalancer);
    let of = |named: &str, port: u16| {
        let ports = json!([{"port": 80, "nodePort": port}]);
        web(named, json!({"type": "LoadBalancer", "ports": ports}), &["192.0.2.50"])
    };
    world.put("a", of("a", 30001));
    let changed = world.put("b", of("b", 30002));
    let finding = changed.findings[&name("b")][0].to_string();
    assert!(finding.contains("status.loadBalancer.ingress[0].ip"), "{finding}");
    assert!(finding.contains("192.0.2.50:80/TCP is taken by Service default/a"), "{finding}");
    let [frontends, ..] = world.group("b", Family::V4, Traffic::External).unwrap();
    assert_eq!(frontends, ["nodePort 30002/TCP (IPv4)"], "its own nodePort it has");

    let changed = world.put("a", Entry::default());
    assert_eq!(changed.findings[&name("b")], []);
    let [frontends, ..] = world.group("b", Family::V4, Traffic::External).unwrap();
    assert_eq!(frontends, ["nodePort 30002/TCP (IPv4)", "192.0.2.50:80/TCP"]);
}

/// The same address with another port, or protocol, is another frontend.
#[test]
fn services_may_share_an_address() {
    let mut world = World::new(SourceRanges::LoadBalancer);
    for (named, port) in [("a", json!({"port": 80})), ("b", json!({"port": 81}))] {
        let spec = json!({"type": "LoadBalancer", "ports": [port]});
        let changed = world.put(named, web(named, spec, &["192.0.2.50"]));
        assert_eq!(changed.findings[&name(named)], []);
    }
}

/// Whatever a Service was before, only what it is now is served.
#[test]
fn types_may_change_in_any_order() {
    let mut world = World::new(SourceRanges::LoadBalancer);
    let specs = [
        (json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.7"]}), (None, Some(1))),
        (json!({"type": "NodePort", "clusterIPs": ["10.96.0.7"]}), (Some(1), Some(1))),
        (json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"]}), (Some(2), Some(1))),
        (json!({"type": "ExternalName", "externalName": "web.example"}), (None, None)),
        (json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}), (None, None)),
    ];
    for (before, _) in &specs {
        for (after, (outside, inside)) in &specs {
            for spec in [before, after] {
                world.put("web", web("web", spec.clone(), &["192.0.2.50"]));
            }
            let count = |traffic| {
                world.group("web", Family::V4, traffic).map(|[frontends, ..]| frontends.len())
            };
            let is = (count(Traffic::External), count(Traffic::Internal));
            assert_eq!(is, (*outside, *inside), "{before} to {after}");
        }
    }
}
