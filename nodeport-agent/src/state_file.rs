//! What the maps do not say: names. The agent writes them to a file beside its maps, so that the
//! other commands can show them, also when it is away.

mod names;

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::addresses::Served;
use crate::config::Instance;
use crate::listeners::HostListener;
use crate::model::{Family, Finding, Name, Protocol};
use crate::run_dir;

pub(crate) use names::Names;

/// Everything that the agent knows by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`LAYOUT_VERSION`](nodeport_common::abi::LAYOUT_VERSION) of the maps that it goes with.
    pub layout: u32,
    /// Name of this machine's node.
    pub node: String,
    /// Addresses on which nodePorts are served, and why.
    #[serde(default)]
    pub served_on: Vec<Served>,
    /// The seed of the choice of backends, if it came from the cluster.
    #[serde(default)]
    pub cluster_seed: Option<u32>,
    /// Writes to the maps since the agent was started; the slots of a table are one.
    #[serde(default)]
    pub map_writes: u64,
    /// Service ports, each family by itself.
    pub services: Vec<Arc<Service>>,
    /// Processes of the node that listen where services are.
    #[serde(default)]
    pub host_listeners: Vec<HostListener>,
    /// What is wrong with objects.
    pub findings: Vec<Finding>,
    /// What could not be written to the maps, and why.
    pub failures: Vec<String>,
}

/// A service port in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id: index in `service_stats`, and `service` of frontends and flows. Both families of
    /// a service port share it.
    pub id: u32,
    /// The Service.
    pub service: Name,
    /// Name of its port; may be empty.
    pub port_name: String,
    /// Number of its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
    /// What clients address.
    pub frontends: Vec<Frontend>,
    /// Its backends.
    pub backends: Vec<Backend>,
}

/// What clients address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// The address; none for any address of the node.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// A backend of a service port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its index in `backends4` or `backends6`.
    pub index: u32,
    /// The generation that its flows have.
    pub generation: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The node that it is on, if that is known.
    pub node: Option<String>,
    /// It is on this node.
    pub local: bool,
    /// It keeps its flows and takes no new ones.
    pub draining: bool,
}

impl State {
    /// Reads what an agent has written.
    ///
    /// # Errors
    /// If there is nothing to be read, or it makes no sense.
    pub fn load(instance: &Instance) -> anyhow::Result<Self> {
        let path = path(instance);
        let what = || format!("reading {}: has nodeport-agent run here?", path.display());
        let text = fs::read_to_string(&path).with_context(what)?;
        serde_json::from_str(&text).with_context(|| format!("{} makes no sense", path.display()))
    }

    /// Takes over what the agent before knew by name: until all is listed, its services are served
    /// on, and this agent knows only what is wrong.
    pub(crate) fn keep_names(&mut self, instance: &Instance) {
        if let Ok(before) = Self::load(instance)
            && before.layout == self.layout
        {
            let known = std::mem::replace(self, before);
            (self.findings, self.failures) = (known.findings, known.failures);
            self.host_listeners = known.host_listeners;
        }
    }

    /// Writes it, in one piece: who reads meanwhile sees the file as it was.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn save(&self, instance: &Instance) -> anyhow::Result<()> {
        let path = path(instance);
        run_dir::replace(&path, |file| {
            serde_json::to_writer(&mut *file, self)?;
            file.write_all(b"\n")
        })
        .with_context(|| format!("writing {}: choose another place by --run-dir", path.display()))
    }
}

/// Where an instance's file is.
#[must_use]
pub fn path(instance: &Instance) -> PathBuf {
    instance.run_dir.join("state.json")
}
