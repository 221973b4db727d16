//! An EndpointSlice in the API's words, borrowed from where it stands, and of it only what counts:
//! most of what an API server sends is about who changed which field and which pod an endpoint is.
//! A cluster has a hundred thousand endpoints, and none of them costs memory before it is known to
//! be one.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::api::discovery::v1 as discovery;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

/// A text, borrowed if it needs no unescaping.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl RawSlice<'_> {
    /// The version of the object, if it says.
    #[must_use]
    pub fn resource_version(&self) -> Option<&str> {
        self.metadata.as_ref()?.resource_version.as_ref().map(|version| &*version.0)
    }
}

impl<'a> Text<'a> {
    fn of(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RawSlice<'a> {
    #[serde(borrow)]
    pub(super) metadata: Option<RawMetadata<'a>>,
    #[serde(borrow)]
    pub(super) address_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) ports: Option<Vec<RawPort<'a>>>,
    #[serde(borrow)]
    pub(super) endpoints: Option<Vec<RawEndpoint<'a>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawMetadata<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) namespace: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) labels: Option<RawLabels<'a>>,
    #[serde(borrow)]
    pub(super) annotations: Option<RawAnnotations<'a>>,
    #[serde(borrow)]
    resource_version: Option<Text<'a>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawLabels<'a> {
    // The same as `SERVICE_NAME_LABEL`, as a test holds.
    #[serde(borrow, rename = "kubernetes.io/service-name")]
    pub(super) service: Option<Text<'a>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawAnnotations<'a> {
    // The same as `TRIGGER_ANNOTATION`, as a test holds.
    #[serde(borrow, rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(super) trigger: Option<Text<'a>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawPort<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) protocol: Option<Text<'a>>,
    pub(super) port: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawEndpoint<'a> {
    #[serde(borrow, default, rename = "addresses")]
    pub(super) address: First<'a>,
    pub(super) conditions: Option<RawConditions>,
    #[serde(borrow)]
    pub(super) hints: Option<RawHints<'a>>,
    #[serde(borrow)]
    pub(super) node_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) target_ref: Option<RawTarget<'a>>,
    #[serde(borrow)]
    pub(super) zone: Option<Text<'a>>,
}

/// The object that an endpoint is.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RawTarget<'a> {
    #[serde(borrow)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct RawConditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHints<'a> {
    #[serde(borrow)]
    pub(super) for_zones: Option<Vec<RawHint<'a>>>,
    #[serde(borrow)]
    pub(super) for_nodes: Option<Vec<RawHint<'a>>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RawHint<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
}

/// The first of a list of texts, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct First<'a>(pub(super) Option<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = First<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(First(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        from.deserialize_any(List)
    }
}

impl<'a> From<&'a discovery::EndpointSlice> for RawSlice<'a> {
    fn from(slice: &'a discovery::EndpointSlice) -> Self {
        let text = |text: &'a Option<String>| text.as_deref().map(Text::of);
        let metadata = &slice.metadata;
        let label = metadata.labels.as_ref().and_then(|all| all.get(super::SERVICE_NAME_LABEL));
        let trigger =
            metadata.annotations.as_ref().and_then(|all| all.get(super::slice::TRIGGER_ANNOTATION));
        let port = |port: &'a discovery::EndpointPort| RawPort {
            name: text(&port.name),
            protocol: text(&port.protocol),
            port: port.port,
        };
        Self {
            metadata: Some(RawMetadata {
                name: text(&metadata.name),
                namespace: text(&metadata.namespace),
                labels: Some(RawLabels { service: label.map(|label| Text::of(label)) }),
                annotations: Some(RawAnnotations { trigger: trigger.map(|at| Text::of(at)) }),
                resource_version: text(&metadata.resource_version),
            }),
            address_type: Some(Text::of(&slice.address_type)),
            ports: slice.ports.as_ref().map(|ports| ports.iter().map(port).collect()),
            endpoints: Some(slice.endpoints.iter().map(RawEndpoint::from).collect()),
        }
    }
}

impl<'a> From<&'a discovery::Endpoint> for RawEndpoint<'a> {
    fn from(endpoint: &'a discovery::Endpoint) -> Self {
        let hints = endpoint.hints.as_ref().map(|hints| {
            let (zones, nodes) = (hints.for_zones.as_ref(), hints.for_nodes.as_ref());
            let hint = |name: &'a str| RawHint { name: Some(Text::of(name)) };
            RawHints {
                for_zones: zones.map(|all| all.iter().map(|zone| hint(&zone.name)).collect()),
                for_nodes: nodes.map(|all| all.iter().map(|node| hint(&node.name)).collect()),
            }
        });
        let conditions = endpoint.conditions.as_ref().map(|conditions| RawConditions {
            ready: conditions.ready,
            serving: conditions.serving,
            terminating: conditions.terminating,
        });
        Self {
            address: First(endpoint.addresses.first().map(|address| Text::of(address))),
            conditions,
            hints,
            node_name: endpoint.node_name.as_deref().map(Text::of),
            target_ref: endpoint.target_ref.as_ref().map(|target| RawTarget {
                kind: target.kind.as_deref().map(Text::of),
                name: target.name.as_deref().map(Text::of),
            }),
            zone: endpoint.zone.as_deref().map(Text::of),
        }
    }
}
