//! The addresses of its own at which a Service is served, and who may use them.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;

use super::service::Rules;
use super::{Findings, address};

/// An address at which all ports of a Service are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// The address.
    pub address: IpAddr,
    /// What gave it to the Service.
    pub kind: AddressKind,
    /// Where it stands in its list.
    pub position: usize,
}

/// What gives a Service an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressKind {
    /// The cluster: traffic to it is the cluster's own.
    ClusterIp,
    /// A load balancer in front of the nodes.
    LoadBalancer,
    /// Its author.
    External,
}

impl ServiceAddress {
    /// The field that it stands in.
    #[must_use]
    pub fn field(&self) -> String {
        let Self { kind, position, .. } = self;
        match kind {
            AddressKind::ClusterIp => format!("spec.clusterIPs[{position}]"),
            AddressKind::LoadBalancer => format!("status.loadBalancer.ingress[{position}].ip"),
            AddressKind::External => format!("spec.externalIPs[{position}]"),
        }
    }
}

/// The addresses of a Service that are served.
pub(super) fn addresses(
    service: &core::Service,
    rules: &Rules,
    findings: &mut Findings,
) -> Vec<ServiceAddress> {
    let none = core::ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    let mut reader = Reader { rules, findings, found: Vec::new() };
    if rules.serves.cluster_ips {
        reader.cluster_ips(spec);
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        reader.load_balancer(service);
    }
    reader.external_ips(spec);
    reader.found
}

struct Reader<'a> {
    rules: &'a Rules,
    findings: &'a mut Findings,
    found: Vec<ServiceAddress>,
}

impl Reader<'_> {
    fn cluster_ips(&mut self, spec: &core::ServiceSpec) {
        let listed = spec.cluster_ips.iter().flatten();
        for (position, text) in listed.enumerate() {
            self.read(text, AddressKind::ClusterIp, position);
        }
        if spec.cluster_ips.is_none()
            && let Some(text) = spec.cluster_ip.as_deref().filter(|text| !text.is_empty())
        {
            self.read(text, AddressKind::ClusterIp, 0);
        }
    }

    /// Where the load balancer answers by itself (`ipMode: Proxy`, KEP-1860), its address is not the
    /// nodes' business; a host name says nothing to them.
    fn load_balancer(&mut self, service: &core::Service) {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let listed = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
        for (position, ingress) in listed.enumerate() {
            let Some(text) = ingress.ip.as_deref().filter(|text| !text.is_empty()) else {
                continue;
            };
            if ingress.ip_mode.as_deref() != Some("Proxy") {
                self.read(text, AddressKind::LoadBalancer, position);
            }
        }
    }

    fn external_ips(&mut self, spec: &core::ServiceSpec) {
        for (position, text) in spec.external_ips.iter().flatten().enumerate() {
            self.read(text, AddressKind::External, position);
        }
    }

    fn read(&mut self, text: &str, kind: AddressKind, position: usize) {
        let read = address::frontend(text).and_then(|address| self.allow(address, kind));
        let address = match read {
            Ok(address) => address,
            Err(problem) => {
                let field = ServiceAddress { address: NO_ADDRESS, kind, position }.field();
                return self.findings.warn(field, problem);
            }
        };
        if !self.found.iter().any(|known| known.address == address) {
            self.found.push(ServiceAddress { address, kind, position });
        }
    }

    fn allow(&self, address: IpAddr, kind: AddressKind) -> Result<IpAddr, String> {
        let serves = &self.rules.serves;
        let (networks, option) = match kind {
            AddressKind::ClusterIp => return Ok(address),
            AddressKind::LoadBalancer => (&serves.load_balancer_ips, "--load-balancer-ips"),
            AddressKind::External => (&serves.external_ips, "--external-ips"),
        };
        match networks.contain(address) {
            true => Ok(address),
            false => Err(format!("{address} is not served: {option} does not allow it")),
        }
    }
}

/// Stands where none could be read.
const NO_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Who may use the load balancer's addresses; none if everybody may. What cannot be read lets nobody
/// in, and so does a list without networks of a family in that family.
pub(super) fn source_ranges(
    spec: &core::ServiceSpec,
    findings: &mut Findings,
) -> Option<Vec<IpNet>> {
    let listed = spec.load_balancer_source_ranges.as_ref().filter(|listed| !listed.is_empty())?;
    let mut ranges = Vec::with_capacity(listed.len());
    for (position, text) in listed.iter().enumerate() {
        // The API server lets blanks pass.
        match text.trim().parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => findings.error(
                format!("spec.loadBalancerSourceRanges[{position}]"),
                format!("{text:?} is no network, and lets nobody in; write one such as 10.0.0.0/8"),
            ),
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Networks;
    use crate::model::testing::rules;
    use crate::model::{Origin, Service};

    fn everything() -> Rules {
        let mut rules = rules();
        rules.serves.cluster_ips = true;
        rules.serves.external_ips = Networks::all();
        rules
    }

    fn service(spec: Value, ingress: Value, rules: &Rules) -> Service {
        let mut spec = spec;
        spec["ports"] = json!([{"port": 80}]);
        let status = json!({"loadBalancer": {"ingress": ingress}});
        let object = json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
        Service::new(&serde_json::from_value(object).unwrap(), Origin::Api, rules)
    }

    fn told(service: &Service) -> Vec<String> {
        service.addresses.iter().map(|one| format!("{} {}", one.field(), one.address)).collect()
    }

    #[test]
    fn addresses_of_each_kind_are_read() {
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd96::7"],
            "externalIPs": ["198.51.100.1", "192.0.2.50"],
        });
        let ingress = json!([
            {"hostname": "lb.example"},
            {"ip": "192.0.2.50"},
            {"ip": "2001:db8::50", "ipMode": "VIP"},
            {"ip": "192.0.2.51", "ipMode": "Proxy"},
            {"ip": ""},
        ]);
        let read = service(spec, ingress, &everything());
        assert_eq!(
            told(&read),
            [
                "spec.clusterIPs[0] 10.96.0.7",
                "spec.clusterIPs[1] fd96::7",
                "status.loadBalancer.ingress[1].ip 192.0.2.50",
                "status.loadBalancer.ingress[2].ip 2001:db8::50",
                "spec.externalIPs[0] 198.51.100.1",
            ]
        );
        assert_eq!(read.findings, [], "an address that is listed twice is one");
    }

    #[test]
    fn by_default_only_load_balancers_addresses_are_served() {
        let spec = json!({
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.7"], "externalIPs": ["198.51.100.1"],
        });
        let read = service(spec, json!([{"ip": "192.0.2.50"}]), &rules());
        assert_eq!(told(&read), ["status.loadBalancer.ingress[0].ip 192.0.2.50"]);
        let finding = read.findings[0].to_string();
        assert!(finding.contains("spec.externalIPs[0]: 198.51.100.1 is not served"), "{finding}");
        assert!(finding.contains("--external-ips"), "{finding}");
    }

    #[test]
    fn only_a_load_balancer_has_a_load_balancers_address() {
        for kind in ["ClusterIP", "NodePort"] {
            let read = service(json!({"type": kind}), json!([{"ip": "192.0.2.50"}]), &everything());
            assert_eq!(read.addresses, [], "{kind}");
        }
    }

    #[test]
    fn addresses_that_no_client_can_use_are_refused() {
        for text in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.169.254", "::", "::1", "fe80::1"]
        {
            let spec = json!({"type": "ClusterIP", "externalIPs": [text]});
            let read = service(spec, json!([]), &everything());
            assert_eq!(read.addresses, [], "{text}");
            assert!(read.findings[0].to_string().contains("spec.externalIPs[0]"), "{text}");
        }
    }

    #[test]
    fn services_that_are_not_ours_have_no_addresses() {
        for spec in [
            json!({"type": "ExternalName", "externalIPs": ["192.0.2.1"]}),
            json!({"type": "ClusterIP", "clusterIP": "None", "externalIPs": ["192.0.2.1"]}),
        ] {
            assert_eq!(service(spec.clone(), json!([]), &everything()).addresses, [], "{spec}");
        }
    }

    #[test]
    fn ranges_are_read_and_what_is_none_lets_nobody_in() {
        for (listed, ranges, problems) in [
            (json!(null), None, 0),
            (json!([]), None, 0),
            (json!([" 10.0.0.0/8 ", "10.1.2.3/8"]), Some(vec!["10.0.0.0/8"]), 0),
            (json!(["2001:db8::/32", "10.0.0.0/8"]), Some(vec!["10.0.0.0/8", "2001:db8::/32"]), 0),
            (json!(["everybody"]), Some(vec![]), 1),
        ] {
            let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": listed});
            let read = service(spec, json!([{"ip": "192.0.2.50"}]), &rules());
            let wanted = ranges.map(|list| list.iter().map(|one| one.parse().unwrap()).collect());
            assert_eq!((read.source_ranges, read.findings.len()), (wanted, problems), "{listed}");
        }
    }
}
