//! Objects of which only that is read which counts: of the bytes that an API server sends, most are
//! about who changed which field and which pod an endpoint is. They are passed over, which takes a
//! fraction of the time and no memory.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A Service without its status, and with less metadata.
#[derive(Clone, Debug)]
pub(super) struct ReducedService(pub(super) Service);

/// An EndpointSlice without the targets of its endpoints, and with less metadata.
#[derive(Clone, Debug)]
pub(super) struct ReducedSlice(pub(super) EndpointSlice);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
}

#[derive(Deserialize)]
struct RawService {
    metadata: Option<Metadata>,
    spec: Option<ServiceSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSlice {
    metadata: Option<Metadata>,
    address_type: Option<String>,
    endpoints: Option<Vec<RawEndpoint>>,
    ports: Option<Vec<EndpointPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<EndpointConditions>,
    hints: Option<EndpointHints>,
    node_name: Option<String>,
    zone: Option<String>,
}

fn whole(metadata: Option<Metadata>) -> ObjectMeta {
    let Some(metadata) = metadata else { return ObjectMeta::default() };
    let Metadata { name, namespace, labels, uid, resource_version, creation_timestamp } = metadata;
    ObjectMeta {
        name,
        namespace,
        labels,
        uid,
        resource_version,
        creation_timestamp,
        ..ObjectMeta::default()
    }
}

impl From<RawEndpoint> for Endpoint {
    fn from(raw: RawEndpoint) -> Self {
        let RawEndpoint { addresses, conditions, hints, node_name, zone } = raw;
        let addresses = addresses.unwrap_or_default();
        Self { addresses, conditions, hints, node_name, zone, ..Self::default() }
    }
}

impl<'de> Deserialize<'de> for ReducedService {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let RawService { metadata, spec } = RawService::deserialize(from)?;
        let metadata = whole(metadata);
        Ok(Self(Service { metadata, spec, status: None }))
    }
}

impl<'de> Deserialize<'de> for ReducedSlice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let RawSlice { metadata, address_type, endpoints, ports } = RawSlice::deserialize(from)?;
        let metadata = whole(metadata);
        let endpoints = endpoints.unwrap_or_default().into_iter().map(Endpoint::from).collect();
        let address_type = address_type.unwrap_or_default();
        Ok(Self(EndpointSlice { metadata, address_type, endpoints, ports }))
    }
}

/// Says what an object is by what it holds.
macro_rules! resource {
    ($reduced:ty, $whole:ty) => {
        impl Resource for $reduced {
            type DynamicType = ();
            type Scope = <$whole as Resource>::Scope;

            fn kind(&(): &()) -> Cow<'_, str> {
                <$whole as Resource>::kind(&())
            }

            fn group(&(): &()) -> Cow<'_, str> {
                <$whole as Resource>::group(&())
            }

            fn version(&(): &()) -> Cow<'_, str> {
                <$whole as Resource>::version(&())
            }

            fn plural(&(): &()) -> Cow<'_, str> {
                <$whole as Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.0.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.0.metadata
            }
        }
    };
}

resource!(ReducedService, Service);
resource!(ReducedSlice, EndpointSlice);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::testing::rules;
    use crate::model::{self, Origin};

    fn slice() -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": {"kubernetes.io/service-name": "web"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s"}],
                "managedFields": [{"manager": "m", "fieldsV1": {"f:ports": {}}}],
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": ["10.0.0.1"], "nodeName": "n1", "zone": "a",
                    "conditions": {"ready": false, "serving": true, "terminating": true},
                    "hints": {"forZones": [{"name": "a"}]},
                    "targetRef": {"kind": "Pod", "name": "web-x"}, "hostname": "h",
                },
                {"addresses": ["10.0.0.2"]},
            ],
        })
    }

    #[test]
    fn a_slice_means_what_the_whole_means() {
        let whole: EndpointSlice = serde_json::from_value(slice()).unwrap();
        let reduced: ReducedSlice = serde_json::from_value(slice()).unwrap();
        assert_eq!(reduced.meta().resource_version.as_deref(), Some("7"));
        assert_eq!(
            model::Slice::new(&reduced.0, Origin::Api),
            model::Slice::new(&whole, Origin::Api)
        );
    }

    #[test]
    fn a_service_means_what_the_whole_means() {
        let object = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2025-03-01T08:00:00Z", "labels": {"a": "b"},
            },
            "spec": {
                "type": "NodePort", "externalTrafficPolicy": "Local", "ipFamilies": ["IPv4"],
                "ports": [{"port": 80, "nodePort": 30007, "name": "http"}],
            },
            "status": {"loadBalancer": {}},
        });
        let whole: Service = serde_json::from_value(object.clone()).unwrap();
        let reduced: ReducedService = serde_json::from_value(object).unwrap();
        let read = |service| model::Service::new(service, Origin::Api, rules());
        assert_eq!(read(&reduced.0), read(&whole));
        assert_eq!(read(&reduced.0).ports.len(), 1);
    }

    #[test]
    fn what_is_missing_or_null_is_empty() {
        for object in [json!({}), json!({"metadata": null, "endpoints": null, "spec": null})] {
            let slice: ReducedSlice = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(slice.0.endpoints.len(), 0);
            let service: ReducedService = serde_json::from_value(object).unwrap();
            assert_eq!(service.0.spec, None);
        }
    }
}
