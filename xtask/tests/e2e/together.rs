//! All of it at once: a real API server with its controllers, real kube-proxies on the same nodes, an
//! agent on each, and clients whose connections go on while endpoints change.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::lab::client::{Connection, Held, Load, get};
use xtask::lab::control_plane::{ControlPlane, User};
use xtask::lab::{Lab, Node, Pod, Process, Topology};
use xtask::workspace;

use super::site::{PORT, check, wait};

pub(crate) const NAME: &str =
    "cluster: real API server, controllers and kube-proxies, two agents, endpoints that change";

const NODES: [&str; 2] = ["node1", "node2"];
/// Of all pods of the lab.
const POD_NET: &str = "10.244.0.0/16";
const READY: &str = "serving: the maps follow";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// From a pod's end until its connections meet it.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// As `kubectl` would have it; its endpoints are found by its selector.
const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 80, nodePort: 30007, protocol: TCP}
";

/// What runs, in the order in which it ends.
struct World {
    agents: Vec<Process>,
    _proxies: Vec<Process>,
    _controllers: Process,
    plane: ControlPlane,
    lab: Lab,
}

impl World {
    fn new() -> Result<Self> {
        let topology =
            Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2", "web-3"]);
        let lab = Lab::build(&topology)?;
        lab.keep_flows_together()?;
        let plane = ControlPlane::start(lab.node(NODES[0]))?;
        lab.nodes().iter().try_for_each(|node| plane.apply(node.name(), &node_object(node)))?;
        let rights = workspace::root().join("deploy/base/rbac.yaml");
        let rights = std::fs::read_to_string(&rights).context("deploy/base/rbac.yaml")?;
        plane.apply("rbac", &rights)?;
        plane.apply("web", SERVICE)?;
        let controllers = plane.controllers()?;
        let proxies = lab.nodes().iter().map(|node| plane.kube_proxy(node, POD_NET));
        let proxies = proxies.collect::<Result<Vec<_>>>()?;
        let mut world =
            Self { agents: Vec::new(), _proxies: proxies, _controllers: controllers, plane, lab };
        for pod in ["web-1", "web-2"] {
            world.create(pod)?;
            world.ready(pod, true)?;
        }
        for node in NODES {
            world.agents.push(world.agent(node)?);
        }
        Ok(world)
    }

    /// With the arguments of `deploy/base`, which is for nodes that have a kube-proxy.
    fn agent(&self, node: &str) -> Result<Process> {
        let kubeconfig = self.plane.kubeconfig(User::Agent).display().to_string();
        let arguments = [
            "run",
            "--kubeconfig",
            &kubeconfig,
            "--node-name",
            node,
            "--healthz-address=10266",
            "--service-health-checks=off",
        ];
        let arguments: Vec<_> = arguments.map(str::to_owned).into();
        let mut agent = self.lab.launch_agent(node, &arguments, "agent.log")?;
        agent.wait_for(READY, READY_WITHIN)?;
        Ok(agent)
    }

    fn create(&self, pod: &str) -> Result<()> {
        self.plane.apply(pod, &pod_object(self.lab.pod(pod)))
    }

    /// What a node's kubelet would report.
    fn ready(&self, pod: &str, is_ready: bool) -> Result<()> {
        let address = self.lab.pod(pod).address().v4;
        let ready = if is_ready { "True" } else { "False" };
        let status = format!(
            "{{\"status\": {{\"phase\": \"Running\", \"podIP\": \"{address}\", \
             \"podIPs\": [{{\"ip\": \"{address}\"}}], \
             \"conditions\": [{{\"type\": \"Ready\", \"status\": \"{ready}\"}}]}}}}"
        );
        let arguments =
            ["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &status];
        self.plane.kubectl(&arguments).map(|_| ())
    }

    fn target(&self, node: &str) -> SocketAddr {
        (self.lab.node(node).address().v4, PORT).into()
    }

    /// Waits until new connections are shared among these pods alone, at both nodes.
    fn serve(&self, pods: &[&str]) -> Result<()> {
        NODES.iter().try_for_each(|node| {
            let load = Load::new(self.target(node), 60);
            wait(&format!("{pods:?} behind {node}"), || {
                let outcome = self.lab.client().load(&load)?;
                outcome.all_answered()?;
                let by: Vec<_> = outcome.answers.keys().map(String::as_str).collect();
                check(by == pods, || format!("{by:?} answer"))
            })
        })
    }

    /// A connection through a node that this pod answers.
    fn connected(&self, node: &str, pod: &str) -> Result<Connection> {
        let client = self.lab.client();
        let target = self.target(node);
        for _ in 0..64 {
            let mut connection = client.connect(client.sources(target.ip())[0], target)?;
            if connection.ask()?.by == pod {
                return Ok(connection);
            }
        }
        anyhow::bail!("of 64 connections to {target} none is answered by {pod}")
    }

    /// How many flows a node's agent has opened for the service.
    fn opened(&self, node: &str) -> Result<u64> {
        let text = self.lab.call_agent(node, &["services", "-o", "json"])?;
        let rows: Value = serde_json::from_str(&text).context("services -o json")?;
        let rows = rows.as_array().context("no list of services")?;
        Ok(rows.iter().filter_map(|row| row["flows_opened"].as_u64()).sum())
    }
}

fn node_object(node: &Node) -> String {
    let (name, address) = (node.name(), node.address().v4);
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: \
         {{kubernetes.io/hostname: {name}}}\nstatus:\n  addresses:\n  \
         - {{type: InternalIP, address: '{address}'}}\n"
    )
}

fn pod_object(pod: &Pod) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}, labels: {{app: web}}}}\nspec:\n  \
         nodeName: {}\n  terminationGracePeriodSeconds: 600\n  containers: \
         [{{name: web, image: web}}]\n",
        pod.name(),
        pod.node()
    )
}

/// Connections live through all that happens to others' pods; those of a pod that ends go on until it is
/// gone; and pods that ask for the ClusterIP are kube-proxy's, as before.
pub(crate) fn case() -> Result<()> {
    let world = World::new()?;
    world.serve(&["web-1", "web-2"])?;
    let held: Vec<_> = NODES
        .iter()
        .map(|node| Held::open(world.lab.client(), world.target(node), 50))
        .collect::<Result<_>>()?;

    world.create("web-3")?;
    world.ready("web-3", true)?;
    world.serve(&["web-1", "web-2", "web-3"])?;
    world.ready("web-3", false)?;
    world.serve(&["web-1", "web-2"])?;
    world.ready("web-3", true)?;
    world.serve(&["web-1", "web-2", "web-3"])?;

    let mut ending = world.connected(NODES[0], "web-3")?;
    world.plane.kubectl(&["delete", "pod", "web-3", "--wait=false"])?;
    world.serve(&["web-1", "web-2"])?;
    let by = ending.ask().context("of a pod that ends")?.by;
    check(by == "web-3", || format!("{by} answered"))?;
    world.plane.kubectl(&["delete", "pod", "web-3", "--force", "--grace-period=0"])?;
    let until = Instant::now() + GONE_WITHIN;
    while ending.ask().is_ok() {
        check(Instant::now() < until, || "the connection outlives its pod".to_owned())?;
    }

    for held in held {
        held.use_all()?;
        held.close()?.all_kept()?;
    }
    from_a_pod(&world)?;
    for node in NODES {
        let before = world.opened(node)?;
        world.lab.client().load(&Load::new(world.target(node), 40))?.all_answered()?;
        let opened = world.opened(node)? - before;
        check(opened >= 40, || format!("of 40 connections {opened} went through {node}'s agent"))?;
    }
    finish(world)
}

fn from_a_pod(world: &World) -> Result<()> {
    let arguments = ["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"];
    let address = world.plane.kubectl(&arguments)?.trim().parse().context("the ClusterIP")?;
    let from = world.lab.pod("web-1").namespace();
    wait("kube-proxy serves the ClusterIP", || {
        get(from, None, SocketAddr::new(address, 80)).map(|_| ())
    })
}

/// Without a trace; then kube-proxy serves, as it did before.
fn finish(mut world: World) -> Result<()> {
    for (agent, node) in world.agents.drain(..).zip(NODES) {
        let log = agent.log_text();
        check(!log.contains("a mistake of this program"), || log.clone())?;
        check(!log.contains("panicked"), || log.clone())?;
        drop(agent);
        world.lab.call_agent(node, &["cleanup"])?;
    }
    world.serve(&["web-1", "web-2"])
}
