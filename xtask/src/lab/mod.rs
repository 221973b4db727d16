//! A cluster's network on one machine, made of network namespaces.
//!
//! ```text
//!  client1 ─┐                       ┌─ web-1
//!           ├─ switch ─── eth0 node1┤            pods hang on their node
//!  client2 ─┘      │                └─ web-2     by veths of their own or by a bridge
//!                  └───── eth0 node2── web-3
//! ```
//!
//! A [`Topology`] says what there is, [`Lab::build`] makes it, and dropping the [`Lab`] takes all
//! of it away. Nothing outside the lab's own namespaces, its folder and its cgroup is touched.

mod address;
mod agent;
mod cgroup;
mod fabric;
mod files;
mod folder;
mod interrupt;
mod ip;
mod line;
mod member;
mod namespace;
mod pods;
mod process;
mod queues;
mod retry;
mod topology;

pub mod client;
pub mod commands;
pub mod control_plane;
pub mod flood;
pub mod manifests;
pub mod server;
pub mod site;
pub mod stray;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use address::Pair;
pub use agent::{Agent, AgentOptions, Mode};
pub use line::{BACKENDS, Line, Place};
pub use member::{Client, Node, Pod};
pub use namespace::Namespace;
pub use process::Process;
pub use retry::retry;
pub use topology::{Fabric, NodeSpec, PodLink, Topology};

use folder::Folder;

/// A lab that is up.
pub struct Lab {
    topology: Topology,
    clients: Vec<Client>,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    fabric: Vec<Namespace>,
    // Last, so that it goes last: it ends every process that still runs in the lab.
    folder: Folder,
}

impl Lab {
    /// Builds it, after removing what labs of dead processes have left.
    ///
    /// # Errors
    /// If the process lacks the rights of root, or the kernel refuses a part of it. What was
    /// built until then is removed.
    pub fn build(topology: &Topology) -> Result<Self> {
        topology.check()?;
        let folder = Folder::create()?;
        let mut lab = Self {
            topology: topology.clone(),
            clients: Vec::new(),
            nodes: Vec::new(),
            pods: Vec::new(),
            fabric: Vec::new(),
            folder,
        };
        lab.build_network().with_context(|| format!("build the lab {topology:?}"))?;
        for node in &topology.nodes {
            for pod in &node.pods {
                lab.add_pod(&node.name, pod)?;
            }
        }
        Ok(lab)
    }

    /// What was built.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Every client.
    #[must_use]
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Every node.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Every pod.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Switches and routers between them.
    #[must_use]
    pub fn fabric(&self) -> &[Namespace] {
        &self.fabric
    }

    /// The first client.
    ///
    /// # Panics
    /// If the topology has none.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.clients.first().expect("the topology has a client")
    }

    /// The node of that name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let node = self.nodes.iter().find(|node| node.name() == name);
        node.unwrap_or_else(|| panic!("the lab has no node {name}"))
    }

    /// The pod of that name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Pod {
        let pod = self.pods.iter().find(|pod| pod.name() == name);
        pod.unwrap_or_else(|| panic!("the lab has no pod {name}"))
    }

    /// The lab's folder: logs, manifests, mounts.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves everything as it is when this process ends, until `lab down`. Returns the folder.
    ///
    /// # Errors
    /// If the mark cannot be written.
    pub fn keep(mut self) -> Result<PathBuf> {
        for pod in &mut self.pods {
            pod.server.detach();
        }
        self.folder.keep()
    }
}
