//! The shortest network in which a node stands between a client and a backend, for measurements:
//!
//! ```text
//!  client1 eth0 ─── eth0 node1 eth1 ─── eth0 backend     (on another node)
//!  client1 eth0 ─── eth0 node1 pod1 ─── eth0 backend     (a pod of the node, by a veth of its own)
//! ```
//!
//! No switch, no second node's stack, no server but the measurement's own: what is not under test
//! costs as little as it can.

use anyhow::Result;

use super::address::{self, Pair};
use super::fabric::{NIC, guest_end, host_end, on_link, via, wire};
use super::folder::Folder;
use super::member::{Client, Node};
use super::namespace::Namespace;
use super::{Lab, Topology};

/// Where the backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Behind another NIC of the node, as pods of other nodes are.
    Remote,
    /// On the node, behind a veth of its own.
    Local,
}

/// The number of addresses that the backend answers at.
pub const BACKENDS: u8 = 2;
/// The node's NIC towards remote backends.
const UPLINK: &str = "eth1";
/// The node's end of a local backend's link.
const POD: &str = "pod1";

/// A lab of that shape: one client, one node, one backend.
pub struct Line {
    lab: Lab,
    backend: Namespace,
    place: Place,
}

impl Line {
    /// Builds it.
    ///
    /// # Errors
    /// As [`Lab::build`].
    pub fn build(place: Place) -> Result<Self> {
        let folder = Folder::create()?;
        let mut lab = Lab {
            topology: Topology::new(1),
            clients: Vec::new(),
            nodes: Vec::new(),
            pods: Vec::new(),
            fabric: Vec::new(),
            folder,
        };
        let node = lab.namespace("node1")?;
        node.forward()?;
        let backend = lab.namespace("backend")?;
        without_source_check(&node)?;
        without_source_check(&backend)?;
        let client = connect_client(&lab, &node)?;
        match place {
            Place::Remote => connect_remote(&node, &backend)?,
            Place::Local => connect_local(&node, &backend)?,
        }
        lab.clients.push(client);
        let (folder, bpffs, cgroup) =
            (lab.folder.member("node1")?, lab.folder.bpffs("node1")?, lab.folder.cgroup("node1")?);
        let address = address::node(1);
        lab.nodes.push(Node {
            number: 1,
            namespace: node,
            address,
            folder,
            bpffs,
            cgroup,
            pods: 0,
        });
        Ok(Self { lab, backend, place })
    }

    /// The lab around it.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The node in the middle.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.lab.node("node1")
    }

    /// Where the backend's sockets are.
    #[must_use]
    pub fn backend(&self) -> &Namespace {
        &self.backend
    }

    /// The node's name as the cluster gives it for the backend.
    #[must_use]
    pub fn backend_node(&self) -> &'static str {
        match self.place {
            Place::Remote => "node2",
            Place::Local => "node1",
        }
    }

    /// The addresses that the backend answers at.
    #[must_use]
    pub fn backend_addresses(&self) -> Vec<Pair> {
        backends(self.place)
    }

    /// The addresses of the client.
    #[must_use]
    pub fn client_addresses(&self) -> &[Pair] {
        self.lab.client().addresses()
    }

    /// The interfaces by which the node reaches others, as the agent's `--devices` takes them.
    #[must_use]
    pub fn devices(&self) -> String {
        match self.place {
            Place::Remote => format!("{NIC},{UPLINK}"),
            Place::Local => NIC.to_owned(),
        }
    }
}

fn backends(place: Place) -> Vec<Pair> {
    let node = match place {
        Place::Remote => 2,
        Place::Local => 1,
    };
    (1..=BACKENDS).map(|index| address::pod(node, index)).collect()
}

/// Routing is compared with others at its cheapest: no look-up of where a source would be.
fn without_source_check(namespace: &Namespace) -> Result<()> {
    ["all", "default"]
        .iter()
        .try_for_each(|scope| namespace.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0"))
}

/// The client knows the node as the router to all pods.
fn connect_client(lab: &Lab, node: &Namespace) -> Result<Client> {
    let client = lab.namespace("client1")?;
    wire(node, NIC, &client, NIC, lab.topology.mtu)?;
    let addresses: Vec<Pair> =
        (1..=lab.topology.addresses_per_client).map(|index| address::client(1, index)).collect();
    let here = address::node(1);
    let [clients4, clients6] = address::CLIENTS.both();
    let mut lines = on_link(here, 24, 64, NIC);
    lines.push(format!("route add {clients4} dev {NIC}"));
    lines.push(format!("route add {clients6} dev {NIC}"));
    node.ip(&lines)?;
    let mut lines: Vec<String> =
        addresses.iter().flat_map(|address| on_link(*address, 16, 32, NIC)).collect();
    lines.extend(address::NODES.both().map(|net| format!("route add {net} dev {NIC}")));
    lines.extend(here.both().map(|node| format!("route add default via {node} dev {NIC}")));
    client.ip(&lines)?;
    Ok(Client { namespace: client, addresses })
}

fn connect_remote(node: &Namespace, backend: &Namespace) -> Result<()> {
    wire(node, UPLINK, backend, NIC, 1500)?;
    let (here, there) = (address::UPLINK_HERE, address::UPLINK_THERE);
    let mut lines = on_link(here, 24, 64, UPLINK);
    lines.extend(via(address::pod_net(2), there, UPLINK, ""));
    node.ip(&lines)?;
    let mut lines = on_link(there, 24, 64, NIC);
    lines.extend(backends(Place::Remote).iter().flat_map(|pair| on_link(*pair, 32, 128, NIC)));
    lines.extend(here.both().map(|node| format!("route add default via {node} dev {NIC}")));
    backend.ip(&lines)
}

fn connect_local(node: &Namespace, backend: &Namespace) -> Result<()> {
    wire(node, POD, backend, NIC, 1500)?;
    let gateway = address::pod_gateway(1).v4;
    let addresses = backends(Place::Local);
    let mut lines = host_end(gateway, POD);
    for Pair { v4, v6 } in &addresses {
        lines.push(format!("route add {v4}/32 dev {POD}"));
        lines.push(format!("route add {v6}/128 dev {POD}"));
    }
    node.ip(&lines)?;
    backend.ip(&guest_end(&addresses, gateway))
}
