//! Objects for tests, in a few words.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{Entry, Name, Node, Origin, RawSlice, Rules, Service, Slice};
use crate::config::{Networks, PortRange, Serves, SourceRanges};

pub(crate) fn rules() -> Rules {
    let serves = Serves {
        cluster_ips: false,
        load_balancer_ips: Networks::all(),
        external_ips: Networks::none(),
        source_ranges: SourceRanges::LoadBalancer,
    };
    Rules { node_ports: PortRange::new(30000, 32767).expect("a range"), serves }
}

pub(crate) fn name(name: &str) -> Name {
    Name::new("default", name)
}

/// A Service of type NodePort with these ports.
pub(crate) fn service(name: &str, ports: Value) -> Arc<Service> {
    service_with(name, json!({"ports": ports}))
}

/// A Service of type NodePort with more in its specification.
pub(crate) fn service_with(name: &str, mut spec: Value) -> Arc<Service> {
    spec["type"] = "NodePort".into();
    let object = json!({"metadata": {"name": name, "uid": name}, "spec": spec});
    Arc::new(Service::new(&from(object), Origin::Api, &rules()))
}

/// A Service of type NodePort with these ports and annotations.
pub(crate) fn annotated(name: &str, ports: Value, annotations: Value) -> Arc<Service> {
    let object = json!({
        "metadata": {"name": name, "uid": name, "annotations": annotations},
        "spec": {"type": "NodePort", "ports": ports},
    });
    Arc::new(Service::new(&from(object), Origin::Api, &rules()))
}

/// A Service of type LoadBalancer with these ports, its balancer's addresses and source ranges.
pub(crate) fn balanced(name: &str, ports: Value, ips: &[&str], ranges: &[&str]) -> Arc<Service> {
    let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let object = json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"type": "LoadBalancer", "ports": ports, "loadBalancerSourceRanges": ranges},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    Arc::new(Service::new(&from(object), Origin::Api, &rules()))
}

/// A slice `service-number` with these ports and endpoints; its family is that of the first
/// endpoint.
pub(crate) fn slice(service: &str, number: u32, ports: Value, endpoints: Value) -> Arc<Slice> {
    let six = endpoints[0]["addresses"][0].as_str().is_some_and(|address| address.contains(':'));
    let object = json!({
        "metadata": {
            "name": format!("{service}-{number}"),
            "labels": {super::SERVICE_NAME_LABEL: service},
        },
        "addressType": if six { "IPv6" } else { "IPv4" },
        "ports": ports,
        "endpoints": endpoints,
    });
    Arc::new(Slice::new(&RawSlice::deserialize(&object).unwrap(), Origin::Api))
}

/// An endpoint that is ready, on some node.
pub(crate) fn ready(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true}})
}

/// An endpoint that terminates and still serves.
pub(crate) fn draining(address: &str, node: &str) -> Value {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}

/// A node with these addresses.
pub(crate) fn node(name: &str, addresses: &[&str]) -> Arc<Node> {
    let listed: Vec<_> =
        addresses.iter().map(|one| json!({"type": "InternalIP", "address": one})).collect();
    let object = json!({"metadata": {"name": name}, "status": {"addresses": listed}});
    Arc::new(Node::new(&from(object), Origin::Api))
}

/// A service with its slices.
pub(crate) fn entry(service: Arc<Service>, slices: Vec<Arc<Slice>>) -> Entry {
    Entry { service: Some(service), slices }
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of the API")
}
