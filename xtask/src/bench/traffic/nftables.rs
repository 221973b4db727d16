//! The rules that kube-proxy's nftables mode makes, in the form that `nft -f` takes.

use std::fmt::{Result, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::cluster::{
    ENDPOINT_PORT, SERVICE_PORT, Service, ServicePort, pod_net, ports, service_net,
};
use super::measure::Family;
use crate::lab::Pair;

const BASE: &str = r#"
add table ip kube-proxy { comment "rules for kube-proxy" ; }
add chain ip kube-proxy mark-for-masquerade
add rule ip kube-proxy mark-for-masquerade meta mark set meta mark or 0x4000
add chain ip kube-proxy masquerading
add rule ip kube-proxy masquerading meta mark & 0x4000 == 0 return
add rule ip kube-proxy masquerading meta mark set meta mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add chain ip kube-proxy services
add chain ip kube-proxy reject-chain { comment "helper for @no-endpoint-services / @no-endpoint-nodeports" ; }
add rule ip kube-proxy reject-chain reject
add chain ip kube-proxy firewall-check
add chain ip kube-proxy service-endpoints-check
add chain ip kube-proxy nodeport-endpoints-check
add chain ip kube-proxy cluster-ips-check
add chain ip kube-proxy filter-prerouting-pre-dnat { type filter hook prerouting priority -110 ; }
add chain ip kube-proxy filter-output-pre-dnat { type filter hook output priority -110 ; }
add chain ip kube-proxy filter-input { type filter hook input priority 0 ; }
add chain ip kube-proxy filter-forward { type filter hook forward priority 0 ; }
add chain ip kube-proxy filter-output { type filter hook output priority 0 ; }
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -100 ; }
add chain ip kube-proxy nat-output { type nat hook output priority -100 ; }
add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority 100 ; }
add rule ip kube-proxy filter-prerouting-pre-dnat ct state new jump firewall-check
add rule ip kube-proxy filter-output-pre-dnat ct state new jump firewall-check
add rule ip kube-proxy filter-input ct state new jump nodeport-endpoints-check
add rule ip kube-proxy filter-input ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output ct state new jump cluster-ips-check
add rule ip kube-proxy nat-prerouting jump services
add rule ip kube-proxy nat-output jump services
add rule ip kube-proxy nat-postrouting jump masquerading
add set ip kube-proxy cluster-ips { type ipv4_addr ; comment "Active ClusterIPs" ; }
add set ip kube-proxy nodeport-ips { type ipv4_addr ; comment "IPs that accept NodePort traffic" ; }
add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy no-endpoint-nodeports { type inet_proto . inet_service : verdict ; }
add map ip kube-proxy firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-nodeports { type inet_proto . inet_service : verdict ; }
add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject
add rule ip kube-proxy cluster-ips-check ip daddr SERVICE_NET drop
add rule ip kube-proxy firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add rule ip kube-proxy nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
"#;

/// What nft calls a family.
const fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// What there is whatever the services are.
fn base(family: Family) -> String {
    let text = BASE.replace("SERVICE_NET", service_net(family));
    match family {
        Family::V4 => text,
        Family::V6 => text.replace(" ip ", " ip6 ").replace("ipv4_addr", "ipv6_addr"),
    }
}

/// All rules of a family for these services on a node with that address, in pieces that `nft` loads one after
/// the other: the time of one transaction grows with the square of its chains.
pub(super) fn rulesets(
    services: &[Service],
    family: Family,
    node: Pair,
    per_piece: usize,
) -> Vec<String> {
    let (mut base, ip, node) = (base(family), word(family), family.of(node));
    // Writing to a string does not fail.
    let _ = writeln!(base, "add element {ip} kube-proxy nodeport-ips {{ {node} }}");
    let pieces = services.chunks(per_piece.max(1)).map(|services| {
        let mut text = String::new();
        let _ = ports(services, family).try_for_each(|port| chains(&mut text, &port));
        let _ = ports(services, family).try_for_each(|port| elements(&mut text, &port));
        text
    });
    std::iter::once(base).chain(pieces).collect()
}

/// The name that chains of a port end with.
fn suffix(port: &ServicePort<'_>) -> String {
    let id = port.id(None);
    let Service { name, .. } = port.service;
    let protocol = port.protocol.lower();
    format!("{}-default/{name}/{protocol}/{protocol}", &id[..8])
}

/// The name of an endpoint's chain; nft takes no colons in it.
fn endpoint(port: &ServicePort<'_>, address: IpAddr) -> String {
    let (id, text) = (port.id(Some(address)), address.to_string().replace(':', "."));
    let Service { name, .. } = port.service;
    let protocol = port.protocol.lower();
    format!("endpoint-{}-default/{name}/{protocol}/{protocol}__{text}/{ENDPOINT_PORT}", &id[..8])
}

fn chains(text: &mut String, port: &ServicePort<'_>) -> Result {
    let (suffix, protocol, ip) = (suffix(port), port.protocol.lower(), word(port.family));
    let endpoints = port.endpoints();
    for address in endpoints {
        let (chain, target) = (endpoint(port, address), SocketAddr::new(address, ENDPOINT_PORT));
        write!(
            text,
            "add chain {ip} kube-proxy {chain}\n\
             add rule {ip} kube-proxy {chain} {ip} saddr {address} jump mark-for-masquerade\n\
             add rule {ip} kube-proxy {chain} meta l4proto {protocol} dnat to {target}\n"
        )?;
    }
    let choices: Vec<String> = (0..)
        .zip(endpoints)
        .map(|(index, address): (u32, _)| format!("{index} : goto {}", endpoint(port, address)))
        .collect();
    let (count, choices) = (choices.len(), choices.join(" , "));
    let (cluster_ip, pods) = (port.cluster_ip(), pod_net(port.family));
    write!(
        text,
        "add chain {ip} kube-proxy service-{suffix}\n\
         add rule {ip} kube-proxy service-{suffix} {ip} daddr {cluster_ip} {protocol} dport \
         {SERVICE_PORT} {ip} saddr != {pods} jump mark-for-masquerade\n\
         add rule {ip} kube-proxy service-{suffix} numgen random mod {count} vmap {{ {choices} }}\n\
         add chain {ip} kube-proxy external-{suffix}\n\
         add rule {ip} kube-proxy external-{suffix} jump mark-for-masquerade\n\
         add rule {ip} kube-proxy external-{suffix} goto service-{suffix}\n"
    )
}

fn elements(text: &mut String, port: &ServicePort<'_>) -> Result {
    let (suffix, protocol, ip) = (suffix(port), port.protocol.lower(), word(port.family));
    let (cluster_ip, Service { node_port, .. }) = (port.cluster_ip(), port.service);
    write!(
        text,
        "add element {ip} kube-proxy cluster-ips {{ {cluster_ip} }}\n\
         add element {ip} kube-proxy service-ips {{ {cluster_ip} . {protocol} . {SERVICE_PORT} : \
         goto service-{suffix} }}\n\
         add element {ip} kube-proxy service-nodeports {{ {protocol} . {node_port} : goto \
         external-{suffix} }}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::cluster::services;
    use super::super::cluster::tests::BACKEND;
    use super::*;

    fn of(count: u32, per_piece: usize) -> Vec<String> {
        rulesets(&services(count, BACKEND), Family::V4, BACKEND[0], per_piece)
    }

    #[test]
    fn each_port_has_its_chains_and_elements() {
        let text = of(1_000, 1_000).concat();
        let count = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
        assert_eq!(count("add chain ip kube-proxy endpoint-"), 2 * 1_001);
        assert_eq!(count("add chain ip kube-proxy service-") - 1, 1_001);
        assert_eq!(count("add chain ip kube-proxy external-"), 1_001);
        assert_eq!(count("add rule ip kube-proxy endpoint-"), 4 * 1_001);
        assert_eq!(count("add element ip kube-proxy service-nodeports"), 1_001);
        assert_eq!(count("add element ip kube-proxy service-ips"), 1_001);
    }

    #[test]
    fn every_piece_uses_only_chains_that_are_there() {
        let mut declared = HashSet::new();
        for piece in of(100, 10) {
            for line in piece.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                if words.starts_with(&["add", "chain"]) {
                    declared.insert(words[4].to_owned());
                }
                let targets = words.windows(2).filter(|pair| ["goto", "jump"].contains(&pair[0]));
                for target in targets {
                    assert!(declared.contains(target[1]), "{line}");
                }
            }
        }
    }

    #[test]
    fn pieces_hold_the_same_rules_as_the_whole() {
        assert_eq!(of(25, 10).len(), 4);
        let lines = |pieces: Vec<String>| {
            pieces.concat().lines().map(str::to_owned).collect::<HashSet<_>>()
        };
        assert_eq!(lines(of(25, 10)), lines(of(25, 25)));
    }

    #[test]
    fn ipv6_has_the_same_rules_with_its_own_addresses() {
        let of = |family| rulesets(&services(10, BACKEND), family, BACKEND[0], 10).concat();
        let (four, six) = (of(Family::V4), of(Family::V6));
        assert_eq!(six.lines().count(), four.lines().count());
        assert_eq!(six.matches("dnat to [fd00:244:2::1]:8080").count(), 2);
        for word in [" ip ", "ipv4", "10.244.", "10.96."] {
            assert!(four.contains(word) && !six.contains(word), "{word}");
        }
        assert!(!six.contains("SERVICE_NET") && !four.contains("SERVICE_NET"));
        let chains = six.lines().filter_map(|line| line.strip_prefix("add chain ip6 kube-proxy "));
        assert!(chains.into_iter().all(|name| name.contains('{') || !name.contains(':')));
    }
}
