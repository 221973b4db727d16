//! A lab that serves: a service on every pod, and agents.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::client::Load;
use super::manifests::Slices;
use super::{Agent, AgentOptions, Fabric, Lab, Mode, Pod, Topology, retry};
use anyhow::{Context as _, Result};

/// The service's nodePort, for TCP and UDP.
pub const PORT: u16 = 30_007;

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ports:
    - {name: http, port: 80, targetPort: 80, nodePort: 30007, protocol: TCP}
    - {name: echo, port: 80, targetPort: 80, nodePort: 30007, protocol: UDP}
";

const PORTS: &[(&str, &str)] = &[("http", "TCP"), ("echo", "UDP")];

/// How long a change of a manifest may take until packets meet it.
const APPLIED_WITHIN: Duration = Duration::from_secs(10);

/// A lab that serves.
pub struct Site {
    // Before the lab, whose namespaces the agents' processes are in.
    /// The agents, in the order of their nodes.
    pub agents: Vec<Agent>,
    /// The lab around them.
    pub lab: Lab,
}

impl Site {
    /// Builds the lab, and has every node serve, with packets of one flow on one processor.
    ///
    /// # Errors
    /// If a part of it cannot be built, or the service is not served in time.
    pub fn new(topology: &Topology, mode: Mode) -> Result<Self> {
        let mut options = AgentOptions { mode, ..AgentOptions::default() };
        if topology.fabric == Fabric::Vxlan {
            // The tunnel takes no XDP: with `xdp`, the agent would rightly refuse it.
            options.mode = if mode == Mode::Xdp { Mode::Auto } else { mode };
            options.devices = "auto".to_owned();
        }
        let nodes: Vec<&str> = topology.nodes.iter().map(|node| &node.name[..]).collect();
        let lab = Lab::build(topology)?;
        lab.keep_flows_together()?;
        Self::serve(lab, &nodes, &options)
    }

    /// Applies the service with all pods, starts agents on these nodes, and waits until they serve.
    ///
    /// # Errors
    /// If an agent does not come up, or the service is not served in time.
    pub fn serve(lab: Lab, nodes: &[&str], options: &AgentOptions) -> Result<Self> {
        lab.apply_nodes()?;
        lab.apply("web", SERVICE)?;
        let mut site = Self { agents: Vec::new(), lab };
        site.offer(|_| true)?;
        for node in nodes {
            site.agents.push(site.lab.start_agent(node, options)?);
        }
        nodes.iter().try_for_each(|node| site.wait_until_served(node))?;
        Ok(site)
    }

    /// Offers every pod, as ready or as ending.
    ///
    /// # Errors
    /// If the manifest cannot be written.
    pub fn offer(&self, ready: impl Fn(&Pod) -> bool) -> Result<()> {
        let pods: Vec<_> = self.lab.pods().iter().map(|pod| (pod, ready(pod))).collect();
        self.lab.apply_slices(&Slices { service: "web", ports: PORTS, pods: &pods })
    }

    /// The service on a node, in both families.
    #[must_use]
    pub fn targets(&self, node: &str) -> [SocketAddr; 2] {
        self.addresses(node).map(|address| SocketAddr::new(address, PORT))
    }

    /// A node's addresses.
    #[must_use]
    pub fn addresses(&self, node: &str) -> [IpAddr; 2] {
        self.lab.node(node).address().both()
    }

    /// What a node's programs have counted, for messages.
    #[must_use]
    pub fn counters(&self, node: &str) -> String {
        let status = self.lab.call_agent(node, &["status", "-o", "json"]).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        let counters = status["counters"].as_array().cloned().unwrap_or_default();
        let line = |counter: &serde_json::Value| {
            format!("{} {}", counter["reason"].as_str().unwrap_or("?"), counter["packets"])
        };
        counters
            .iter()
            .map(line)
            .filter(|line| !line.ends_with(" 0"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Names of all pods.
    #[must_use]
    pub fn pods(&self) -> Vec<&str> {
        self.lab.pods().iter().map(Pod::name).collect()
    }

    /// Waits until a node answers in both families.
    fn wait_until_served(&self, node: &str) -> Result<()> {
        self.targets(node).into_iter().try_for_each(|target| {
            let asked = || self.lab.client().get(target).map(|_| ());
            wait(&format!("{target} on {node}"), asked)
        })
    }

    /// Waits until the pods that answer at `target` are these.
    ///
    /// # Errors
    /// If others answer for too long.
    pub fn wait_for_pods(&self, target: SocketAddr, pods: &[&str]) -> Result<()> {
        wait(&format!("{pods:?} behind {target}"), || {
            let load = Load::new(target, 64);
            self.lab.client().load(&load)?.fair(pods, 1.0)
        })
    }
}

/// Tries until it succeeds, as long as a change may take.
///
/// # Errors
/// That of the last try.
pub fn wait(what: &str, attempt: impl Fn() -> Result<()>) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);
    retry(APPLIED_WITHIN, PAUSE, attempt).with_context(|| format!("waited for {what}"))
}
