//! The rules that kube-proxy's iptables mode makes, in the form that `iptables-restore` takes.

use std::fmt::{Result, Write as _};
use std::net::SocketAddr;

use super::cluster::{ENDPOINT_PORT, SERVICE_PORT, Service, ServicePort, pod_net, ports};
use super::measure::Family;

const FILTER: &str = "\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const NAT: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
";

const NAT_RULES: &str = "\
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
";

const LAST_OF_SERVICES: &str = "\
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
";

/// The program that loads the rules of a family.
pub(super) const fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    }
}

/// All rules of a family for these services.
pub(super) fn ruleset(services: &[Service], family: Family) -> String {
    // Only IPv4 has loopback addresses that others could send to.
    let has_rule = |line: &&str| family == Family::V4 || !line.contains("127.0.0.0/8");
    let mut text: String = FILTER.split_inclusive('\n').filter(has_rule).collect();
    text.push_str(NAT);
    let ports = || ports(services, family);
    // Writing to a string does not fail.
    let _ = ports().try_for_each(|port| chains(&mut text, &port));
    text.push_str(NAT_RULES);
    let _ = ports().try_for_each(|port| entries(&mut text, &port));
    let _ = ports().try_for_each(|port| balance(&mut text, &port));
    text.push_str(LAST_OF_SERVICES);
    text
}

/// How many bits the mask of a single address has.
const fn bits(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

fn chains(text: &mut String, port: &ServicePort<'_>) -> Result {
    let id = port.id(None);
    write!(text, ":KUBE-EXT-{id} - [0:0]\n:KUBE-SVC-{id} - [0:0]\n")?;
    let mut endpoints = port.endpoints().into_iter();
    endpoints.try_for_each(|address| writeln!(text, ":KUBE-SEP-{} - [0:0]", port.id(Some(address))))
}

/// Where packets come in: at the cluster address and at the nodePort.
fn entries(text: &mut String, port: &ServicePort<'_>) -> Result {
    let (id, name, protocol) = (port.id(None), port.name(), port.protocol.lower());
    let (cluster_ip, bits) = (port.cluster_ip(), bits(port.family));
    let Service { node_port, .. } = port.service;
    writeln!(
        text,
        "-A KUBE-SERVICES -d {cluster_ip}/{bits} -p {protocol} -m comment --comment \"{name} cluster IP\" \
         -m {protocol} --dport {SERVICE_PORT} -j KUBE-SVC-{id}"
    )?;
    writeln!(
        text,
        "-A KUBE-NODEPORTS -p {protocol} -m comment --comment \"{name}\" -m {protocol} \
         --dport {node_port} -j KUBE-EXT-{id}"
    )?;
    writeln!(
        text,
        "-A KUBE-EXT-{id} -m comment --comment \"masquerade traffic for {name} external destinations\" \
         -j KUBE-MARK-MASQ"
    )?;
    writeln!(text, "-A KUBE-EXT-{id} -j KUBE-SVC-{id}")
}

/// Where they go: each endpoint with the same share.
fn balance(text: &mut String, port: &ServicePort<'_>) -> Result {
    let (id, name, protocol) = (port.id(None), port.name(), port.protocol.lower());
    let (cluster_ip, endpoints) = (port.cluster_ip(), port.endpoints());
    let (bits, pods) = (bits(port.family), pod_net(port.family));
    writeln!(
        text,
        "-A KUBE-SVC-{id} ! -s {pods} -d {cluster_ip}/{bits} -p {protocol} -m comment \
         --comment \"{name} cluster IP\" -m {protocol} --dport {SERVICE_PORT} -j KUBE-MARK-MASQ"
    )?;
    for (left, address) in (1..=endpoints.len()).rev().zip(endpoints) {
        let target = SocketAddr::new(address, ENDPOINT_PORT);
        let chance = match left {
            1 => String::new(),
            left => format!("-m statistic --mode random --probability {:.11} ", 1.0 / left as f64),
        };
        let endpoint = port.id(Some(address));
        writeln!(
            text,
            "-A KUBE-SVC-{id} -m comment --comment \"{name} -> {target}\" \
             {chance}-j KUBE-SEP-{endpoint}"
        )?;
        writeln!(
            text,
            "-A KUBE-SEP-{endpoint} -s {address}/{bits} -m comment --comment \"{name}\" -j KUBE-MARK-MASQ"
        )?;
        writeln!(
            text,
            "-A KUBE-SEP-{endpoint} -p {protocol} -m comment --comment \"{name}\" -m {protocol} \
             -j DNAT --to-destination {target}"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::cluster::services;
    use super::super::cluster::tests::BACKEND;
    use super::*;

    fn of(count: u32) -> String {
        ruleset(&services(count, BACKEND), Family::V4)
    }

    fn count(text: &str, beginning: &str) -> usize {
        text.lines().filter(|line| line.starts_with(beginning)).count()
    }

    #[test]
    fn each_port_has_its_rules_and_chains() {
        // 999 services of TCP alone and one of TCP and UDP.
        let text = of(1_000);
        assert_eq!(count(&text, "-A KUBE-NODEPORTS "), 1_001);
        assert_eq!(count(&text, "-A KUBE-SERVICES -d"), 1_001);
        assert_eq!(count(&text, "-A KUBE-EXT-"), 2 * 1_001);
        assert_eq!(count(&text, "-A KUBE-SVC-"), 3 * 1_001);
        assert_eq!(count(&text, "-A KUBE-SEP-"), 4 * 1_001);
        assert_eq!(count(&text, ":KUBE-SEP-"), 2 * 1_001);
    }

    #[test]
    fn every_target_is_a_chain_of_the_same_table() {
        let text = of(10);
        for table in text.split("COMMIT\n") {
            let declared: HashSet<&str> = table
                .lines()
                .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
                .collect();
            let targets = table.lines().filter_map(|line| line.rsplit_once("-j KUBE-"));
            for (_, target) in targets {
                assert!(declared.contains(format!("KUBE-{target}").as_str()), "KUBE-{target}");
            }
        }
    }

    #[test]
    fn nodeports_come_after_all_cluster_addresses() {
        let text = of(3);
        let last = text.lines().rev().nth(1).unwrap();
        assert!(last.starts_with("-A KUBE-SERVICES") && last.ends_with("-j KUBE-NODEPORTS"));
    }

    #[test]
    fn of_two_endpoints_the_first_takes_half() {
        let text = of(1);
        assert_eq!(text.matches("--probability 0.50000000000").count(), 2);
        assert_eq!(text.matches("--to-destination 10.244.2.1:8080").count(), 2);
        assert_eq!(text.matches("--to-destination 10.244.2.2:8080").count(), 2);
    }

    #[test]
    fn ipv6_has_the_same_rules_with_its_own_addresses() {
        let of = |family| ruleset(&services(10, BACKEND), family);
        let (four, six) = (of(Family::V4), of(Family::V6));
        assert_eq!(six.lines().count() + 1, four.lines().count());
        assert_eq!(six.matches("--to-destination [fd00:244:2::1]:8080").count(), 2);
        for address in ["10.244.", "10.96.", "127.0."] {
            assert!(four.contains(address) && !six.contains(address), "{address}");
        }
    }
}
