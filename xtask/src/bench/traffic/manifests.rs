//! The same services as manifests, for the agent.

use std::fmt::{Result, Write as _};

use super::cluster::{ENDPOINT_PORT, SERVICE_PORT, Service};
use super::measure::Family;

/// Manifests in files of some services each: (name, text).
pub(super) fn manifests(
    services: &[Service],
    families: &[Family],
    node: &str,
    per_file: usize,
) -> Vec<(String, String)> {
    let files = (0..).zip(services.chunks(per_file.max(1)));
    files
        .map(|(number, services): (u32, _)| {
            let mut text = String::new();
            // Writing to a string does not fail.
            let _ = services.iter().try_for_each(|one| manifest(&mut text, one, families, node));
            (format!("services-{number}"), text)
        })
        .collect()
}

/// A service, and its slice of each family.
fn manifest(text: &mut String, service: &Service, families: &[Family], node: &str) -> Result {
    let Service { name, cluster_ip, node_port, protocols, .. } = service;
    let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let addresses: Vec<_> = families.iter().map(|one| one.of(*cluster_ip).to_string()).collect();
    let names: Vec<_> = families.iter().map(|one| one.name()).collect();
    write!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  type: NodePort\n  clusterIP: \"{}\"\n  clusterIPs: {addresses:?}\n  \
         ipFamilies: {names:?}\n  ipFamilyPolicy: {policy}\n  ports:\n",
        addresses.first().map_or("None", String::as_str)
    )?;
    for protocol in *protocols {
        writeln!(
            text,
            "    - {{name: {}, port: {SERVICE_PORT}, targetPort: {ENDPOINT_PORT}, \
             nodePort: {node_port}, protocol: {}}}",
            protocol.lower(),
            protocol.upper()
        )?;
    }
    families.iter().try_for_each(|family| slice(text, service, *family, node))
}

fn slice(text: &mut String, service: &Service, family: Family, node: &str) -> Result {
    let Service { name, protocols, endpoints, .. } = service;
    write!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
         name: {name}-{}\n  namespace: default\n  labels: {{kubernetes.io/service-name: {name}}}\n\
         addressType: {}\nports:\n",
        family.name().to_lowercase(),
        family.name()
    )?;
    for protocol in *protocols {
        writeln!(
            text,
            "  - {{name: {}, port: {ENDPOINT_PORT}, protocol: {}}}",
            protocol.lower(),
            protocol.upper()
        )?;
    }
    text.push_str("endpoints:\n");
    for address in endpoints.map(|pair| family.of(pair)) {
        writeln!(
            text,
            "  - {{addresses: [\"{address}\"], nodeName: {node}, conditions: {{ready: true}}}}"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cluster::services;
    use super::super::cluster::tests::BACKEND;
    use super::*;

    #[test]
    fn each_service_has_its_slice_in_the_same_file() {
        let files = manifests(&services(25, BACKEND), &[Family::V4], "node2", 10);
        let counts: Vec<_> = files
            .iter()
            .map(|(_, text)| {
                (
                    text.matches("kind: Service\n").count(),
                    text.matches("kind: EndpointSlice").count(),
                )
            })
            .collect();
        assert_eq!(counts, [(10, 10), (10, 10), (5, 5)]);
        assert_eq!(
            files.iter().map(|(_, text)| text.matches("protocol: UDP").count()).sum::<usize>(),
            2
        );
    }

    #[test]
    fn a_service_of_both_families_has_a_slice_in_each() {
        let families = [Family::V4, Family::V6];
        let (_, text) = manifests(&services(1, BACKEND), &families, "node2", 10).remove(0);
        for part in [
            "ipFamilies: [\"IPv4\", \"IPv6\"]",
            "RequireDualStack",
            "name: svc-0-ipv6",
            "addresses: [\"10.244.2.1\"]",
            "addresses: [\"fd00:244:2::1\"]",
        ] {
            assert_eq!(text.matches(part).count(), 1, "{part}\n{text}");
        }
    }
}
