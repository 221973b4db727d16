//! The cluster that the agent is fed: Services with a nodePort each, an EndpointSlice with all of
//! their endpoints, and one Node. Objects have the fields that an API server's have, those that
//! the agent has no use for too: reading over them is part of the work.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Where nodePorts begin: service `n` has the port behind it by `n`.
pub(super) const FIRST_PORT: u16 = 30_000;
/// Services for which there are ports.
pub(super) const MOST_SERVICES: u32 = 35_000;
/// Endpoints of each service, at most: a slice's limit is 100.
pub(super) const MOST_ENDPOINTS: u32 = 100;
/// The port of all endpoints.
pub(super) const ENDPOINT_PORT: u16 = 8_080;

/// First octet of the endpoints that are there from the start, and of those that come later.
const AT_START: u32 = 11 << 24;
const LATER: u32 = 12 << 24;
/// Endpoints that can come later.
pub(super) const MOST_CHANGES: u32 = 1 << 24;

/// A service with its endpoints, as they are now.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// Its number, from 0.
    pub number: u32,
    /// Its endpoints.
    pub endpoints: Vec<Ipv4Addr>,
    /// Endpoints that were replaced so far.
    replaced: usize,
}

impl Service {
    /// Service `number` as it is at the start.
    pub(super) fn new(number: u32, endpoints: u32) -> Self {
        let first = AT_START + number * endpoints;
        let endpoints = (0..endpoints).map(|index| Ipv4Addr::from(first + index)).collect();
        Self { number, endpoints, replaced: 0 }
    }

    /// Gives its longest-standing endpoint's place to another one, as when a pod is replaced.
    pub(super) fn replace_one(&mut self, change: u32) {
        let place = self.replaced % self.endpoints.len();
        self.replaced += 1;
        self.endpoints[place] = Ipv4Addr::from(LATER + change);
    }

    /// The nodePort.
    pub(super) fn port(&self) -> u16 {
        FIRST_PORT + self.number as u16
    }

    /// The name of the Service.
    pub(super) fn name(&self) -> String {
        format!("service-{:05}", self.number)
    }

    /// The name of its slice.
    pub(super) fn slice_name(&self) -> String {
        format!("service-{:05}-x7k2p", self.number)
    }

    /// The Service object.
    pub(super) fn object(&self, version: u64) -> String {
        let (number, name, port) = (self.number, self.name(), self.port());
        let [high, low] = (number as u16).to_be_bytes();
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"bench","uid":"{uid}","resourceVersion":"{version}","creationTimestamp":"2025-03-01T08:00:00Z","labels":{{"app":"{name}","app.kubernetes.io/managed-by":"Helm"}},"managedFields":[{{"manager":"helm","operation":"Update","apiVersion":"v1","time":"2025-03-01T08:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:labels":{{".":{{}},"f:app":{{}},"f:app.kubernetes.io/managed-by":{{}}}}}},"f:spec":{{"f:externalTrafficPolicy":{{}},"f:internalTrafficPolicy":{{}},"f:ports":{{".":{{}},"k:{{\"port\":80,\"protocol\":\"TCP\"}}":{{".":{{}},"f:name":{{}},"f:port":{{}},"f:protocol":{{}},"f:targetPort":{{}}}}}},"f:selector":{{}},"f:sessionAffinity":{{}},"f:type":{{}}}}}}}}]}},"spec":{{"ports":[{{"name":"http","protocol":"TCP","port":80,"targetPort":{ENDPOINT_PORT},"nodePort":{port}}}],"selector":{{"app":"{name}"}},"clusterIP":"10.96.{high}.{low}","clusterIPs":["10.96.{high}.{low}"],"type":"NodePort","sessionAffinity":"None","externalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","internalTrafficPolicy":"Cluster"}},"status":{{"loadBalancer":{{}}}}}}"#,
            uid = uid(1, number)
        )
    }

    /// The EndpointSlice object.
    pub(super) fn slice(&self, version: u64) -> String {
        let (number, name, slice) = (self.number, self.name(), self.slice_name());
        let mut text = format!(
            r#"{{"metadata":{{"name":"{slice}","generateName":"{name}-","namespace":"bench","uid":"{uid}","resourceVersion":"{version}","generation":7,"creationTimestamp":"2025-03-01T08:00:00Z","labels":{{"app":"{name}","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"{name}"}},"annotations":{{"endpoints.kubernetes.io/last-change-trigger-time":"2025-03-01T08:00:00Z"}},"ownerReferences":[{{"apiVersion":"v1","kind":"Service","name":"{name}","uid":"{owner}","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{{"manager":"kube-controller-manager","operation":"Update","apiVersion":"discovery.k8s.io/v1","time":"2025-03-01T08:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:addressType":{{}},"f:endpoints":{{}},"f:metadata":{{"f:annotations":{{".":{{}},"f:endpoints.kubernetes.io/last-change-trigger-time":{{}}}},"f:generateName":{{}},"f:labels":{{".":{{}},"f:app":{{}},"f:endpointslice.kubernetes.io/managed-by":{{}},"f:kubernetes.io/service-name":{{}}}},"f:ownerReferences":{{".":{{}},"k:{{\"uid\":\"{owner}\"}}":{{}}}}}},"f:ports":{{}}}}}}]}},"addressType":"IPv4","endpoints":["#,
            uid = uid(2, number),
            owner = uid(1, number),
        );
        for (index, address) in self.endpoints.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (node, pod) = (index % 5 + 2, uid(3, u32::from(*address)));
            let _ = write!(
                text,
                r#"{comma}{{"addresses":["{address}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"targetRef":{{"kind":"Pod","namespace":"bench","name":"{name}-6d4cf56db6-{index:05}","uid":"{pod}"}},"nodeName":"node{node}","zone":"zone-{zone}"}}"#,
                zone = index % 3
            );
        }
        let _ = write!(
            text,
            r#"],"ports":[{{"name":"http","protocol":"TCP","port":{ENDPOINT_PORT}}}]}}"#
        );
        text
    }
}

/// The Node that the agent is on.
pub(super) fn node(name: &str, address: Ipv4Addr, version: u64) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","uid":"{uid}","resourceVersion":"{version}","creationTimestamp":"2025-03-01T08:00:00Z","labels":{{"kubernetes.io/hostname":"{name}","topology.kubernetes.io/zone":"zone-0"}}}},"spec":{{"podCIDR":"11.0.0.0/24"}},"status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}},{{"type":"Hostname","address":"{name}"}}]}}}}"#,
        uid = uid(4, 1)
    )
}

/// The number of the change that brought an endpoint; none if it was there from the start.
pub(super) fn change_of(address: Ipv4Addr) -> Option<u32> {
    u32::from(address).checked_sub(LATER)
}

fn uid(kind: u32, number: u32) -> String {
    format!("{kind:08x}-0000-4000-8000-0000{number:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json_and_name_what_they_belong_to() {
        let mut service = Service::new(258, 3);
        service.replace_one(5);
        let object: serde_json::Value = serde_json::from_str(&service.object(7)).unwrap();
        assert_eq!(object["spec"]["ports"][0]["nodePort"], 30_258);
        assert_eq!(object["metadata"]["resourceVersion"], "7");
        let slice: serde_json::Value = serde_json::from_str(&service.slice(8)).unwrap();
        assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], service.name());
        let address = |index: usize| slice["endpoints"][index]["addresses"][0].clone();
        assert_eq!([address(0), address(1), address(2)], ["12.0.0.5", "11.0.3.7", "11.0.3.8"]);
        let node: serde_json::Value =
            serde_json::from_str(&node("n", Ipv4Addr::LOCALHOST, 1)).unwrap();
        assert_eq!(node["status"]["addresses"][0]["address"], "127.0.0.1");
    }

    #[test]
    fn each_endpoint_is_replaced_in_its_turn_and_tells_by_which_change() {
        let mut service = Service::new(0, 2);
        assert_eq!(service.endpoints.iter().copied().filter_map(change_of).count(), 0);
        for change in 10..13 {
            service.replace_one(change);
        }
        let changes: Vec<_> = service.endpoints.iter().copied().map(change_of).collect();
        assert_eq!(changes, [Some(12), Some(11)]);
    }
}
