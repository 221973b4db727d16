//! This machine, as its Node object describes it.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::{Family, Finding, Findings, Kind, Name, Origin};

/// The cluster's autoscaler has chosen the node to go.
const GOING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What counts of a Node object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, as endpoints carry it.
    pub name: Arc<str>,
    /// Its zone, as hints carry it.
    pub zone: Option<Arc<str>>,
    /// Addresses on which nodePorts are served; as its object is read, its primary one of each family
    /// that it has.
    pub addresses: Vec<IpAddr>,
    /// It is not about to be taken away. A node that takes no new pods may well take connections
    /// (KEP-3836).
    pub eligible: bool,
    /// They were selected: where there are none, none is meant.
    pub is_selected: bool,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

impl Node {
    /// Reads a Node object.
    #[must_use]
    pub fn new(node: &core::Node, origin: Origin) -> Self {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut findings = Findings::new(origin, Kind::Node, Name::new("", name));
        let labels = node.metadata.labels.as_ref();
        let zone = labels.and_then(|labels| labels.get(ZONE_LABEL)).filter(|zone| !zone.is_empty());
        Self {
            name: name.into(),
            zone: zone.map(|zone| zone.as_str().into()),
            addresses: addresses(node, &mut findings),
            eligible: is_eligible(node),
            is_selected: false,
            findings: findings.finish(),
        }
    }

    /// A node without an object.
    #[must_use]
    pub fn unknown(name: &str) -> Self {
        let (addresses, findings) = (Vec::new(), Vec::new());
        Self {
            name: name.into(),
            zone: None,
            addresses,
            is_selected: false,
            eligible: true,
            findings,
        }
    }

    /// Whether [`Self::addresses`] are known: a Node object without any may get them later.
    #[must_use]
    pub const fn knows_addresses(&self) -> bool {
        self.is_selected || !self.addresses.is_empty()
    }

    /// Whether an address is one on which this node serves nodePorts.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
}

fn is_eligible(node: &core::Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let is_going = taints.into_iter().any(|taint| taint.key == GOING_TAINT);
    node.metadata.deletion_timestamp.is_none() && !is_going
}

/// The first address of each family, internal ones before external ones.
fn addresses(node: &core::Node, findings: &mut Findings) -> Vec<IpAddr> {
    let usable = usable(node, findings);
    let first = |family| usable.iter().copied().find(|address| Family::of(*address) == family);
    let addresses: Vec<_> = Family::ALL.into_iter().filter_map(first).collect();
    if addresses.is_empty() {
        findings.error(
            "status.addresses",
            "no InternalIP or ExternalIP that is an IP address: no nodePort is served until there \
             is one",
        );
    }
    addresses
}

fn usable(node: &core::Node, findings: &mut Findings) -> Vec<IpAddr> {
    let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut internal = Vec::new();
    let mut external = Vec::new();
    for (index, entry) in listed.enumerate() {
        let list = match entry.type_.as_str() {
            "InternalIP" => &mut internal,
            "ExternalIP" => &mut external,
            _ => continue,
        };
        match entry.address.parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() && !address.is_loopback() => {
                list.push(address);
            }
            _ => findings.error(
                format!("status.addresses[{index}].address"),
                format!("{:?} is not an address that clients can reach", entry.address),
            ),
        }
    }
    internal.append(&mut external);
    internal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(value: serde_json::Value) -> Node {
        Node::new(&serde_json::from_value(value).unwrap(), Origin::Api)
    }

    #[test]
    fn the_first_internal_address_of_each_family_counts() {
        let node = node(json!({
            "metadata": {"name": "n1", "labels": {ZONE_LABEL: "z1"}},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "192.0.2.2"},
                {"type": "ExternalIP", "address": "2001:db8::1"},
            ]},
        }));
        assert_eq!(node.zone.as_deref(), Some("z1"));
        let texts: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(node.findings, []);
    }

    #[test]
    fn a_node_that_is_to_go_is_not_eligible_and_a_cordoned_one_is() {
        for (object, expected) in [
            (json!({"spec": {}}), true),
            (json!({"spec": {"unschedulable": true}}), true),
            (json!({"spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]}}), true),
            (json!({"spec": {"taints": [{"key": GOING_TAINT, "effect": "NoSchedule"}]}}), false),
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false),
        ] {
            assert_eq!(node(object.clone()).eligible, expected, "{object}");
        }
    }

    #[test]
    fn a_node_without_addresses_is_a_finding() {
        let node = node(json!({
            "metadata": {"name": "n1", "labels": {ZONE_LABEL: ""}},
            "status": {"addresses": [{"type": "InternalIP", "address": "here"}]},
        }));
        assert_eq!((node.zone, node.addresses.len()), (None, 0));
        let fields: Vec<_> = node.findings.iter().map(|finding| finding.field.as_str()).collect();
        assert_eq!(fields, ["status.addresses[0].address", "status.addresses"]);
    }
}
