//! An agent with a real API server: as its ServiceAccount, with the rights that `deploy/` gives it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use xtask::lab::control_plane::{CONTROLLERS, ControlPlane, KUBE_PROXY, User, assets};
use xtask::lab::{Lab, Process, Topology};
use xtask::workspace;

use super::site::{check, wait};
use super::together;

const NODE: &str = "node1";
/// What the agent says when it serves.
const READY: &str = "serving: the maps follow";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Of the service that is all right.
const PORT: u16 = 30_007;

type Case = (&'static str, fn() -> Result<()>);

const CASES: &[Case] = &[
    ("cluster: SCTP is refused by an Event, and the other ports are served", sctp),
    (
        "cluster: much that makes no sense at once is named, and what makes sense is served",
        senseless,
    ),
    ("cluster: an agent that may write no Events serves all the same", not_allowed),
];

/// The cases; none, with a line that says so, where there is no API server to run.
pub(crate) fn trials() -> Vec<Trial> {
    if let Err(reason) = assets(&[]) {
        println!("tests with a real API server skipped: {reason:#}");
        return Vec::new();
    }
    let mut trials: Vec<_> =
        CASES.iter().map(|(name, case)| super::trial((*name).to_owned(), *case)).collect();
    match assets(&[CONTROLLERS, KUBE_PROXY]) {
        Ok(_) => trials.push(super::trial(together::NAME.to_owned(), together::case)),
        Err(reason) => println!("test with controllers and kube-proxies skipped: {reason:#}"),
    }
    trials
}

/// A cluster of one node with one pod, and an agent on it.
struct Cluster {
    // In this order they end.
    agent: Option<Process>,
    plane: ControlPlane,
    lab: Lab,
}

impl Cluster {
    /// Without an agent yet.
    fn new() -> Result<Self> {
        let lab = Lab::build(&Topology::new(1).pods(NODE, &["web-1"]))?;
        lab.keep_flows_together()?;
        let node = lab.node(NODE);
        let plane = ControlPlane::start(node)?;
        let [v4, v6] = node.address().both();
        let object = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {NODE}}}\nstatus:\n  addresses:\n  \
             - {{type: InternalIP, address: '{v4}'}}\n  - {{type: InternalIP, address: '{v6}'}}\n"
        );
        plane.apply("node", &object)?;
        Ok(Self { agent: None, plane, lab })
    }

    /// With the rights of `deploy/base`, changed as told.
    fn allow(&self, change: impl Fn(String) -> String) -> Result<()> {
        let file = workspace::root().join("deploy/base/rbac.yaml");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        self.plane.apply("rbac", &change(text))
    }

    fn start(&mut self, more: &[&str]) -> Result<()> {
        self.agent = None;
        let kubeconfig = self.plane.kubeconfig(User::Agent).display().to_string();
        let usual = ["run", "--kubeconfig", &kubeconfig, "--node-name", NODE, "--devices", "eth0"];
        let arguments: Vec<_> =
            usual.iter().chain(more).map(|argument| (*argument).to_owned()).collect();
        let mut agent = self.lab.launch_agent(NODE, &arguments, "agent.log")?;
        agent.wait_for(READY, READY_WITHIN)?;
        self.agent = Some(agent);
        Ok(())
    }

    fn log(&self) -> String {
        self.agent.as_ref().map(Process::log_text).unwrap_or_default()
    }

    /// A Service without selector, and a slice with these addresses.
    fn put(&self, name: &str, spec: &str, ports: &str, addresses: &[&str]) -> Result<()> {
        let endpoint = |address: &&str| format!("- {{addresses: ['{address}']}}\n");
        let endpoints: String = addresses.iter().map(endpoint).collect();
        let slice = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  \
             labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: {ports}\n\
             endpoints:\n{endpoints}"
        );
        let service =
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n");
        self.plane.apply(name, &format!("{service}---\n{slice}"))
    }

    fn pod(&self) -> String {
        self.lab.pod("web-1").address().v4.to_string()
    }

    fn put_good(&self, name: &str, port: u16) -> Result<()> {
        let spec =
            format!("{{type: NodePort, ports: [{{name: http, port: 80, nodePort: {port}}}]}}");
        self.put(name, &spec, "[{name: http, port: 80}]", &[&self.pod()])
    }

    fn answers(&self, port: u16) -> Result<()> {
        let target = (self.lab.node(NODE).address().v4, port).into();
        wait(&format!("{target} answers"), || {
            let by = self.lab.client().get(target)?.by;
            check(by == "web-1", || format!("{by} answered"))
        })
    }

    /// Events about an object, by reason.
    fn events(&self, object: &str, reason: &str) -> Result<Vec<Value>> {
        let text = self.plane.kubectl(&["get", "events.v1.events.k8s.io", "-A", "-o", "json"])?;
        let list: Value = serde_json::from_str(&text).context("reading the Events")?;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let is_it = |one: &Value| one["regarding"]["name"] == object && one["reason"] == reason;
        Ok(all.into_iter().filter(is_it).collect())
    }

    /// Waits until there is one, and returns it.
    fn event(&self, object: &str, reason: &str) -> Result<Value> {
        wait(&format!("{object} has an Event {reason}"), || {
            let events = self.events(object, reason)?;
            ensure!(events.len() == 1, "{} of them; the agent said:\n{}", events.len(), self.log());
            Ok(())
        })?;
        Ok(self.events(object, reason)?.remove(0))
    }

    fn finish(self) -> Result<()> {
        let log = self.log();
        check(!log.contains("a mistake of this program"), || log.clone())?;
        check(!log.contains("panicked"), || log.clone())?;
        drop(self.agent);
        self.lab.call_agent(NODE, &["cleanup"]).map(|_| ())
    }
}

fn says(event: &Value, parts: &[&str]) -> Result<()> {
    let note = event["note"].as_str().unwrap_or_default();
    parts.iter().try_for_each(|part| check(note.contains(part), || format!("no {part:?}: {event}")))
}

fn sctp() -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.allow(|text| text)?;
    let spec = format!(
        "{{type: NodePort, ports: [{{name: http, port: 80, nodePort: {PORT}}}, \
         {{name: signal, port: 81, nodePort: 30009, protocol: SCTP}}, \
         {{name: echo, port: 80, nodePort: {PORT}, protocol: UDP}}]}}"
    );
    let ports = "[{name: http, port: 80}, {name: signal, port: 81, protocol: SCTP}, \
                 {name: echo, port: 80, protocol: UDP}]";
    cluster.put("mixed", &spec, ports, &[&cluster.pod()])?;
    cluster.start(&[])?;
    cluster.answers(PORT)?;
    let target = (cluster.lab.node(NODE).address().v4, PORT).into();
    cluster.lab.client().get_udp(target).context("the UDP port beside it")?;

    let event = cluster.event("mixed", "ProtocolNotSupported")?;
    says(&event, &["spec.ports[1].protocol", "SCTP"])?;
    let uid =
        cluster.plane.kubectl(&["get", "service", "mixed", "-o", "jsonpath={.metadata.uid}"])?;
    for (field, wanted) in [
        (&event["type"], "Warning"),
        (&event["action"], "Serve"),
        (&event["regarding"]["kind"], "Service"),
        (&event["regarding"]["uid"], &*uid),
        (&event["reportingController"], "nodeport-agent"),
        (&event["reportingInstance"], NODE),
        (&event["metadata"]["namespace"], "default"),
    ] {
        check(field == wanted, || format!("{field}, not {wanted}: {event}"))?;
    }
    let shown = cluster.plane.kubectl(&["describe", "service", "mixed"])?;
    check(shown.contains("ProtocolNotSupported"), || format!("not where people look:\n{shown}"))?;
    let frontends = cluster.lab.call_agent(NODE, &["services", "-o", "json"])?;
    check(!frontends.contains("30009"), || {
        format!("SCTP is served as something else: {frontends}")
    })?;

    // A new agent, as on another node, finds the same and makes no second Event of it: it tells what
    // came first first, so when the later one is there the first one has been told too.
    cluster.start(&[])?;
    let bad = "{type: NodePort, ports: [{port: 80, nodePort: 30010, protocol: SCTP}]}";
    cluster.put("later", bad, "[{port: 80, protocol: SCTP}]", &[&cluster.pod()])?;
    cluster.event("later", "ProtocolNotSupported")?;
    cluster.event("mixed", "ProtocolNotSupported")?;
    cluster.finish()
}

fn senseless() -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.allow(|text| text)?;
    cluster.put_good("good", PORT)?;
    cluster.start(&["--external-ips", "0.0.0.0/0"])?;
    cluster.answers(PORT)?;

    let (pod, own) = (cluster.pod(), cluster.lab.node(NODE).address().v4.to_string());
    let one_port = "[{name: http, port: 80}]";
    let external = |address: &str| {
        format!(
            "{{type: ClusterIP, externalIPs: ['{address}'], ports: [{{name: http, port: 80}}]}}"
        )
    };
    // Two that want one address. The older one has it.
    cluster.put("first", &external("198.51.100.7"), one_port, &[&pod])?;
    std::thread::sleep(Duration::from_millis(1_100));
    cluster.put("second", &external("198.51.100.7"), one_port, &[&pod])?;
    let spec = "{type: NodePort, ports: [{name: http, port: 80, nodePort: 30011}]}";
    // Every endpoint is a nodePort of this very node.
    cluster.put("circle", spec, &format!("[{{name: http, port: {PORT}}}]"), &[&own])?;
    // Names instead of addresses, more of one slice than a server would make, and no slice at all.
    let names = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: circle-names\n  \
                 labels: {kubernetes.io/service-name: circle}\naddressType: FQDN\n\
                 ports: [{name: http, port: 80}]\nendpoints: [{addresses: [web.example]}]\n";
    cluster.plane.apply("names", names)?;

    says(
        &cluster.event("second", "ExternalIPNotServed")?,
        &["spec.externalIPs[0]", "198.51.100.7:80/TCP", "Service default/first"],
    )?;
    check(cluster.events("first", "ExternalIPNotServed")?.is_empty(), || {
        "first has it".to_owned()
    })?;
    says(
        &cluster.event("circle", "EndpointNotUsable")?,
        &["EndpointSlice circle-1", "endpoints[0].addresses[0]", "circle"],
    )?;
    let status = cluster.lab.call_agent(NODE, &["status"])?;
    for object in ["Service default/second", "EndpointSlice default/circle-1"] {
        check(status.contains(object), || format!("status does not name {object}:\n{status}"))?;
    }
    cluster.answers(PORT)?;
    // What is wrong goes, and what was held back comes.
    cluster.plane.kubectl(&["delete", "service", "first"])?;
    wait("the second one is served", || {
        let services = cluster.lab.call_agent(NODE, &["services"])?;
        check(services.contains("default/second"), || services.clone())
    })?;
    cluster.put_good("circle", 30_011)?;
    cluster.answers(30_011)?;
    cluster.answers(PORT)?;
    cluster.finish()
}

fn not_allowed() -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.allow(|text| text.replace("verbs: [create, patch]", "verbs: [get]"))?;
    cluster.put_good("good", PORT)?;
    let bad = "{type: NodePort, ports: [{port: 80, nodePort: 30010, protocol: SCTP}]}";
    cluster.put("bad", bad, "[{port: 80, protocol: SCTP}]", &[&cluster.pod()])?;
    cluster.start(&[])?;
    wait("the agent says what it lacks", || {
        let log = cluster.log();
        check(log.contains("the cluster takes no Events"), || log.clone())?;
        check(log.contains("deploy/base/rbac.yaml"), || log.clone())
    })?;
    cluster.answers(PORT)?;
    cluster.put_good("new", 30_012)?;
    cluster.answers(30_012)?;
    check(cluster.events("bad", "ProtocolNotSupported")?.is_empty(), || "who told it?".to_owned())?;
    cluster.finish()
}
