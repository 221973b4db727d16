//! What the API server accepts although it makes no sense: what becomes of each, and which object it is
//! said of. A case is read from top to bottom: the objects, what is served, what is said.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::testing::settings;
use super::{Desired, Group, GroupKey, Planner, Traffic, Update, check, plan};
use crate::config::Networks;
use crate::events::Remark;
use crate::model::testing::{rules, slice};
use crate::model::{
    Entry, Finding, Model, Node, Origin, RawSlice, SERVICE_NAME_LABEL, Service, Slice,
};

struct Case {
    name: &'static str,
    /// Specifications of Services; each is older than the next. A LoadBalancer has the addresses that
    /// stand under `ingress`.
    services: Vec<(&'static str, Value)>,
    slices: Vec<Arc<Slice>>,
    /// `service frontend … -> endpoint …`
    served: &'static [&'static str],
    /// For each finding: the object and field, and parts of what is said of them.
    said: &'static [&'static [&'static str]],
}

/// The node has 192.0.2.1, 2001:db8::1 and the zone `here`.
fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "two Services with one external address: the older one has it",
            services: vec![
                ("web", external(&["198.51.100.7"], 80)),
                ("new", external(&["198.51.100.7"], 80)),
            ],
            slices: vec![good("web"), good("new")],
            served: &["web 198.51.100.7:80/TCP -> 10.0.0.1:8080"],
            said: &[&["Service default/new: spec.externalIPs[0]", "taken by Service default/web"]],
        },
        Case {
            name: "an external address that is another's load balancer's: the older one has it",
            services: vec![
                ("web", balanced(&["198.51.100.7"], json!(null))),
                ("new", external(&["198.51.100.7"], 80)),
            ],
            slices: vec![good("web"), good("new")],
            served: &["web nodePort 30007/TCP (IPv4) 198.51.100.7:80/TCP -> 10.0.0.1:8080"],
            said: &[&["Service default/new: spec.externalIPs[0]", "taken by Service default/web"]],
        },
        Case {
            name: "an external address twice in one Service is one",
            services: vec![("web", external(&["198.51.100.7", "198.51.100.7"], 80))],
            slices: vec![good("web")],
            served: &["web 198.51.100.7:80/TCP -> 10.0.0.1:8080"],
            said: &[],
        },
        Case {
            name: "external addresses at which no client reaches a node are not served, others are",
            services: vec![(
                "web",
                external(&["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "198.51.100.7"], 80),
            )],
            slices: vec![good("web")],
            served: &["web 198.51.100.7:80/TCP -> 10.0.0.1:8080"],
            said: &[
                &["Service default/web: spec.externalIPs[0]", "127.0.0.1 is a loopback"],
                &["Service default/web: spec.externalIPs[1]", "0.0.0.0 is an unspecified"],
                &["Service default/web: spec.externalIPs[2]", "224.0.0.1 is a multicast"],
                &["Service default/web: spec.externalIPs[3]", "169.254.1.1 is a link-local"],
            ],
        },
        Case {
            name: "this node's own address as an external one is served: many do that",
            services: vec![("web", external(&["192.0.2.1"], 80))],
            slices: vec![good("web")],
            served: &["web 192.0.2.1:80/TCP -> 10.0.0.1:8080"],
            said: &[],
        },
        Case {
            name: "the node's own address with another's nodePort stays that one's",
            services: vec![
                ("old", external(&["192.0.2.1"], 30007)),
                ("web", node_port(json!([{"port": 80, "nodePort": 30007}]))),
            ],
            slices: vec![slice("old", 1, PORTS.clone(), ready("10.0.0.9")), good("web")],
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[&[
                "Service default/old: spec.externalIPs[0]",
                "30007 is taken by Service default/web",
                "as its nodePort on 192.0.2.1",
                "choose another port",
            ]],
        },
        Case {
            name: "one's own nodePort at the node's own address is one frontend more",
            services: vec![(
                "web",
                json!({"type": "NodePort", "externalIPs": ["192.0.2.1"],
                       "ports": [{"port": 30007, "nodePort": 30007}]}),
            )],
            slices: vec![good("web")],
            served: &["web nodePort 30007/TCP (IPv4) 192.0.2.1:30007/TCP -> 10.0.0.1:8080"],
            said: &[],
        },
        Case {
            name: "blanks around source ranges are nothing, and a network is its first address",
            services: vec![(
                "web",
                balanced(&["198.51.100.7"], json!([" 10.0.0.0/8", "192.0.2.77/24 ", "10.0.0.0/8"])),
            )],
            slices: vec![good("web")],
            served: &[
                "web nodePort 30007/TCP (IPv4) 198.51.100.7:80/TCP [10.0.0.0/8 192.0.2.0/24] \
                       -> 10.0.0.1:8080",
            ],
            said: &[],
        },
        Case {
            name: "source ranges of one family shut the other one",
            services: vec![(
                "web",
                balanced(&["198.51.100.7", "2001:db8:5::7"], json!(["10.0.0.0/8"])),
            )],
            slices: vec![good("web"), slice("web", 2, PORTS.clone(), ready("fd00::1"))],
            served: &[
                "web nodePort 30007/TCP (IPv4) 198.51.100.7:80/TCP [10.0.0.0/8] -> 10.0.0.1:8080",
                "web nodePort 30007/TCP (IPv6) [2001:db8:5::7]:80/TCP [nobody] -> [fd00::1]:8080",
            ],
            said: &[&[
                "Service default/web: spec.loadBalancerSourceRanges",
                "no IPv6 network",
                "nobody may use [2001:db8:5::7]:80/TCP",
            ]],
        },
        Case {
            name: "source ranges that are none let nobody in",
            services: vec![("web", balanced(&["198.51.100.7"], json!(["everybody", ""])))],
            slices: vec![good("web")],
            served: &[
                "web nodePort 30007/TCP (IPv4) 198.51.100.7:80/TCP [nobody] -> 10.0.0.1:8080",
            ],
            said: &[
                &["Service default/web: spec.loadBalancerSourceRanges[0]", "\"everybody\""],
                &["Service default/web: spec.loadBalancerSourceRanges[1]", "lets nobody in"],
            ],
        },
        Case {
            name: "every endpoint is one that cannot be: clients are refused",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 30007}])))],
            slices: vec![slice(
                "web",
                1,
                PORTS.clone(),
                json!([
                    {"addresses": ["127.0.0.1"]}, {"addresses": ["224.0.0.1"]},
                    {"addresses": ["169.254.0.1"]}, {"addresses": ["0.0.0.0"]},
                    {"addresses": ["fd00::1"]}, {"addresses": ["web-1"]}, {"addresses": []},
                ]),
            )],
            served: &["web nodePort 30007/TCP (IPv4) -> refused"],
            said: &[
                &["EndpointSlice default/web-1: endpoints[0].addresses[0]", "loopback"],
                &["EndpointSlice default/web-1: endpoints[1].addresses[0]", "multicast"],
                &["EndpointSlice default/web-1: endpoints[2].addresses[0]", "link-local"],
                &["EndpointSlice default/web-1: endpoints[3].addresses[0]", "unspecified"],
                &["EndpointSlice default/web-1: endpoints[4].addresses[0]", "not an IPv4 address"],
                &["EndpointSlice default/web-1: endpoints[5].addresses[0]", "not an IP address"],
                &["EndpointSlice default/web-1: endpoints[6].addresses", "no address"],
            ],
        },
        Case {
            name: "endpoints beside one that can be: it is served",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 30007}])))],
            slices: vec![slice(
                "web",
                1,
                PORTS.clone(),
                json!([{"addresses": ["127.0.0.1"]}, {"addresses": ["10.0.0.1"]}]),
            )],
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[&["EndpointSlice default/web-1: endpoints[0].addresses[0]", "loopback"]],
        },
        Case {
            name: "an endpoint that is a nodePort of this node would go in a circle",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 30007}])))],
            slices: vec![slice("web", 1, json!([{"port": 30007}]), ready("192.0.2.1"))],
            served: &["web nodePort 30007/TCP (IPv4) -> refused"],
            said: &[&["EndpointSlice default/web-1: endpoints[0].addresses[0]", "in a circle"]],
        },
        Case {
            name: "hints for zones that there are not: all endpoints are used",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 30007}])))],
            slices: vec![slice(
                "web",
                1,
                PORTS.clone(),
                json!([hinted("10.0.0.1", "a", "atlantis"), hinted("10.0.0.2", "b", "eldorado")]),
            )],
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080 10.0.0.2:8080"],
            said: &[&[
                "EndpointSlice default/web-1: endpoints[0].hints.forZones",
                "(atlantis, eldorado)",
                "this node's, which is here",
                "all endpoints are used",
            ]],
        },
        Case {
            name: "hints for the endpoints' own zones, of which none is here, are usual",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 30007}])))],
            slices: vec![slice(
                "web",
                1,
                PORTS.clone(),
                json!([hinted("10.0.0.1", "a", "a"), hinted("10.0.0.2", "b", "b")]),
            )],
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080 10.0.0.2:8080"],
            said: &[],
        },
        Case {
            name: "a hint for a zone that there is not beside one for here: that one counts",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 30007}])))],
            slices: vec![slice(
                "web",
                1,
                PORTS.clone(),
                json!([hinted("10.0.0.1", "a", "atlantis"), hinted("10.0.0.2", "b", "here")]),
            )],
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.2:8080"],
            said: &[],
        },
        Case {
            name: "a port of a protocol that is not served: the others of the Service are",
            services: vec![(
                "web",
                node_port(json!([
                    {"name": "a", "port": 80, "nodePort": 30007},
                    {"name": "b", "port": 80, "nodePort": 30008, "protocol": "SCTP"},
                ])),
            )],
            slices: vec![slice("web", 1, json!([{"name": "a", "port": 8080}]), ready("10.0.0.1"))],
            served: &["web:a nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[&["Service default/web: spec.ports[1].protocol", "\"SCTP\" is not served"]],
        },
        Case {
            name: "a nodePort of two Services: the older one has it",
            services: vec![
                ("web", node_port(json!([{"port": 80, "nodePort": 30007}]))),
                ("new", node_port(json!([{"port": 80, "nodePort": 30007}]))),
            ],
            slices: vec![good("web"), good("new")],
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[&["Service default/new: spec.ports[0].nodePort", "Service default/web"]],
        },
        Case {
            name: "a nodePort or a name twice in one Service: the first one has it",
            services: vec![(
                "web",
                node_port(json!([
                    {"name": "a", "port": 80, "nodePort": 30007},
                    {"name": "b", "port": 81, "nodePort": 30007},
                    {"name": "a", "port": 82, "nodePort": 30008},
                ])),
            )],
            slices: vec![slice("web", 1, json!([{"name": "a", "port": 8080}]), ready("10.0.0.1"))],
            served: &["web:a nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[
                &["Service default/web: spec.ports[1].nodePort", "30007 is taken"],
                &["Service default/web: spec.ports[2].name", "\"a\""],
            ],
        },
        Case {
            name: "what is no port is not served",
            services: vec![(
                "web",
                node_port(json!([
                    {"name": "a", "port": 0, "nodePort": 30007},
                    {"name": "b", "port": 80, "nodePort": 70000},
                    {"name": "c", "port": 80, "nodePort": 30008},
                ])),
            )],
            slices: vec![slice(
                "web",
                1,
                json!([{"name": "c", "port": 0}, {"name": "c", "port": 8080}]),
                ready("10.0.0.1"),
            )],
            served: &["web:c nodePort 30008/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[
                &["Service default/web: spec.ports[0].port", "0 is not a port"],
                &["Service default/web: spec.ports[1].nodePort", "70000 is not a port"],
                &["EndpointSlice default/web-1: ports[0].port", "0 is not a port"],
            ],
        },
        Case {
            name: "a nodePort outside the range that this program knows is served: somebody relies on it",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 80}])))],
            slices: vec![good("web")],
            served: &["web nodePort 80/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[&["Service default/web: spec.ports[0].nodePort", "--node-port-range"]],
        },
        Case {
            name: "names instead of addresses are not for proxies: clients are refused",
            services: vec![(
                "web",
                json!({"type": "NodePort", "ipFamilies": ["IPv4"],
                       "ports": [{"port": 80, "nodePort": 30007}]}),
            )],
            slices: vec![typed("web", "FQDN", "web.example")],
            served: &["web nodePort 30007/TCP (IPv4) -> refused"],
            said: &[],
        },
        Case {
            name: "a slice of no known type leaves the others",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 30007}])))],
            slices: vec![typed("web", "IPv8", "10.0.0.2"), good("web")],
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[&["EndpointSlice default/web-IPv8: addressType", "\"IPv8\""]],
        },
        Case {
            name: "one endpoint in many slices is one",
            services: vec![("web", node_port(json!([{"port": 80, "nodePort": 30007}])))],
            slices: (0..1_000)
                .map(|number| slice("web", number, PORTS.clone(), ready("10.0.0.1")))
                .collect(),
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[],
        },
        Case {
            name: "affinity for longer than there is lasts three hours, one of no known kind none",
            services: vec![
                (
                    "web",
                    json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}],
                           "sessionAffinity": "ClientIP",
                           "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90_000}}}),
                ),
                (
                    "new",
                    json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30008}],
                           "sessionAffinity": "Cookie"}),
                ),
            ],
            slices: vec![good("web"), good("new")],
            served: &[
                "new nodePort 30008/TCP (IPv4) -> 10.0.0.1:8080",
                "web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080",
            ],
            said: &[
                &["Service default/new: spec.sessionAffinity", "counts as None"],
                &["Service default/web: spec.sessionAffinityConfig", "90000", "10800"],
            ],
        },
        Case {
            name: "a policy that is not known is Cluster",
            services: vec![(
                "web",
                json!({"type": "NodePort", "externalTrafficPolicy": "Nearby",
                       "ports": [{"port": 80, "nodePort": 30007}]}),
            )],
            slices: vec![good("web")],
            served: &["web nodePort 30007/TCP (IPv4) -> 10.0.0.1:8080"],
            said: &[&["Service default/web: spec.externalTrafficPolicy", "counts as Cluster"]],
        },
        Case {
            name: "slices without a Service are nothing",
            services: vec![],
            slices: vec![good("web")],
            served: &[],
            said: &[],
        },
        Case {
            name: "a Service without anything is nothing",
            services: vec![("web", json!({})), ("new", json!({"type": "NodePort", "ports": []}))],
            slices: vec![good("web")],
            served: &[],
            said: &[],
        },
    ]
}

#[test]
fn what_makes_no_sense_has_a_defined_outcome() {
    for case in cases() {
        let Case { name, services, slices, served, said } = case;
        let model = model(&services, &slices);
        let (desired, findings) = planned(&model);
        assert_eq!(check::desired(&desired), [], "{name}");
        assert_eq!(lines(&desired), served, "{name}");
        let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), said.len(), "{name}: {told:#?}");
        for parts in said {
            let fits = |line: &&String| {
                line.starts_with(parts[0]) && parts[1..].iter().all(|part| line.contains(part))
            };
            assert!(told.iter().any(|line| fits(&line)), "{name}: no {parts:?} in {told:#?}");
        }
        for finding in &findings {
            let remark = Remark::of_finding(finding, None, &|_| None);
            assert!(
                remark.is_some_and(|one| !one.reason.is_empty()),
                "{name}: {finding} has no Event"
            );
        }
    }
}

/// Objects come in any order; what stands in the end is the same.
#[test]
fn the_outcome_does_not_depend_on_the_order() {
    for case in cases() {
        let whole = model(&case.services, &case.slices);
        let (wanted, mut all) = planned(&whole);
        let mut names: Vec<_> = whole.entries.keys().cloned().collect();
        names.sort_unstable();
        for names in [names.clone(), names.into_iter().rev().collect()] {
            let mut planner = Planner::new(settings());
            let mut findings = BTreeMap::new();
            for name in names {
                let entries = [(name.clone(), whole.entries[&name].clone())].into_iter().collect();
                let changed = planner.update(Update { node: whole.node.clone(), entries });
                findings.extend(changed.findings);
            }
            assert_eq!(*planner.desired(), wanted, "{}", case.name);
            let mut found: Vec<_> = findings.into_values().flatten().collect();
            found.sort_unstable();
            all.sort_unstable();
            assert_eq!(found, all, "{}", case.name);
        }
    }
}

/// A thousand slices of a hundred endpoints, as a server's controller makes them for the largest
/// Services: all are known, and that no more of them are used than a table has slots is said.
#[test]
fn a_thousand_full_slices_are_read_and_said_to_be_too_many() {
    let full = |number: u32| {
        let endpoint = |one: u32| {
            let address = std::net::Ipv4Addr::from_bits((10 << 24) + number * 100 + one + 1);
            json!({"addresses": [address.to_string()]})
        };
        slice("web", number, PORTS.clone(), (0..100).map(endpoint).collect())
    };
    for (slices, said) in [(655, 0), (1_000, 1)] {
        let services = [("web", node_port(json!([{"port": 80, "nodePort": 30007}])))];
        let slices: Vec<_> = (0..slices).map(full).collect();
        let (desired, findings) = planned(&model(&services, &slices));
        let group = desired.groups.values().next().unwrap();
        assert_eq!(group.usable.len(), slices.len() * 100);
        assert_eq!(findings.len(), said);
        for finding in findings {
            let told = finding.to_string();
            assert!(told.contains("default/web") && told.contains("100000 endpoints"), "{told}");
        }
    }
}

static PORTS: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| json!([{"port": 8080}]));

fn external(addresses: &[&str], port: u16) -> Value {
    json!({"type": "ClusterIP", "externalIPs": addresses, "ports": [{"port": port}]})
}

fn balanced(ingress: &[&str], ranges: Value) -> Value {
    json!({"type": "LoadBalancer", "ingress": ingress, "loadBalancerSourceRanges": ranges,
           "ports": [{"port": 80, "nodePort": 30007}]})
}

fn node_port(ports: Value) -> Value {
    json!({"type": "NodePort", "ports": ports})
}

fn good(service: &str) -> Arc<Slice> {
    slice(service, 1, PORTS.clone(), ready("10.0.0.1"))
}

fn ready(address: &str) -> Value {
    json!([{"addresses": [address]}])
}

/// An endpoint in one zone that is meant for another.
fn hinted(address: &str, zone: &str, meant: &str) -> Value {
    json!({"addresses": [address], "zone": zone, "hints": {"forZones": [{"name": meant}]}})
}

fn typed(service: &str, kind: &str, address: &str) -> Arc<Slice> {
    let object = json!({
        "metadata": {"name": format!("{service}-{kind}"), "labels": {SERVICE_NAME_LABEL: service}},
        "addressType": kind, "ports": *PORTS, "endpoints": ready(address),
    });
    Arc::new(Slice::new(&RawSlice::deserialize(&object).unwrap(), Origin::Api))
}

fn node() -> Arc<Node> {
    let listed = ["192.0.2.1", "2001:db8::1"]
        .map(|address| json!({"type": "InternalIP", "address": address}));
    let object = json!({
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "here"}},
        "status": {"addresses": listed},
    });
    Arc::new(Node::new(&serde_json::from_value(object).unwrap(), Origin::Api))
}

fn model(services: &[(&str, Value)], slices: &[Arc<Slice>]) -> Model {
    let mut rules = rules();
    rules.serves.external_ips = Networks::all();
    let mut entries: HashMap<_, Entry> = HashMap::default();
    for (age, (name, spec)) in services.iter().enumerate() {
        let ingress = spec["ingress"].as_array().into_iter().flatten();
        let ingress: Vec<_> = ingress.map(|ip| json!({"ip": ip})).collect();
        let object = json!({
            "metadata": {
                "name": name, "uid": name,
                "creationTimestamp": format!("2026-01-01T00:{age:02}:00Z"),
            },
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let service = Service::new(&serde_json::from_value(object).unwrap(), Origin::Api, &rules);
        let entry = entries.entry(service.name.clone()).or_default();
        entry.service = Some(Arc::new(service));
    }
    for slice in slices {
        let service = slice.service.clone().expect("it says whose it is");
        entries.entry(service).or_default().slices.push(slice.clone());
    }
    Model { entries, node: Some(node()) }
}

/// The plan from nothing, and all that is said.
fn planned(model: &Model) -> (Desired, Vec<Finding>) {
    let mut planner = Planner::new(settings());
    let entries = model.entries.clone();
    let changed = planner.update(Update { node: model.node.clone(), entries });
    assert_eq!(*planner.desired(), plan(model, &settings()));
    (planner.desired().clone(), changed.findings.into_values().flatten().collect())
}

fn lines(desired: &Desired) -> Vec<String> {
    desired.groups.iter().map(|(key, group)| line(key, group)).collect()
}

fn line(key: &GroupKey, group: &Group) -> String {
    let port = match &*key.port.port {
        "" => String::new(),
        port => format!(":{port}"),
    };
    assert_eq!(key.traffic, Traffic::External);
    let words = |list: Vec<String>| list.join(" ");
    let frontends = words(group.frontends.iter().map(ToString::to_string).collect());
    let ranges = match (group.guarded.is_empty(), group.ranges.is_empty()) {
        (true, _) => String::new(),
        (false, true) => " [nobody]".to_owned(),
        (false, false) => {
            format!(" [{}]", words(group.ranges.iter().map(ToString::to_string).collect()))
        }
    };
    let usable = match (group.usable.is_empty(), group.drops) {
        (true, true) => "dropped".to_owned(),
        (true, false) => "refused".to_owned(),
        (false, _) => words(group.usable.iter().map(|target| target.at.to_string()).collect()),
    };
    format!("{}{port} {frontends}{ranges} -> {usable}", key.port.service.name)
}
