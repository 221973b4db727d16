//! Pods with a veth of their own: both directions go past the node's stack, or none.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use xtask::lab::client::{Connection, Load, Transport};
use xtask::lab::server::sha256;
use xtask::lab::{Agent, AgentOptions, Lab, Mode, Pod, PodLink, Topology};

use super::Case;
use super::site::{Site, check, wait};

pub(crate) const CASES: &[Case] = &[
    ("fast mode, pods on veths: nothing of both directions passes the node's firewall", fast),
    ("fast mode switched off: all of both directions passes the node's firewall", slow),
    ("fast mode is not for pods on a bridge", bridge),
    (
        "fast mode ends for new flows when others come to a pod's veth, and begins when they go",
        others,
    ),
    (
        "fast mode or slow: a flow keeps it while agents end, wishes change and a pod gets another veth",
        kept,
    ),
];

/// Drops what connection tracking does not know, and counts packets to and from pods.
const FIREWALL: &str = "
table inet guard {
  counter dropped {}
  counter seen {}
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state invalid counter name dropped drop
    meta l4proto { tcp, udp } th dport 80 counter name seen
    meta l4proto { tcp, udp } th sport 80 counter name seen
  }
}
";

const NODE: &str = "node1";

fn raise_firewall(lab: &Lab) -> Result<()> {
    let file = lab.node(NODE).folder().join("firewall");
    std::fs::write(&file, FIREWALL).with_context(|| format!("write {}", file.display()))?;
    nft(lab, &["-f", &file.to_string_lossy()]).map(|_| ())
}

fn nft(lab: &Lab, arguments: &[&str]) -> Result<String> {
    lab.node(NODE).namespace().capture("nft", arguments)
}

/// What the firewall has dropped and seen since it was asked last.
fn counted(lab: &Lab) -> Result<(u64, u64)> {
    let text = nft(lab, &["-j", "reset", "counters"])?;
    let all: Value = serde_json::from_str(&text).context("counters")?;
    let counters = all["nftables"].as_array().context("a list of counters")?;
    let of = |name: &str| {
        let counter = counters.iter().map(|item| &item["counter"]).find(|it| it["name"] == name);
        counter.and_then(|it| it["packets"].as_u64()).with_context(|| format!("no {name}: {text}"))
    };
    Ok((of("dropped")?, of("seen")?))
}

fn one_node() -> Topology {
    Topology::new(1).pods(NODE, &["web-1"])
}

fn site(topology: &Topology, mode: Mode, options: &[&str]) -> Result<Site> {
    let lab = Lab::build(topology)?;
    raise_firewall(&lab)?;
    let more = options.iter().map(|option| (*option).to_owned()).collect();
    let options = AgentOptions { mode, more, ..AgentOptions::default() };
    let nodes: Vec<&str> = topology.nodes.iter().map(|node| &node.name[..]).collect();
    let site = Site::serve(lab, &nodes, &options)?;
    // Where the kernel knows the pod already, and agents have seen it.
    for target in site.targets(NODE) {
        wait("the first flow", || site.lab.client().get(target).map(|_| ()))?;
    }
    Ok(site)
}

/// Loads the node, and returns what its firewall has dropped and seen of that.
fn load(site: &Site) -> Result<(u64, u64)> {
    counted(&site.lab)?;
    for target in site.targets(NODE) {
        for transport in [Transport::Tcp, Transport::Udp] {
            let load = Load { transport, ..Load::new(target, 300) };
            let outcome = site.lab.client().load(&load)?;
            outcome.all_answered().with_context(|| format!("{transport:?} to {target}"))?;
            check(outcome.sources_kept == 300, || format!("{} kept", outcome.sources_kept))?;
        }
    }
    counted(&site.lab)
}

fn fast(mode: Mode) -> Result<()> {
    let site = site(&one_node(), mode, &[])?;
    let (dropped, seen) = load(&site)?;
    check((dropped, seen) == (0, 0), || format!("{dropped} dropped, {seen} seen"))?;
    let listed = flows(&site.agents[0])?;
    check(listed.len() > 1_000, || format!("{} flows", listed.len()))?;
    let status = site.agents[0].call(&["status", "-o", "json"])?;
    let status: Value = serde_json::from_str(&status)?;
    let device = site.lab.pod("web-1").device();
    let devices = status["devices"].as_array().cloned().unwrap_or_default();
    let pod = devices.iter().find(|found| found["name"] == device);
    check(pod.is_some_and(|pod| pod["mode"] == "pod"), || format!("{device}: {devices:?}"))
}

fn slow(mode: Mode) -> Result<()> {
    let site = site(&one_node(), mode, &["--local-mode", "slow"])?;
    let (dropped, seen) = load(&site)?;
    check(dropped == 0 && seen > 1_200, || format!("{dropped} dropped, {seen} seen"))?;
    check(modes(&site.agents[0])?.iter().all(|fast| !fast), || "a flow is fast".into())
}

fn bridge(mode: Mode) -> Result<()> {
    let site = site(&one_node().pod_link(PodLink::Bridge), mode, &[])?;
    let (dropped, seen) = load(&site)?;
    check(dropped == 0 && seen > 1_200, || format!("{dropped} dropped, {seen} seen"))?;
    check(modes(&site.agents[0])?.iter().all(|fast| !fast), || "a flow is fast".into())
}

/// All flows that an agent lists.
fn flows(agent: &Agent) -> Result<Vec<Value>> {
    let text = agent.call(&["flows", "-o", "json"])?;
    let flows: Value = serde_json::from_str(&text).context("flows")?;
    flows.as_array().cloned().context("a list of flows")
}

/// Whether each flow is in fast mode.
fn modes(agent: &Agent) -> Result<Vec<bool>> {
    let fast = |flow: &Value| flow["fast"].as_bool().context("`fast` of a flow");
    flows(agent)?.iter().map(fast).collect()
}

/// Whether the flow of a client is in fast mode.
fn is_fast(agent: &Agent, client: SocketAddr) -> Result<bool> {
    let client = client.to_string();
    let flow = flows(agent)?.into_iter().find(|flow| flow["client"] == client.as_str());
    flow.and_then(|flow| flow["fast"].as_bool()).with_context(|| format!("no flow of {client}"))
}

/// Others come to a pod's veth and go, with nothing else on the node changing.
fn others(mode: Mode) -> Result<()> {
    let site = site(&one_node(), mode, &[])?;
    let device = site.lab.pod("web-1").device();
    let targets = site.targets(NODE);
    let mut old = Vec::new();
    for target in &targets {
        old.push(site.lab.client().connect(site.lab.client().sources(target.ip())[0], *target)?);
    }
    let tc = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        site.lab.node(NODE).namespace().capture("tc", &arguments)
    };
    for (come, go) in [
        (
            vec![format!("qdisc add dev {device} root tbf rate 1gbit burst 1mb latency 50ms")],
            format!("qdisc delete dev {device} root"),
        ),
        (
            vec![
                format!("qdisc add dev {device} clsact"),
                format!("filter add dev {device} egress protocol all u32 match u32 0 0 flowid 1:1"),
            ],
            format!("qdisc delete dev {device} clsact"),
        ),
    ] {
        new_flows(&site, &targets, true)?;
        for command in &come {
            tc(command)?;
        }
        new_flows(&site, &targets, false).with_context(|| format!("after {come:?}"))?;
        counted(&site.lab)?;
        for connection in &mut old {
            connection.ask().with_context(|| format!("on an old connection after {come:?}"))?;
            check(is_fast(&site.agents[0], connection.local())?, || "it is slow now".into())?;
        }
        let counted = counted(&site.lab)?;
        check(counted == (0, 0), || format!("{counted:?} of old connections"))?;
        tc(&go)?;
    }
    new_flows(&site, &targets, true)
}

/// Waits until new flows to these are in fast mode, or in slow mode.
fn new_flows(site: &Site, targets: &[SocketAddr], fast: bool) -> Result<()> {
    targets.iter().try_for_each(|target| {
        wait(&format!("new flows with fast = {fast}"), || {
            let client = site.lab.client();
            let mut connection = client.connect(client.sources(target.ip())[0], *target)?;
            connection.ask()?;
            let is_fast = is_fast(&site.agents[0], connection.local())?;
            check(is_fast == fast, || format!("{target}: fast is {is_fast}"))
        })
    })
}

/// Bytes of one download: a second, with its pauses.
const BYTES: u64 = 6_000_000;

fn kept(mode: Mode) -> Result<()> {
    let mut site = site(&one_node(), mode, &[])?;
    let targets = site.targets(NODE);
    let Site { agents, lab } = &mut site;
    let agent = &mut agents[0];
    let open = |target: SocketAddr| {
        let client = lab.client();
        client.connect(client.sources(target.ip())[0], target)
    };
    let [mut first, mut second] = [open(targets[0])?, open(targets[1])?];
    for connection in [&mut first, &mut second] {
        connection.ask()?;
        check(is_fast(agent, connection.local())?, || "a connection is slow".into())?;
    }
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let downloading = [&mut first, &mut second]
            .map(|connection| scope.spawn(|| download(connection, &ended)));
        let changed = changes(lab, agent);
        ended.store(true, Ordering::Relaxed);
        for downloading in downloading {
            downloading.join().map_err(|_| anyhow!("it panicked"))?.context("a download")?;
        }
        changed
    })?;
    for connection in [first, second] {
        check(is_fast(agent, connection.local())?, || "a connection is slow now".into())?;
    }
    Ok(())
}

/// Downloads over one connection until it is time to end, and once more.
fn download(connection: &mut Connection, ended: &AtomicBool) -> Result<()> {
    loop {
        let is_last = ended.load(Ordering::Relaxed);
        let got = connection.download_slowly(BYTES, Duration::from_millis(10))?;
        check(got.sha256 == sha256(BYTES), || "the download is damaged".into())?;
        if is_last {
            return Ok(());
        }
    }
}

/// What may happen to a node while flows are in fast mode.
fn changes(lab: &Lab, agent: &mut Agent) -> Result<()> {
    let pod = lab.pod("web-1");
    let [target, _] = lab.node(NODE).address().both().map(|to| SocketAddr::new(to, 30_007));
    agent.restart()?;
    move_pod(lab, pod, pod.device(), "moved1", "eth1")?;
    wait("the agent to follow the new veth", || {
        let status: Value = serde_json::from_str(&agent.call(&["status", "-o", "json"])?)?;
        let devices = status["devices"].as_array().cloned().unwrap_or_default();
        let is_there = |name: &str| devices.iter().any(|device| device["name"] == name);
        check(is_there("moved1") && !is_there(pod.device()), || format!("{devices:?}"))
    })?;
    agent.kill();
    move_pod(lab, pod, "moved1", "moved2", "eth2")?;
    // Nobody meets answers at that veth yet: new flows are slow, and old ones wait.
    let slow = lab.client().connect(lab.client().sources(target.ip())[1], target)?;
    agent.restart()?;
    check(!is_fast(agent, slow.local())?, || "a flow was opened in fast mode blindly".into())?;
    agent.restart_with(&["--local-mode", "slow"])?;
    let new = lab.client().connect(lab.client().sources(target.ip())[2], target)?;
    check(!is_fast(agent, new.local())?, || "fast against the user's wish".into())?;
    for mut connection in [slow, new] {
        connection.ask().context("on a slow connection")?;
    }
    Ok(())
}

/// Gives a pod another veth, with the same addresses, and takes the old one away.
fn move_pod(lab: &Lab, pod: &Pod, old: &str, new: &str, inside: &str) -> Result<()> {
    let node = lab.node(NODE);
    let address = pod.address();
    let path = pod.namespace().path().display();
    let routes = node.namespace().capture("ip", &["-4", "addr", "show", "dev", old])?;
    let gateway = routes.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    let gateway = gateway.and_then(|with| with.split('/').next()).context("the pods' gateway")?;
    node.namespace().ip(&[
        format!("link add {new} type veth peer name {inside} netns {path}"),
        format!("addr add {gateway}/32 dev {new}"),
        format!("addr add fe80::1/64 dev {new} nodad"),
        format!("link set {new} up"),
    ])?;
    pod.namespace().ip(&[
        format!("addr add {}/32 dev {inside}", address.v4),
        format!("addr add {}/128 dev {inside} nodad", address.v6),
        format!("link set {inside} up"),
        format!("route replace {gateway}/32 dev {inside}"),
        format!("route replace default via {gateway} dev {inside} src {}", address.v4),
        "route del default via fe80::1".to_owned(),
        format!("route add default via fe80::1 dev {inside} src {}", address.v6),
    ])?;
    node.namespace().ip(&[
        format!("route replace {}/32 dev {new}", address.v4),
        format!("route del {}/128 dev {old}", address.v6),
        format!("route add {}/128 dev {new}", address.v6),
        format!("link del {old}"),
    ])
}
