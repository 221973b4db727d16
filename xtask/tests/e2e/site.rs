//! A lab with a service and an agent on each node.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::lab::manifests::Slices;
use xtask::lab::{Agent, AgentOptions, Fabric, Lab, Mode, Pod, Topology};

/// The service's nodePort, for TCP and UDP.
pub(crate) const PORT: u16 = 30_007;

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
pub(crate) struct Site {
    // Before the lab, whose namespaces the agents' processes are in.
    pub(crate) agents: Vec<Agent>,
    pub(crate) lab: Lab,
}

impl Site {
    /// Builds the lab, applies the service with all pods, starts the agents.
    pub(crate) fn new(topology: &Topology, mode: Mode) -> Result<Self> {
        let lab = Lab::build(topology)?;
        lab.apply_nodes()?;
        lab.apply("web", SERVICE)?;
        let mut site = Self { agents: Vec::new(), lab };
        site.offer(|_| true)?;
        let mut options = AgentOptions { mode, ..AgentOptions::default() };
        if topology.fabric == Fabric::Vxlan {
            // The tunnel takes no XDP: with `xdp`, the agent would rightly refuse it.
            options.mode = if mode == Mode::Xdp { Mode::Auto } else { mode };
            options.devices = "auto".to_owned();
        }
        for node in site.lab.nodes() {
            let agent = site.lab.start_agent(node.name(), &options)?;
            site.agents.push(agent);
        }
        site.wait_until_served()?;
        Ok(site)
    }

    /// Offers every pod, as ready or as ending.
    pub(crate) fn offer(&self, ready: impl Fn(&Pod) -> bool) -> Result<()> {
        let pods: Vec<_> = self.lab.pods().iter().map(|pod| (pod, ready(pod))).collect();
        self.lab.apply_slices(&Slices { service: "web", ports: PORTS, pods: &pods })
    }

    /// The service on a node, in both families.
    pub(crate) fn targets(&self, node: &str) -> [SocketAddr; 2] {
        self.addresses(node).map(|address| SocketAddr::new(address, PORT))
    }

    /// A node's addresses.
    pub(crate) fn addresses(&self, node: &str) -> [IpAddr; 2] {
        self.lab.node(node).address().both()
    }

    /// What a node's programs have counted, for messages.
    pub(crate) fn counters(&self, node: &str) -> String {
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
    pub(crate) fn pods(&self) -> Vec<&str> {
        self.lab.pods().iter().map(Pod::name).collect()
    }

    /// Waits until every node answers in both families.
    fn wait_until_served(&self) -> Result<()> {
        for node in self.lab.nodes() {
            for target in self.targets(node.name()) {
                let asked = || self.lab.client().get(target).map(|_| ());
                wait(&format!("{target} on {}", node.name()), asked)?;
            }
        }
        Ok(())
    }

    /// Waits until the pods that answer at `target` are these.
    pub(crate) fn wait_for_pods(&self, target: SocketAddr, pods: &[&str]) -> Result<()> {
        wait(&format!("{pods:?} behind {target}"), || {
            let load = xtask::lab::client::Load::new(target, 64);
            self.lab.client().load(&load)?.fair(pods, 1.0)
        })
    }
}

/// Tries until it succeeds.
pub(crate) fn wait(what: &str, attempt: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + APPLIED_WITHIN;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("waited for {what}"));
            }
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}

/// Fails unless the condition holds.
pub(crate) fn check(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { bail!(what()) }
}
