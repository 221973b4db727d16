//! A Service, and which of its ports clients can address.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;

use super::address::port as port_number;
use super::annotations;
use super::exposure::{self, ServiceAddress};
use super::{Algorithm, Family, Finding, Findings, Kind, Name, Origin, Protocol, Weights};
use crate::config::{PortRange, Serves};

const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// What a Service is held against.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Ports that may be nodePorts.
    pub node_ports: PortRange,
    /// Which addresses are served beside nodePorts.
    pub serves: Serves,
}

/// What counts of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// Where it came from.
    pub origin: Origin,
    /// When it was made, in microseconds since 1970; of two that want one nodePort, the older
    /// one has it.
    pub created: Option<i64>,
    /// Its UID; empty in a manifest.
    pub uid: Arc<str>,
    /// Its families; none given means every family that has a slice.
    pub families: Option<Vec<Family>>,
    /// Traffic from outside may go to endpoints on this node only.
    pub external_local: bool,
    /// Traffic from inside the cluster may go to endpoints on this node only.
    pub internal_local: bool,
    /// For how many seconds a client that opens no flow is known again, if it shall be.
    pub affinity: Option<u32>,
    /// Which endpoint a client gets that is not known.
    pub algorithm: Algorithm,
    /// How much its endpoints take beside each other.
    pub weights: Weights,
    /// Its ports that clients can address.
    pub ports: Vec<ServicePort>,
    /// Its own addresses.
    pub addresses: Vec<ServiceAddress>,
    /// Where a load balancer asks whether this node has endpoints, if it does.
    pub health_check_port: Option<u16>,
    /// Who may use a load balancer's address, sorted; none if everybody may.
    pub source_ranges: Option<Vec<IpNet>>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Where it stands in `spec.ports`.
    pub position: usize,
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
    /// The port on every node, if it has one.
    pub node_port: Option<u16>,
}

impl Service {
    /// Reads a Service.
    #[must_use]
    pub fn new(service: &core::Service, origin: Origin, rules: &Rules) -> Self {
        let name = name(&service.metadata);
        let mut findings = Findings::new(origin.clone(), Kind::Service, name.clone());
        let none = core::ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&none);
        let is_ours = is_ours(service, spec);
        let addresses = match is_ours {
            true => exposure::addresses(service, rules, &mut findings),
            false => Vec::new(),
        };
        let mut ports = match is_ours {
            true => ports(spec, rules, !addresses.is_empty(), &mut findings),
            false => Vec::new(),
        };
        let annotated = service.metadata.annotations.as_ref().filter(|_| is_ours);
        ports.retain(|port| port.node_port.is_some() || !addresses.is_empty());
        if !ports.is_empty() {
            report_unserved(spec, &mut findings);
            annotations::report_unknown(annotated, &mut findings);
        }
        Self {
            created: service.metadata.creation_timestamp.as_ref().map(|t| t.0.as_microsecond()),
            uid: service.metadata.uid.as_deref().unwrap_or_default().into(),
            families: families(spec, &mut findings),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            affinity: affinity(spec, &mut findings),
            health_check_port: match is_ours {
                true => health_check_port(spec, &mut findings),
                false => None,
            },
            algorithm: Algorithm::of(annotated, &mut findings),
            weights: Weights::of(annotated, &mut findings),
            source_ranges: match ports.is_empty() {
                true => None,
                false => exposure::source_ranges(spec, &mut findings),
            },
            addresses,
            name,
            origin,
            ports,
            findings: findings.finish(),
        }
    }
}

/// Name of an object.
pub(super) fn name(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Name {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    name_in(namespace, metadata.name.as_deref().unwrap_or_default())
}

/// A name in a namespace; a manifest without one means `default`, as the API would.
pub(super) fn name_in(namespace: &str, name: &str) -> Name {
    Name::new(if namespace.is_empty() { "default" } else { namespace }, name)
}

/// Whether it is for us, and of a type that clients can address.
fn is_ours(service: &core::Service, spec: &core::ServiceSpec) -> bool {
    let labels = service.metadata.labels.as_ref();
    let elsewhere = labels.is_some_and(|labels| {
        labels.contains_key(PROXY_NAME_LABEL) || labels.contains_key(HEADLESS_LABEL)
    });
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let elsewhere_named = spec.type_.as_deref() == Some("ExternalName");
    !elsewhere && !headless && !elsewhere_named
}

fn families(spec: &core::ServiceSpec, findings: &mut Findings) -> Option<Vec<Family>> {
    let listed = spec.ip_families.as_ref().filter(|families| !families.is_empty())?;
    let mut families = Vec::new();
    for (index, text) in listed.iter().enumerate() {
        match Family::parse(text) {
            Some(family) => families.push(family),
            None => findings.error(
                format!("spec.ipFamilies[{index}]"),
                format!("{text:?} is no family; write IPv4 or IPv6"),
            ),
        }
    }
    Some(families)
}

/// Three hours, as the API server fills in.
const AFFINITY: i32 = 10_800;
/// A day, as the API server allows.
const LONGEST_AFFINITY: i32 = 86_400;

fn affinity(spec: &core::ServiceSpec, findings: &mut Findings) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("None" | "") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            let problem =
                format!("{other:?} is not known and counts as None; write ClientIP or None");
            findings.error("spec.sessionAffinity", problem);
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|client_ip| client_ip.timeout_seconds).unwrap_or(AFFINITY);
    if (1..=LONGEST_AFFINITY).contains(&seconds) {
        return u32::try_from(seconds).ok();
    }
    findings.error(
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        format!("{seconds} is not between 1 and {LONGEST_AFFINITY}; it counts as {AFFINITY}"),
    );
    u32::try_from(AFFINITY).ok()
}

/// Load balancers ask only where traffic goes to endpoints on this node alone.
fn health_check_port(spec: &core::ServiceSpec, findings: &mut Findings) -> Option<u16> {
    let asks = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    let number = spec.health_check_node_port.filter(|number| asks && *number != 0)?;
    let report = |problem| findings.error("spec.healthCheckNodePort", problem);
    port_number(number).map_err(report).ok()
}

/// What the Service asks for and does not get.
fn report_unserved(spec: &core::ServiceSpec, findings: &mut Findings) {
    if let Some(policy) =
        spec.external_traffic_policy.as_deref().filter(|p| !matches!(*p, "Cluster" | "Local" | ""))
    {
        findings.error(
            "spec.externalTrafficPolicy",
            format!("{policy:?} is not known and counts as Cluster; write Cluster or Local"),
        );
    }
}

/// Reads the ports one after the other and keeps those that can be served.
fn ports(
    spec: &core::ServiceSpec,
    rules: &Rules,
    has_addresses: bool,
    findings: &mut Findings,
) -> Vec<ServicePort> {
    let has_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    if !has_node_ports && !has_addresses {
        return Vec::new();
    }
    let (names, taken) = (BTreeSet::new(), BTreeSet::new());
    let mut reader = Reader { spec, rules, has_node_ports, findings, names, taken };
    let listed = spec.ports.iter().flatten().enumerate();
    listed.filter_map(|(position, port)| reader.port(position, port)).collect()
}

/// What a port says of its nodePort.
enum NodePort {
    Is(u16),
    None,
    Refused,
}

struct Reader<'a> {
    spec: &'a core::ServiceSpec,
    rules: &'a Rules,
    has_node_ports: bool,
    findings: &'a mut Findings,
    names: BTreeSet<(Arc<str>, Protocol)>,
    taken: BTreeSet<(u16, Protocol)>,
}

impl Reader<'_> {
    fn port(&mut self, position: usize, port: &core::ServicePort) -> Option<ServicePort> {
        let at = |field: &str| format!("spec.ports[{position}].{field}");
        let protocol = self.or_report(at("protocol"), Protocol::parse(port.protocol.as_deref()))?;
        let number = self.or_report(at("port"), port_number(port.port))?;
        let node_port = match self.node_port(at("nodePort"), port.node_port) {
            NodePort::Is(port) => Some(port),
            NodePort::None => None,
            NodePort::Refused => return None,
        };
        let name: Arc<str> = port.name.as_deref().unwrap_or_default().into();
        if !self.names.insert((name.clone(), protocol)) {
            let problem = format!("{name:?} is the name of an earlier port; give each its own");
            self.findings.error(at("name"), problem);
            return None;
        }
        if let Some(node_port) = node_port
            && !self.taken.insert((node_port, protocol))
        {
            let problem = format!("{node_port} is taken by an earlier port; choose another");
            self.findings.error(at("nodePort"), problem);
            return None;
        }
        Some(ServicePort { position, name, protocol, port: number, node_port })
    }

    fn or_report<T>(&mut self, field: String, read: Result<T, String>) -> Option<T> {
        read.map_err(|problem| self.findings.error(field, problem)).ok()
    }

    fn node_port(&mut self, field: String, number: Option<i32>) -> NodePort {
        let number = number.filter(|_| self.has_node_ports).unwrap_or(0);
        if number == 0 {
            self.no_node_port(field);
            return NodePort::None;
        }
        let Some(port) = self.or_report(field.clone(), port_number(number)) else {
            return NodePort::Refused;
        };
        if self.rules.node_ports.contains(port) {
            return NodePort::Is(port);
        }
        let problem = format!(
            "{port} is outside --node-port-range {}; choose a port in it, or widen it",
            self.rules.node_ports
        );
        self.findings.broken_rule(field, problem);
        // The API server accepted it, so somebody relies on it.
        match self.findings.origin() {
            Origin::Api => NodePort::Is(port),
            Origin::File(_) => NodePort::Refused,
        }
    }

    /// A LoadBalancer may do without; in a manifest of a NodePort nobody fills it in.
    fn no_node_port(&mut self, field: String) {
        let manifest = *self.findings.origin() != Origin::Api;
        if manifest && self.spec.type_.as_deref() == Some("NodePort") {
            let range = self.rules.node_ports;
            let problem = format!(
                "none given, and without a cluster nobody allocates one; choose one in {range}"
            );
            self.findings.error(field, problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Severity;
    use crate::model::testing::rules;

    fn file() -> Origin {
        Origin::File(Arc::new("web.yaml".into()))
    }

    fn service(spec: serde_json::Value, origin: Origin) -> Service {
        let object = json!({"metadata": {"name": "web"}, "spec": spec});
        Service::new(&serde_json::from_value(object).unwrap(), origin, &rules())
    }

    fn one_port(port: serde_json::Value, origin: Origin) -> Service {
        service(json!({"type": "NodePort", "ports": [port]}), origin)
    }

    #[test]
    fn what_a_manifest_leaves_out_means_what_the_api_would_put() {
        let service = one_port(json!({"port": 80, "nodePort": 30007}), file());
        assert_eq!(service.name, Name::new("default", "web"));
        assert_eq!((service.families, service.external_local), (None, false));
        let port = &service.ports[0];
        assert_eq!((port.protocol, port.port, port.node_port), (Protocol::Tcp, 80, Some(30007)));
        assert_eq!(service.findings, []);
    }

    #[test]
    fn ports_that_cannot_be_are_refused_by_field() {
        for (port, field) in [
            (json!({"port": 0, "nodePort": 30007}), "spec.ports[0].port"),
            (json!({"port": 70000, "nodePort": 30007}), "spec.ports[0].port"),
            (json!({"nodePort": 30007}), "spec.ports[0].port"),
            (json!({"port": 80, "nodePort": 70000}), "spec.ports[0].nodePort"),
            (json!({"port": 80, "nodePort": -1}), "spec.ports[0].nodePort"),
            (json!({"port": 80, "nodePort": 29999}), "spec.ports[0].nodePort"),
            (json!({"port": 80}), "spec.ports[0].nodePort"),
            (json!({"port": 80, "nodePort": 30007, "protocol": "SCTP"}), "spec.ports[0].protocol"),
        ] {
            let service = one_port(port.clone(), file());
            assert_eq!(service.ports, [], "{port}");
            assert_eq!(service.findings.len(), 1, "{port}");
            assert_eq!(service.findings[0].field, field);
            assert_eq!(service.findings[0].severity, Severity::Error);
        }
    }
    #[test]
    fn what_the_api_accepted_outside_the_range_is_served_with_a_warning() {
        let service = one_port(json!({"port": 80, "nodePort": 8080}), Origin::Api);
        assert_eq!(service.ports[0].node_port, Some(8080));
        assert_eq!(service.findings[0].severity, Severity::Warning);
    }

    #[test]
    fn a_bad_port_leaves_the_others() {
        let ports = json!([
            {"name": "a", "port": 80, "nodePort": 30001},
            {"name": "a", "port": 81, "nodePort": 30002},
            {"name": "c", "port": 82, "nodePort": 30001},
            {"name": "c", "port": 82, "nodePort": 30001, "protocol": "UDP"},
        ]);
        let service = service(json!({"type": "NodePort", "ports": ports}), file());
        let kept: Vec<_> = service.ports.iter().map(|port| port.position).collect();
        assert_eq!(kept, [0, 3]);
        assert_eq!(service.findings.len(), 2);
    }

    #[test]
    fn services_that_are_not_ours_have_no_ports() {
        let ports = json!([{"port": 80, "nodePort": 30007}]);
        for spec in [
            json!({"type": "ClusterIP", "ports": ports}),
            json!({"ports": ports}),
            json!({"type": "ExternalName", "ports": ports}),
            json!({"type": "NodePort", "clusterIP": "None", "ports": ports}),
        ] {
            assert_eq!(service(spec, file()).ports, []);
        }
        for label in [PROXY_NAME_LABEL, HEADLESS_LABEL] {
            let object = json!({
                "metadata": {"name": "web", "labels": {label: ""}},
                "spec": {"type": "NodePort", "ports": ports},
            });
            let object = serde_json::from_value(object).unwrap();
            assert_eq!(Service::new(&object, file(), &rules()).ports, []);
        }
    }

    #[test]
    fn a_load_balancer_may_do_without_node_ports() {
        let spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
        let service = service(spec, file());
        assert_eq!((service.ports.len(), service.findings.len()), (0, 0));
    }

    #[test]
    fn affinity_is_read_and_checked() {
        let config = |seconds: i32| json!({"clientIP": {"timeoutSeconds": seconds}});
        for (affinity, config, seconds, problems) in [
            (json!(null), json!(null), None, 0),
            (json!("None"), config(60), None, 0),
            (json!("ClientIP"), json!(null), Some(10_800), 0),
            (json!("ClientIP"), config(1), Some(1), 0),
            (json!("ClientIP"), config(86_400), Some(86_400), 0),
            (json!("ClientIP"), config(0), Some(10_800), 1),
            (json!("ClientIP"), config(86_401), Some(10_800), 1),
            (json!("ClientName"), json!(null), None, 1),
        ] {
            let spec = json!({
                "type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}],
                "sessionAffinity": affinity, "sessionAffinityConfig": config,
            });
            let service = service(spec, file());
            assert_eq!(
                (service.affinity, service.findings.len()),
                (seconds, problems),
                "{affinity}"
            );
        }
    }

    #[test]
    fn families_are_read_and_checked() {
        let spec = json!({"type": "NodePort", "ipFamilies": ["IPv6", "IPv5"]});
        let service = service(spec, file());
        assert_eq!(service.families, Some(vec![Family::V6]));
        assert_eq!(service.findings[0].field, "spec.ipFamilies[1]");
    }
}
