//! The same services as manifests, for the agent.

use std::fmt::{Result, Write as _};

use super::cluster::{ENDPOINT_PORT, SERVICE_PORT, Service};

/// Manifests in files of some services each: (name, text).
pub(super) fn manifests(
    services: &[Service],
    node: &str,
    per_file: usize,
) -> Vec<(String, String)> {
    let files = (0..).zip(services.chunks(per_file.max(1)));
    files
        .map(|(number, services): (u32, _)| {
            let mut text = String::new();
            // Writing to a string does not fail.
            let _ = services.iter().try_for_each(|service| manifest(&mut text, service, node));
            (format!("services-{number}"), text)
        })
        .collect()
}

fn manifest(text: &mut String, service: &Service, node: &str) -> Result {
    let Service { name, cluster_ip, node_port, protocols, endpoints } = service;
    write!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  type: NodePort\n  clusterIP: {cluster_ip}\n  clusterIPs: [{cluster_ip}]\n  ports:\n"
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
    write!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  \
         namespace: default\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
         ports:\n"
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
    for address in endpoints {
        writeln!(
            text,
            "  - {{addresses: [{address}], nodeName: {node}, conditions: {{ready: true}}}}"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::cluster::services;
    use super::*;

    #[test]
    fn each_service_has_its_slice_in_the_same_file() {
        let backend = [Ipv4Addr::new(10, 244, 2, 1), Ipv4Addr::new(10, 244, 2, 2)];
        let files = manifests(&services(25, backend), "node2", 10);
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
}
