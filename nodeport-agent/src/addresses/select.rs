//! On which addresses nodePorts are served, and why.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Own;
use crate::config::{Networks, NodePortAddresses};
use crate::model::{Family, Finding, Kind, Name, Node, Origin, Severity};

/// The option that says so.
const OPTION: &str = "--nodeport-addresses";
/// Own addresses that a finding names.
const NAMED: usize = 8;

/// An address on which nodePorts are served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Served {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub why: String,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.why)
    }
}

/// The node with the addresses on which it serves nodePorts, and why these. `node` is as its object
/// describes it, if there is one; `own` are the addresses of its interfaces, if they are known.
#[must_use]
pub fn select(
    rule: &NodePortAddresses,
    name: &str,
    node: Option<&Node>,
    own: Option<&[Own]>,
) -> (Option<Node>, Vec<Served>) {
    let networks = match rule {
        NodePortAddresses::Primary => {
            return (node.cloned(), node.map(primary).unwrap_or_default());
        }
        NodePortAddresses::All => None,
        NodePortAddresses::In(networks) => Some(networks),
    };
    let served: Vec<_> =
        own.iter().copied().flatten().filter_map(|own| serve(own, networks)).collect();
    let mut selected = node.cloned().unwrap_or_else(|| Node::unknown(name));
    // What its object says of them does not matter.
    selected.findings.retain(|finding| !finding.field.starts_with("status.addresses"));
    selected.addresses = served.iter().map(|served| served.address).collect();
    selected.is_selected = own.is_some();
    if let Some(own) = own {
        let problems = missing(networks, &served, own);
        selected.findings.extend(problems.into_iter().map(|problem| finding(name, problem)));
    }
    (Some(selected), served)
}

fn primary(node: &Node) -> Vec<Served> {
    let why = "primary".to_owned();
    node.addresses.iter().map(|address| Served { address: *address, why: why.clone() }).collect()
}

/// Whether nodePorts are served there; everywhere without `networks`.
fn serve(own: &Own, networks: Option<&Networks>) -> Option<Served> {
    let Own { address, interface } = own;
    let why = match networks {
        None => format!("on {interface}"),
        Some(networks) => format!("on {interface}, in {}", networks.find(*address)?),
    };
    Some(Served { address: *address, why })
}

/// What the user asked for in vain.
fn missing(networks: Option<&Networks>, served: &[Served], own: &[Own]) -> Vec<String> {
    let Some(networks) = networks else {
        let none = "no interface of this node has an address: no nodePort is served until one has";
        return served.is_empty().then(|| none.to_owned()).into_iter().collect();
    };
    let is_served = |family| served.iter().any(|served| Family::of(served.address) == family);
    let asked = Family::ALL.into_iter().filter_map(|family| {
        let of_family = networks.iter().filter(|network| Family::of(network.network()) == family);
        let list: Vec<_> = of_family.map(ToString::to_string).collect();
        (!list.is_empty() && !is_served(family)).then(|| in_vain(family, &list, own))
    });
    asked.collect()
}

fn in_vain(family: Family, networks: &[String], own: &[Own]) -> String {
    let of_family = own.iter().filter(|own| Family::of(own.address) == family);
    let all: Vec<_> = of_family.map(|own| format!("{} ({})", own.address, own.interface)).collect();
    let has = match all.len() {
        0 => "it has none".to_owned(),
        count if count > NAMED => format!("it has {} and more", all[..NAMED].join(", ")),
        _ => format!("it has {}", all.join(", ")),
    };
    format!(
        "no {family} address of this node is in {}, so no nodePort is served over {family} until one \
         is; {has}",
        networks.join(",")
    )
}

fn finding(name: &str, problem: String) -> Finding {
    Finding {
        severity: Severity::Error,
        origin: Origin::Api,
        kind: Kind::Node,
        object: Name::new("", name),
        field: OPTION.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::node;

    fn own(list: &[&str]) -> Vec<Own> {
        let read = |text: &&str| {
            let (address, interface) = text.split_once(' ').unwrap();
            Own { address: address.parse().unwrap(), interface: interface.to_owned() }
        };
        list.iter().map(read).collect()
    }

    fn networks(list: &[&str]) -> NodePortAddresses {
        NodePortAddresses::In(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    const OWN: [&str; 4] =
        ["192.0.2.1 eth0", "198.51.100.9 lo", "2001:db8::1 eth0", "2001:db8:1::9 lo"];

    /// What is served and why, and what is wrong.
    fn selected(rule: &NodePortAddresses, list: &[&str]) -> (Vec<String>, Vec<String>) {
        let object = node("n1", &["192.0.2.1", "2001:db8::1"]);
        let (node, served) = select(rule, "n1", Some(&*object), Some(&own(list)));
        let node = node.unwrap();
        assert!(node.addresses.iter().eq(served.iter().map(|served| &served.address)));
        assert!(node.knows_addresses());
        let findings = node.findings.iter().map(ToString::to_string);
        (served.iter().map(ToString::to_string).collect(), findings.collect())
    }

    #[test]
    fn the_option_selects_from_the_nodes_own_addresses() {
        use NodePortAddresses::{All, Primary};
        for (rule, expected) in [
            (Primary, &["192.0.2.1 (primary)", "2001:db8::1 (primary)"][..]),
            (
                All,
                &[
                    "192.0.2.1 (on eth0)",
                    "198.51.100.9 (on lo)",
                    "2001:db8::1 (on eth0)",
                    "2001:db8:1::9 (on lo)",
                ],
            ),
            (networks(&["198.51.100.0/24"]), &["198.51.100.9 (on lo, in 198.51.100.0/24)"]),
            (
                networks(&["192.0.2.1/32", "10.0.0.0/8", "2001:db8:1::/64"]),
                &[
                    "192.0.2.1 (on eth0, in 192.0.2.1/32)",
                    "2001:db8:1::9 (on lo, in 2001:db8:1::/64)",
                ],
            ),
        ] {
            let (served, findings) = selected(&rule, &OWN);
            assert_eq!(
                (served, findings),
                (expected.iter().map(ToString::to_string).collect(), vec![])
            );
        }
    }

    #[test]
    fn networks_that_match_nothing_are_told_of() {
        let (served, findings) = selected(&networks(&["10.0.0.0/8", "2001:db8::/64"]), &OWN);
        assert_eq!(served.len(), 1);
        let expected = "Node n1: --nodeport-addresses: no IPv4 address of this node is in 10.0.0.0/8, \
                        so no nodePort is served over IPv4 until one is; it has 192.0.2.1 (eth0), \
                        198.51.100.9 (lo)";
        assert_eq!(findings, [expected]);
        let (served, findings) = selected(&networks(&["10.0.0.0/8"]), &OWN[2..]);
        assert!(served.is_empty() && findings[0].ends_with("it has none"), "{findings:?}");
        let (served, findings) = selected(&NodePortAddresses::All, &[]);
        assert!(served.is_empty() && findings.len() == 1, "{findings:?}");
    }

    #[test]
    fn the_object_is_needed_for_primary_addresses_alone() {
        let own = own(&OWN);
        assert_eq!(select(&NodePortAddresses::Primary, "n1", None, Some(&own)), (None, vec![]));
        let (selected, served) = select(&NodePortAddresses::All, "n1", None, Some(&own));
        assert_eq!((&*selected.unwrap().name, served.len()), ("n1", 4));
        // As long as it is not known which there are, what is served stays.
        let object = node("n1", &["192.0.2.1"]);
        let (selected, _) = select(&NodePortAddresses::All, "n1", Some(&*object), None);
        assert!(!selected.unwrap().knows_addresses());
        // An object without addresses is no problem then.
        let bare = Node { addresses: vec![], ..Node::unknown("n1") };
        let bare = Node {
            findings: vec![Finding {
                field: "status.addresses".into(),
                ..finding("n1", "none".into())
            }],
            ..bare
        };
        let (selected, _) = select(&NodePortAddresses::All, "n1", Some(&bare), Some(&own));
        assert_eq!(selected.unwrap().findings, []);
    }
}
