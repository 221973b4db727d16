//! The description of a lab.

use std::collections::HashSet;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// How nodes reach each other and the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Fabric {
    /// All on one layer 2 segment; nodes route pod addresses to each other directly.
    #[default]
    Segment,
    /// Every node on a link of its own to a router that knows where all pods are.
    Routed,
    /// One segment, but between nodes pod packets travel inside VXLAN.
    Vxlan,
}

/// How pods hang on their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PodLink {
    /// A veth of its own, with a host route.
    #[default]
    Veth,
    /// A veth into a bridge that has the pods' subnet.
    Bridge,
}

/// A node and the pods that it starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name of the node.
    pub name: String,
    /// Names of its pods.
    pub pods: Vec<String>,
}

/// What a lab consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Number of clients.
    pub clients: u8,
    /// Addresses that each client has in each family.
    pub addresses_per_client: u8,
    /// The nodes, in order: the first is number 1.
    pub nodes: Vec<NodeSpec>,
    /// How nodes are connected.
    pub fabric: Fabric,
    /// How pods are connected.
    pub pod_link: PodLink,
    /// Put a router between clients and nodes that passes packets of at most this size, while
    /// the links on both sides take [`Topology::mtu`].
    pub narrow: Option<u32>,
    /// Packet size of all links.
    pub mtu: u32,
}

/// IPv6 does not work on links with less.
const SMALLEST_MTU: u32 = 1280;

impl Topology {
    /// One client with 8 addresses and `nodes` nodes without pods, on one segment.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let node = |number| NodeSpec { name: format!("node{number}"), pods: Vec::new() };
        Self {
            clients: 1,
            addresses_per_client: 8,
            nodes: (1..=nodes).map(node).collect(),
            fabric: Fabric::default(),
            pod_link: PodLink::default(),
            narrow: None,
            mtu: 1500,
        }
    }

    /// Adds pods to a node.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn pods(mut self, node: &str, pods: &[&str]) -> Self {
        let spec = self.nodes.iter_mut().find(|spec| spec.name == node);
        let spec = spec.unwrap_or_else(|| panic!("the topology has no node {node}"));
        spec.pods.extend(pods.iter().map(|pod| (*pod).to_owned()));
        self
    }

    /// Connects nodes in that way.
    #[must_use]
    pub fn fabric(self, fabric: Fabric) -> Self {
        Self { fabric, ..self }
    }

    /// Connects pods in that way.
    #[must_use]
    pub fn pod_link(self, pod_link: PodLink) -> Self {
        Self { pod_link, ..self }
    }

    /// Puts a narrow router between clients and nodes.
    #[must_use]
    pub fn narrow(self, mtu: u32) -> Self {
        Self { narrow: Some(mtu), ..self }
    }

    /// Whether clients reach nodes through a router.
    #[must_use]
    pub fn has_router(&self) -> bool {
        self.fabric == Fabric::Routed || self.narrow.is_some()
    }

    /// Whether nodes share a segment.
    #[must_use]
    pub fn has_switch(&self) -> bool {
        self.fabric != Fabric::Routed
    }

    /// Packet size that pods use.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        // Outer IPv4 and UDP header, VXLAN header, inner Ethernet header.
        const VXLAN: u32 = 20 + 8 + 8 + 14;
        if self.fabric == Fabric::Vxlan { self.mtu - VXLAN } else { self.mtu }
    }

    /// # Errors
    /// If it cannot be built as it is written.
    pub(super) fn check(&self) -> Result<()> {
        let mut names = HashSet::new();
        let pods = self.nodes.iter().flat_map(|node| node.pods.iter());
        for name in self.nodes.iter().map(|node| &node.name).chain(pods) {
            if !names.insert(name) {
                bail!("the topology has two members with the name {name}: rename one");
            }
        }
        if let Some(narrow) = self.narrow.filter(|narrow| *narrow < SMALLEST_MTU) {
            bail!("IPv6 needs links of {SMALLEST_MTU} bytes, the narrow router has {narrow}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_must_differ() {
        let twice = Topology::new(2).pods("node1", &["web"]).pods("node2", &["web"]);
        assert!(twice.check().unwrap_err().to_string().contains("web"));
        assert!(Topology::new(2).pods("node1", &["web-1", "web-2"]).check().is_ok());
    }

    #[test]
    fn a_link_too_narrow_for_ipv6_is_refused() {
        assert!(Topology::new(1).narrow(1279).check().is_err());
        assert!(Topology::new(1).narrow(1280).check().is_ok());
    }
}
