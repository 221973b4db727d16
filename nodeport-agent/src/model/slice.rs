//! An EndpointSlice: some endpoints of a Service, of one family.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::address;
use super::raw::{RawEndpoint, RawHint, RawSlice, Text};
use super::service::name_in;
use super::{Family, Finding, Findings, Kind, Name, Origin, Protocol};

/// The label that says to which Service a slice belongs.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The annotation that says when what a slice was last written for happened.
pub(super) const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// When what a slice was last written for happened, if it says. Of two slices that are the same but for
/// this, neither is news: any two of these are equal.
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct Trigger(pub Option<Timestamp>);

impl PartialEq for Trigger {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What counts of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: Name,
    /// Where it came from.
    pub origin: Origin,
    /// The Service that it belongs to, if it says.
    pub service: Option<Name>,
    /// Its family; none for names instead of addresses, which are not served.
    pub family: Option<Family>,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// When what it was last written for happened.
    pub trigger: Trigger,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the service port that it belongs to.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port on the endpoints.
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it stands in `endpoints`.
    pub position: usize,
    /// Its address.
    pub address: IpAddr,
    /// The node that it is on, if it is on one.
    pub node: Option<Arc<str>>,
    /// The pod that it is, by name, if it is one.
    pub pod: Option<Arc<str>>,
    /// The zone it is in, if that is known.
    pub zone: Option<Arc<str>>,
    /// It wants new connections.
    pub ready: bool,
    /// It answers, ready or not.
    pub serving: bool,
    /// It is going away.
    pub terminating: bool,
    /// Zones whose clients it is meant for.
    pub zones: Vec<Arc<str>>,
    /// Nodes whose clients it is meant for.
    pub nodes: Vec<Arc<str>>,
    /// It stands in one of the zones whose clients it is meant for.
    pub is_home: bool,
}

impl Slice {
    /// Reads an EndpointSlice.
    #[must_use]
    pub fn new(slice: &RawSlice<'_>, origin: Origin) -> Self {
        let name = name(slice);
        let mut findings = Findings::new(origin.clone(), Kind::EndpointSlice, name.clone());
        let family = family(text(slice.address_type.as_ref()), &mut findings);
        Self {
            service: service(slice, &name, &mut findings),
            family,
            ports: family.map(|_| ports(slice, &mut findings)).unwrap_or_default(),
            endpoints: family
                .map(|family| endpoints(slice, family, &mut findings))
                .unwrap_or_default(),
            trigger: trigger(slice),
            name,
            origin,
            findings: findings.finish(),
        }
    }
}

fn text<'a>(text: Option<&'a Text<'_>>) -> &'a str {
    text.map(|text| &*text.0).unwrap_or_default()
}

fn name(slice: &RawSlice<'_>) -> Name {
    let metadata = slice.metadata.as_ref();
    let namespace = metadata.and_then(|metadata| metadata.namespace.as_ref());
    name_in(text(namespace), text(metadata.and_then(|metadata| metadata.name.as_ref())))
}

/// Controllers write it for measurements; one that makes no sense harms nothing.
fn trigger(slice: &RawSlice<'_>) -> Trigger {
    let annotations = slice.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    Trigger(text(annotations.and_then(|all| all.trigger.as_ref())).parse().ok())
}

fn service(slice: &RawSlice<'_>, name: &Name, findings: &mut Findings) -> Option<Name> {
    let labels = slice.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    match text(labels.and_then(|labels| labels.service.as_ref())) {
        "" => {
            let problem =
                format!("no label {SERVICE_NAME_LABEL}: it belongs to no Service; add it");
            findings.warn("metadata.labels", problem);
            None
        }
        service => Some(Name { namespace: name.namespace.clone(), name: service.into() }),
    }
}

fn family(address_type: &str, findings: &mut Findings) -> Option<Family> {
    let family = Family::parse(address_type);
    // Names are for consumers other than a proxy: their being ignored is no fault.
    if family.is_none() && address_type != "FQDN" {
        let problem = format!("{address_type:?} is not an address type; write IPv4 or IPv6");
        findings.error("addressType", problem);
    }
    family
}

fn ports(slice: &RawSlice<'_>, findings: &mut Findings) -> Vec<SlicePort> {
    let mut ports = Vec::new();
    for (position, port) in slice.ports.iter().flatten().enumerate() {
        // Without a number it means all ports, which is not for proxies.
        let Some(number) = port.port else { continue };
        let name = text(port.name.as_ref()).into();
        let protocol = port.protocol.as_ref().map(|protocol| &*protocol.0);
        match (Protocol::parse(protocol), address::port(number)) {
            (Ok(protocol), Ok(port)) => ports.push(SlicePort { name, protocol, port }),
            (Err(problem), _) => findings.error(format!("ports[{position}].protocol"), problem),
            (_, Err(problem)) => findings.error(format!("ports[{position}].port"), problem),
        }
    }
    ports
}

fn endpoints(slice: &RawSlice<'_>, family: Family, findings: &mut Findings) -> Vec<Endpoint> {
    let listed = slice.endpoints.iter().flatten().enumerate();
    listed.filter_map(|(position, one)| endpoint(position, one, family, findings)).collect()
}

fn endpoint(
    position: usize,
    endpoint: &RawEndpoint<'_>,
    family: Family,
    findings: &mut Findings,
) -> Option<Endpoint> {
    // An endpoint may list several addresses; all consumers take the first.
    let Some(Text(first)) = &endpoint.address.0 else {
        findings.error(format!("endpoints[{position}].addresses"), "no address; give one");
        return None;
    };
    let read = address::endpoint(first, family);
    let field = || format!("endpoints[{position}].addresses[0]");
    let address = read.map_err(|problem| findings.error(field(), problem)).ok()?;
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    let names = |hints: Option<&Vec<RawHint<'_>>>| {
        hints.into_iter().flatten().map(|hint| text(hint.name.as_ref()).into()).collect()
    };
    let zones: Vec<Arc<str>> = names(hints.and_then(|hints| hints.for_zones.as_ref()));
    Some(Endpoint {
        position,
        address,
        node: endpoint.node_name.as_ref().map(|node| (*node.0).into()),
        pod: pod(endpoint),
        zone: endpoint.zone.as_ref().map(|zone| (*zone.0).into()),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        is_home: zones.iter().any(|zone| **zone == *text(endpoint.zone.as_ref())),
        zones,
        nodes: names(hints.and_then(|hints| hints.for_nodes.as_ref())),
    })
}

fn pod(endpoint: &RawEndpoint<'_>) -> Option<Arc<str>> {
    let target = endpoint.target_ref.as_ref().filter(|it| text(it.kind.as_ref()) == "Pod")?;
    target.name.as_ref().map(|name| (*name.0).into())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    fn slice(value: serde_json::Value) -> Slice {
        Slice::new(&RawSlice::deserialize(&value).unwrap(), Origin::Api)
    }

    #[test]
    fn what_is_left_out_means_what_the_api_would_put() {
        let slice = slice(json!({
            "metadata": {"name": "web-1", "labels": {SERVICE_NAME_LABEL: "web"}},
            "addressType": "IPv4",
            "ports": [{"port": 8080}, {"name": "all"}],
            "endpoints": [{"addresses": ["10.0.0.1", "10.0.0.9"]}],
        }));
        assert_eq!(slice.service, Some(Name::new("default", "web")));
        assert_eq!(slice.ports.len(), 1);
        assert_eq!((&*slice.ports[0].name, slice.ports[0].protocol), ("", Protocol::Tcp));
        let endpoint = &slice.endpoints[0];
        assert_eq!(endpoint.address.to_string(), "10.0.0.1");
        assert!(endpoint.ready && endpoint.serving && !endpoint.terminating);
        assert_eq!((&endpoint.node, slice.findings.len()), (&None, 0));
    }

    #[test]
    fn serving_follows_ready_where_it_is_not_said() {
        let slice = slice(json!({
            "metadata": {"name": "web-1", "labels": {SERVICE_NAME_LABEL: "web"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.2"],
                 "conditions": {"ready": false, "serving": true, "terminating": true}},
            ],
        }));
        let told: Vec<_> =
            slice.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
        assert_eq!(told, [(false, false, false), (false, true, true)]);
    }

    /// KEP-1672: absent or null, `ready` means true, `serving` what `ready` is, `terminating` false.
    #[test]
    fn each_condition_may_be_absent_or_null() {
        type Read = (bool, bool, bool);
        let rows: [(serde_json::Value, Read); 9] = [
            (json!(null), (true, true, false)),
            (json!({}), (true, true, false)),
            (json!({"ready": null, "serving": null, "terminating": null}), (true, true, false)),
            (json!({"ready": true}), (true, true, false)),
            (json!({"ready": false}), (false, false, false)),
            (json!({"serving": false}), (true, false, false)),
            (json!({"ready": false, "serving": true}), (false, true, false)),
            (json!({"terminating": true}), (true, true, true)),
            (json!({"ready": false, "terminating": true}), (false, false, true)),
        ];
        for (conditions, wanted) in rows {
            let slice = slice(json!({
                "metadata": {"name": "web-1", "labels": {SERVICE_NAME_LABEL: "web"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}],
            }));
            let one = &slice.endpoints[0];
            assert_eq!((one.ready, one.serving, one.terminating), wanted, "{conditions}");
        }
    }

    #[test]
    fn a_bad_endpoint_leaves_the_others() {
        let slice = slice(json!({
            "metadata": {"name": "web-1", "labels": {SERVICE_NAME_LABEL: "web"}},
            "addressType": "IPv4",
            "ports": [{"port": 0}, {"port": 70000}, {"port": 80, "protocol": "SCTP"}, {"port": 80}],
            "endpoints": [
                {"addresses": ["127.0.0.1"]},
                {"addresses": []},
                {"addresses": ["10.0.0.1"]},
            ],
        }));
        assert_eq!((slice.ports.len(), slice.endpoints.len()), (1, 1));
        assert_eq!(slice.endpoints[0].position, 2);
        let fields: Vec<_> = slice.findings.iter().map(|f| f.field.as_str()).collect();
        let wanted = [
            "ports[0].port",
            "ports[1].port",
            "ports[2].protocol",
            "endpoints[0].addresses[0]",
            "endpoints[1].addresses",
        ];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn names_are_ignored_and_unknown_types_reported() {
        let of = |kind: &str| {
            slice(json!({
                "metadata": {"name": "web-1", "labels": {SERVICE_NAME_LABEL: "web"}},
                "addressType": kind,
                "endpoints": [{"addresses": ["pod.example"]}],
            }))
        };
        assert_eq!((of("FQDN").endpoints.len(), of("FQDN").findings.len()), (0, 0));
        assert_eq!(of("IPv5").findings[0].field, "addressType");
    }

    #[test]
    fn when_it_was_triggered_is_told_and_no_news() {
        let of = |annotations: serde_json::Value| {
            slice(json!({
                "metadata": {"name": "web-1", "labels": {SERVICE_NAME_LABEL: "web"},
                             "annotations": annotations},
                "addressType": "IPv4",
            }))
        };
        let told = of(json!({"a": "b", TRIGGER_ANNOTATION: "2025-03-01T08:00:00.5Z"}));
        assert_eq!(told.trigger.0.map(|at| at.as_millisecond()), Some(1_740_816_000_500));
        for silent in [json!(null), json!({}), json!({TRIGGER_ANNOTATION: "soon"})] {
            let silent = of(silent);
            assert_eq!(silent.trigger.0, None);
            assert_eq!(silent, told);
        }
    }

    #[test]
    fn a_slice_of_nobody_is_reported() {
        let slice = slice(json!({"metadata": {"name": "web-1"}, "addressType": "IPv4"}));
        assert_eq!(slice.service, None);
        assert_eq!(slice.findings[0].field, "metadata.labels");
    }
}
