//! Pods: links, routes, and the server inside.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};

use super::address::{self, Pair};
use super::fabric::{GATEWAY6, NIC, guest_end, host_end, link, on_link};
use super::member::{Node, Pod};
use super::namespace::Namespace;
use super::{Lab, PodLink, ip, server};

/// The bridge of a node's pods.
const BRIDGE: &str = "pods";

impl Lab {
    /// Adds a pod with a server in it that answers with the pod's name; waits until it does.
    ///
    /// # Errors
    /// If there is such a pod already, or the kernel refuses a part of it.
    pub fn add_pod(&mut self, node: &str, name: &str) -> Result<&Pod> {
        let taken = self.pods.iter().any(|pod| pod.name() == name);
        ensure!(!taken, "the lab has a pod {name} already: take another name");
        let index = self.nodes.iter().position(|candidate| candidate.name() == node);
        let index = index.with_context(|| format!("the lab has no node {node}"))?;
        self.nodes[index].pods += 1;
        let pod = self.build_pod(&self.nodes[index], name)?;
        self.pods.push(pod);
        self.pods.last().context("the pod just added")
    }

    /// Takes a pod away at once, as if its node had killed it.
    ///
    /// # Errors
    /// If there is no such pod, or its link cannot be removed.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let index = self.pods.iter().position(|pod| pod.name() == name);
        let pod = self.pods.remove(index.with_context(|| format!("the lab has no pod {name}"))?);
        let Pod { node, device, namespace, address: _, server } = pod;
        drop(server);
        self.node(&node).namespace.ip(&[format!("link del {device}")])?;
        umount2(namespace.path(), MntFlags::MNT_DETACH)
            .with_context(|| format!("unmount {}", namespace.path().display()))?;
        fs::remove_file(namespace.path())
            .with_context(|| format!("remove {}", namespace.path().display()))
    }

    fn build_pod(&self, node: &Node, name: &str) -> Result<Pod> {
        let address = address::pod(node.number, node.pods);
        let device = format!("pod{}", node.pods);
        let namespace = self.namespace(name)?;
        link(&node.namespace, &device, &namespace, NIC, self.topology.pod_mtu())?;
        match self.topology.pod_link {
            PodLink::Veth => route_to_pod(node, &device, &namespace, address)?,
            PodLink::Bridge => bridge_to_pod(node, &device, &namespace, address)?,
        }
        let server = server::start(&namespace, &self.folder.member(name)?)?;
        Ok(Pod { node: node.name().to_owned(), device, namespace, address, server })
    }
}

fn route_to_pod(node: &Node, device: &str, pod: &Namespace, address: Pair) -> Result<()> {
    let gateway = address::pod_gateway(node.number).v4;
    let mut lines = host_end(gateway, device);
    lines.push(format!("route add {}/32 dev {device}", address.v4));
    lines.push(format!("route add {}/128 dev {device}", address.v6));
    node.namespace.ip(&lines)?;
    pod.ip(&guest_end(&[address], gateway))
}

fn bridge_to_pod(node: &Node, device: &str, pod: &Namespace, address: Pair) -> Result<()> {
    let gateway = address::pod_gateway(node.number);
    if node.pods == 1 {
        build_bridge(node, gateway)?;
    }
    node.namespace.ip(&[format!("link set {device} master {BRIDGE}")])?;
    let mut lines = on_link(address, 24, 64, NIC);
    lines.push(format!("route add default via {} dev {NIC}", gateway.v4));
    lines.push(format!("route add default via {} dev {NIC}", gateway.v6));
    pod.ip(&lines)
}

fn build_bridge(node: &Node, gateway: Pair) -> Result<()> {
    let mut lines = vec![format!("link add {BRIDGE} type bridge mcast_snooping 0")];
    lines.extend(on_link(gateway, 24, 64, BRIDGE));
    lines.push(format!("addr add {GATEWAY6}/64 dev {BRIDGE} nodad"));
    lines.push(format!("link set {BRIDGE} up"));
    node.namespace.ip(&lines)?;
    node.namespace.run(|| ip::like_a_wire(BRIDGE))?
}
