//! Objects of which only that is read which counts: of the bytes that an API server sends, most are
//! about who changed which field and which pod an endpoint is. They are passed over, which takes a
//! fraction of the time and no memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerStatus, Service, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::{ANNOTATIONS, Origin, RawSlice, Slice};

/// A Service with less metadata.
#[derive(Clone, Debug)]
pub(super) struct ReducedService(Box<Service>);

/// An EndpointSlice in our own words, and the metadata that a watch needs.
#[derive(Clone, Debug)]
pub(super) struct ReducedSlice {
    metadata: Box<ObjectMeta>,
    slice: Arc<Slice>,
}

impl ReducedService {
    pub(super) fn get(&self) -> &Service {
        &self.0
    }
}

impl ReducedSlice {
    pub(super) fn into_slice(self) -> Arc<Slice> {
        self.slice
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "ours")]
    annotations: Option<BTreeMap<String, String>>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
}

#[derive(Deserialize)]
struct RawService {
    metadata: Option<Metadata>,
    spec: Option<ServiceSpec>,
    status: Option<Status>,
}

/// Those annotations that are ours. Others may be as long as the whole object was when it was applied.
fn ours<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Ours;
    impl<'de> Visitor<'de> for Ours {
        type Value = Option<BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some(name) = all.next_key::<String>()? {
                if name.starts_with(ANNOTATIONS) {
                    found.insert(name, all.next_value()?);
                } else {
                    all.next_value::<IgnoredAny>()?;
                }
            }
            Ok(Some(found).filter(|found| !found.is_empty()))
        }
    }
    from.deserialize_any(Ours)
}

/// Conditions are nobody's business here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    load_balancer: Option<LoadBalancerStatus>,
}

fn whole(metadata: Option<Metadata>) -> ObjectMeta {
    let Some(metadata) = metadata else { return ObjectMeta::default() };
    let Metadata {
        name,
        namespace,
        labels,
        annotations,
        uid,
        resource_version,
        creation_timestamp,
    } = metadata;
    ObjectMeta {
        name,
        namespace,
        labels,
        annotations,
        uid,
        resource_version,
        creation_timestamp,
        ..ObjectMeta::default()
    }
}

impl<'de> Deserialize<'de> for ReducedService {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let RawService { metadata, spec, status } = RawService::deserialize(from)?;
        let metadata = whole(metadata);
        let load_balancer = status.and_then(|status| status.load_balancer);
        let status = Some(ServiceStatus { load_balancer, conditions: None });
        Ok(Self(Box::new(Service { metadata, spec, status })))
    }
}

impl<'de> Deserialize<'de> for ReducedSlice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = RawSlice::deserialize(from)?;
        let resource_version = raw.resource_version().map(str::to_owned);
        let metadata = Box::new(ObjectMeta { resource_version, ..ObjectMeta::default() });
        Ok(Self { metadata, slice: Arc::new(Slice::new(&raw, Origin::Api)) })
    }
}

/// Says what an object is by what it holds.
macro_rules! resource {
    ($reduced:ty, $whole:ty, $($metadata:tt)+) => {
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
                &self.$($metadata)+
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.$($metadata)+
            }
        }
    };
}

resource!(ReducedService, Service, 0.metadata);
resource!(ReducedSlice, EndpointSlice, metadata);

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
                "annotations": {
                    "endpoints.kubernetes.io/last-change-trigger-time": "2025-03-01T08:00:00Z",
                },
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
        let slice = reduced.into_slice();
        let expected = model::Slice::new(&RawSlice::from(&whole), Origin::Api);
        assert_eq!((&*slice, slice.trigger.0), (&expected, expected.trigger.0));
        assert!(slice.trigger.0.is_some());
        assert_eq!(slice.endpoints.len(), 2);
        assert_eq!(slice.endpoints[0].zones, ["a".into()]);
        let of = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        assert_eq!(of(&slice.endpoints[0].pod).as_deref(), Some("web-x"));
        assert_eq!(of(&slice.endpoints[0].zone).as_deref(), Some("a"));
        assert_eq!((slice.endpoints[0].ready, slice.endpoints[0].terminating), (false, true));
    }

    #[test]
    fn a_service_means_what_the_whole_means() {
        let object = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2025-03-01T08:00:00Z", "labels": {"a": "b"},
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                    "nodeport.dev/algorithm": "least", "nodeport.dev/weights": "node/n1=0",
                },
            },
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ipFamilies": ["IPv4"],
                "clusterIPs": ["10.96.0.7"], "externalIPs": ["192.0.2.1"],
                "loadBalancerSourceRanges": ["10.0.0.0/8"],
                "ports": [{"port": 80, "nodePort": 30007, "name": "http"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.50", "ipMode": "VIP"}]}},
        });
        let whole: Service = serde_json::from_value(object.clone()).unwrap();
        let reduced: ReducedService = serde_json::from_value(object).unwrap();
        let read = |service| model::Service::new(service, Origin::Api, &rules());
        assert_eq!(read(reduced.get()), read(&whole));
        assert_eq!(read(reduced.get()).algorithm, model::Algorithm::Least);
        assert_eq!(reduced.meta().annotations.as_ref().map(BTreeMap::len), Some(2));
        assert_eq!((read(reduced.get()).ports.len(), read(reduced.get()).addresses.len()), (1, 1));
    }

    #[test]
    fn what_is_missing_or_null_is_empty() {
        for object in [json!({}), json!({"metadata": null, "endpoints": null, "spec": null})] {
            let slice: ReducedSlice = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(slice.into_slice().endpoints.len(), 0);
            let service: ReducedService = serde_json::from_value(object).unwrap();
            assert_eq!(service.get().spec, None);
        }
    }
}
