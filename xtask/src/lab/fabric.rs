//! Everything but the pods: switch, router, nodes, clients, and the routes between them.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use super::address::{self, Net, Pair};
use super::member::{Client, Node};
use super::namespace::Namespace;
use super::{Fabric, Lab, ip};

/// The name of the NIC of nodes, clients and pods.
pub(super) const NIC: &str = "eth0";
/// The tunnel between nodes.
const TUNNEL: &str = "vxlan0";
/// Every link's first hop in IPv6, where the other end has no address of a subnet.
pub(super) const GATEWAY6: &str = "fe80::1";

impl Lab {
    pub(super) fn build_network(&mut self) -> Result<()> {
        if self.topology.has_switch() {
            self.build_switch()?;
        }
        if self.topology.has_router() {
            self.build_router()?;
        }
        for number in 1..=u8::try_from(self.topology.nodes.len()).context("too many nodes")? {
            self.build_node(number)?;
        }
        for number in 1..=self.topology.clients {
            self.build_client(number)?;
        }
        self.build_node_routes()
    }

    pub(super) fn namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::create(name, self.folder.namespace(name))
    }

    fn build_switch(&mut self) -> Result<()> {
        let switch = self.namespace("switch")?;
        // A switch has no addresses and takes no part in IPv6.
        switch.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
        switch.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        switch.ip(&[format!(
            "link add br0 mtu {} type bridge mcast_snooping 0",
            self.topology.mtu
        )])?;
        switch.ip(&["link set br0 up".to_owned()])?;
        self.fabric.push(switch);
        Ok(())
    }

    fn build_router(&mut self) -> Result<()> {
        let router = self.namespace("router")?;
        router.forward()?;
        if self.topology.has_switch() {
            self.plug(&router, "nodes", "router")?;
            let at_nodes = address::ROUTER_AT_NODES;
            let limit = self.narrow_limit();
            let [net4, net6] = address::NODES.both();
            let mut lines = on_link(at_nodes, 32, 128, "nodes");
            lines.push(format!("route add {net4} dev nodes {limit}"));
            lines.push(format!("route add {net6} dev nodes {limit}"));
            router.ip(&lines)?;
        }
        self.fabric.push(router);
        Ok(())
    }

    fn build_node(&mut self, number: u8) -> Result<()> {
        let name = self.topology.nodes[usize::from(number) - 1].name.clone();
        let namespace = self.namespace(&name)?;
        namespace.forward()?;
        let address = address::node(number);
        if self.topology.has_switch() {
            self.plug(&namespace, NIC, &name)?;
            let Net { bits4, bits6, .. } = address::NODES;
            namespace.ip(&on_link(address, bits4, bits6, NIC))?;
        } else {
            self.wire_to_router(&namespace, &name, &[address], address::ROUTER_AT_NODES)?;
        }
        let folder = self.folder.member(&name)?;
        let bpffs = self.folder.bpffs(&name)?;
        let cgroup = self.folder.cgroup(&name)?;
        self.nodes.push(Node { number, namespace, address, folder, bpffs, cgroup, pods: 0 });
        Ok(())
    }

    fn build_client(&mut self, number: u8) -> Result<()> {
        let name = format!("client{number}");
        let namespace = self.namespace(&name)?;
        let addresses: Vec<Pair> = (1..=self.topology.addresses_per_client)
            .map(|index| address::client(number, index))
            .collect();
        if self.topology.has_router() {
            self.wire_to_router(&namespace, &name, &addresses, address::ROUTER_AT_CLIENTS)?;
        } else {
            self.plug(&namespace, NIC, &name)?;
            namespace.ip(&self.neighbours_of_client(&addresses))?;
        }
        self.clients.push(Client { namespace, addresses });
        Ok(())
    }

    /// A client on the nodes' segment has its own subnet there, as behind a flat data centre
    /// network, and knows the nodes as routers to their pods.
    fn neighbours_of_client(&self, addresses: &[Pair]) -> Vec<String> {
        let Net { bits4, bits6, .. } = address::CLIENTS;
        let mut lines = Vec::new();
        for address in addresses {
            lines.extend(on_link(*address, bits4, bits6, NIC));
        }
        for net in address::NODES.both() {
            lines.push(format!("route add {net} dev {NIC}"));
        }
        for node in &self.nodes {
            lines.extend(via(address::pod_net(node.number), node.address, NIC, ""));
        }
        lines
    }

    fn build_node_routes(&self) -> Result<()> {
        for node in &self.nodes {
            node.namespace.ip(&self.routes_of(node))?;
            if self.topology.fabric == Fabric::Vxlan {
                self.build_tunnel(node)?;
            }
        }
        if self.topology.has_router() && self.topology.has_switch() {
            let router = self.router()?;
            for node in &self.nodes {
                let limit = self.narrow_limit();
                let pods = address::pod_net(node.number);
                router.ip(&via(pods, node.address, "nodes", &limit))?;
            }
        }
        Ok(())
    }

    fn routes_of(&self, node: &Node) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.topology.has_switch() {
            return lines;
        }
        if self.topology.has_router() {
            let Pair { v4, v6 } = address::ROUTER_AT_NODES;
            lines.push(format!("route add default via {v4} dev {NIC}"));
            lines.push(format!("route add default via {v6} dev {NIC}"));
        } else {
            lines.extend(address::CLIENTS.both().map(|net| format!("route add {net} dev {NIC}")));
        }
        if self.topology.fabric == Fabric::Segment {
            for other in self.others(node) {
                lines.extend(via(address::pod_net(other.number), other.address, NIC, ""));
            }
        }
        lines
    }

    /// A tunnel whose peers are all known, as network plugins set it up: no flooding, no learning.
    fn build_tunnel(&self, node: &Node) -> Result<()> {
        let own = address::tunnel(node.number);
        let mut lines = vec![
            format!(
                "link add {TUNNEL} mtu {} address {} type vxlan id 1 dstport 4789 local {} nolearning",
                self.topology.pod_mtu(),
                mac(own.v4),
                node.address.v4
            ),
            format!("addr add {}/32 dev {TUNNEL}", own.v4),
            format!("addr add {}/128 dev {TUNNEL} nodad", own.v6),
            format!("link set {TUNNEL} up"),
        ];
        for other in self.others(node) {
            let Pair { v4, v6 } = address::tunnel(other.number);
            let [pods4, pods6] = address::pod_net(other.number).both();
            lines.push(format!("route add {pods4} via {v4} dev {TUNNEL} onlink"));
            lines.push(format!("route add {v6}/128 dev {TUNNEL}"));
            lines.push(format!("route add {pods6} via {v6} dev {TUNNEL}"));
            for next_hop in [v4.to_string(), v6.to_string()] {
                let lladdr = mac(v4);
                lines.push(format!(
                    "neigh add {next_hop} lladdr {lladdr} dev {TUNNEL} nud permanent"
                ));
            }
        }
        node.namespace.ip(&lines)?;
        for other in self.others(node) {
            let peer = mac(address::tunnel(other.number).v4);
            let outer = other.address.v4.to_string();
            let call = ["fdb", "append", &peer, "dev", TUNNEL, "dst", &outer];
            node.namespace.capture("bridge", &call)?;
        }
        Ok(())
    }

    fn others<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |other| other.number != node.number)
    }

    fn router(&self) -> Result<&Namespace> {
        let router = self.fabric.iter().find(|namespace| namespace.name() == "router");
        router.context("the lab has no router")
    }

    /// Addition to a router's routes, such that it sends packet-too-big where the links would
    /// carry the packet.
    fn narrow_limit(&self) -> String {
        self.topology.narrow.map(|mtu| format!("mtu lock {mtu}")).unwrap_or_default()
    }

    /// A link from a port of the switch to `device` of a member.
    fn plug(&self, member: &Namespace, device: &str, port: &str) -> Result<()> {
        let switch = self.fabric.iter().find(|namespace| namespace.name() == "switch");
        let switch = switch.context("the lab has no switch")?;
        link(switch, port, member, device, self.topology.mtu)?;
        switch.ip(&[format!("link set {port} master br0")])
    }

    /// A link of its own to the router, with host routes at both ends.
    fn wire_to_router(
        &self,
        member: &Namespace,
        port: &str,
        addresses: &[Pair],
        router_address: Pair,
    ) -> Result<()> {
        let router = self.router()?;
        link(router, port, member, NIC, self.topology.mtu)?;
        let mut lines = host_end(router_address.v4, port);
        // Its errors need a source that is passed on, which a link-local one is not.
        lines.push(format!("addr add {}/128 dev {port} nodad", router_address.v6));
        let limit = self.narrow_limit();
        for Pair { v4, v6 } in addresses {
            lines.push(format!("route add {v4}/32 dev {port} {limit}"));
            lines.push(format!("route add {v6}/128 dev {port} {limit}"));
        }
        if let Some(node) = self.topology.nodes.iter().position(|node| node.name == port) {
            let number = u8::try_from(node + 1).context("too many nodes")?;
            lines.extend(via(address::pod_net(number), addresses[0], port, &limit));
        }
        router.ip(&lines)?;
        member.ip(&guest_end(addresses, router_address.v4))
    }
}

/// A veth pair: `near_device` in `near`, `far_device` in `far`, both like a wire, both up; the far
/// end can be sent to by XDP.
pub(super) fn link(
    near: &Namespace,
    near_device: &str,
    far: &Namespace,
    far_device: &str,
    mtu: u32,
) -> Result<()> {
    wire(near, near_device, far, far_device, mtu)?;
    near.run(|| ip::takes_xdp_frames(near_device))?
}

/// The same without a program at either end: a native XDP program on a veth has each packet that a
/// socket sends copied to a new page.
pub(super) fn wire(
    near: &Namespace,
    near_device: &str,
    far: &Namespace,
    far_device: &str,
    mtu: u32,
) -> Result<()> {
    let far_path = far.path().display();
    near.ip(&[format!(
        "link add {near_device} mtu {mtu} type veth \
             peer name {far_device} mtu {mtu} netns {far_path}"
    )])?;
    near.run(|| ip::like_a_wire(near_device))??;
    far.run(|| ip::like_a_wire(far_device))??;
    near.ip(&[format!("link set {near_device} up")])?;
    far.ip(&[format!("link set {far_device} up")])
}

/// Addresses at the end of a link that serves single hosts.
pub(super) fn host_end(v4: Ipv4Addr, device: &str) -> Vec<String> {
    vec![
        format!("addr add {v4}/32 dev {device}"),
        format!("addr add {GATEWAY6}/64 dev {device} nodad"),
    ]
}

/// Addresses and routes of a host behind such an end.
pub(super) fn guest_end(addresses: &[Pair], gateway: Ipv4Addr) -> Vec<String> {
    let mut lines: Vec<String> =
        addresses.iter().flat_map(|address| on_link(*address, 32, 128, NIC)).collect();
    lines.push(format!("route add {gateway}/32 dev {NIC}"));
    lines.push(format!("route add default via {gateway} dev {NIC} src {}", addresses[0].v4));
    let source = addresses[0].v6;
    lines.push(format!("route add default via {GATEWAY6} dev {NIC} src {source}"));
    lines
}

pub(super) fn on_link(address: Pair, bits4: u8, bits6: u8, device: &str) -> Vec<String> {
    vec![
        format!("addr add {}/{bits4} dev {device}", address.v4),
        format!("addr add {}/{bits6} dev {device} nodad", address.v6),
    ]
}

/// Routes to a subnet by a next hop.
pub(super) fn via(net: Net, next_hop: Pair, device: &str, limit: &str) -> [String; 2] {
    let [net4, net6] = net.both();
    [
        format!("route add {net4} via {} dev {device} {limit}", next_hop.v4),
        format!("route add {net6} via {} dev {device} {limit}", next_hop.v6),
    ]
}

/// A locally administered MAC that shows the address.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:01:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
