//! The ports by which backends know us: at their limits, and beside the node's own connections.

use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::lab::client::{Answer, Close, Connection, Datagrams, Held, Load, get};
use xtask::lab::manifests::Slices;
use xtask::lab::{AgentOptions, Lab, Mode, Namespace, Topology};

use super::Case;
use super::site::{PORT, Site, check, wait};

pub(crate) const CASES: &[Case] = &[
    ("one client port reaches one backend through two nodePorts at once", two_node_ports),
    ("hairpin: a pod reaches itself through another node, by all three addresses", hairpin),
    ("60,000 connections from one client to one backend, closed by FIN and by RST", in_turn),
    ("source ports that run out: said before, others untouched, given back at once", run_out),
    ("the node's own connections and masqueraded ones from the same ports are not ours", beside),
];

const NODE: &str = "node1";
const POD: &str = "web-1";
const PORTS: &[(&str, &str)] = &[("http", "TCP"), ("echo", "UDP")];
/// A second service's nodePort.
const SECOND: u16 = 30_008;
const BALANCER: [&str; 2] = ["203.0.113.60", "2001:db8:60::1"];
const CLUSTER: [&str; 2] = ["10.96.0.60", "fd96::60"];

/// One node with clients, and one with the only pod.
fn site(mode: Mode, more: &[&str]) -> Result<Site> {
    let lab = Lab::build(&Topology::new(2).pods("node2", &[POD]))?;
    lab.keep_flows_together()?;
    let more = more.iter().map(|one| (*one).to_owned()).collect();
    Site::serve(lab, &[NODE, "node2"], &AgentOptions { mode, more, ..AgentOptions::default() })
}

/// Offers the pod by a second service, at all kinds of addresses.
fn apply_second(site: &Site) -> Result<()> {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: second}}\nspec:\n  type: LoadBalancer\n  \
         clusterIPs: [{}, '{}']\n  ports:\n    - {{name: http, port: 80, nodePort: {SECOND}, \
         protocol: TCP}}\n    - {{name: echo, port: 80, nodePort: {SECOND}, protocol: UDP}}\n\
         status:\n  loadBalancer:\n    ingress: [{{ip: '{}'}}, {{ip: '{}'}}]\n",
        CLUSTER[0], CLUSTER[1], BALANCER[0], BALANCER[1]
    );
    site.lab.apply("second", &service)?;
    let pods: Vec<_> = site.lab.pods().iter().map(|pod| (pod, true)).collect();
    site.lab.apply_slices(&Slices { service: "second", ports: PORTS, pods: &pods })?;
    site.addresses(NODE).into_iter().try_for_each(|address| {
        let target = SocketAddr::new(address, SECOND);
        wait(&format!("{target}"), || site.lab.client().get(target).map(|_| ()))
    })
}

/// What was counted for a reason.
fn counted(site: &Site, reason: &str) -> Result<u64> {
    let status = status(site)?;
    let counters = status["counters"].as_array().context("the status has counters")?;
    let found = counters.iter().find(|counter| counter["reason"] == reason);
    found.and_then(|counter| counter["packets"].as_u64()).context("the status has that reason")
}

fn status(site: &Site) -> Result<Value> {
    let status = site.lab.call_agent(NODE, &["status", "-o", "json"])?;
    serde_json::from_str(&status).context("reading the status")
}

fn two_node_ports(mode: Mode) -> Result<()> {
    let site = site(mode, &[])?;
    apply_second(&site)?;
    let client = site.lab.client();
    for address in site.addresses(NODE) {
        let source = SocketAddr::new(client.sources(address)[0], 45_000);
        let targets = [PORT, SECOND].map(|port| SocketAddr::new(address, port));
        let open = |target| client.namespace().run(|| Connection::open(Some(source), target))?;
        let mut both = targets.map(open).into_iter().collect::<Result<Vec<_>>>()?;
        let first = answers(&mut both)?;
        check(first[0].saw != first[1].saw, || format!("one source of two: {first:?}"))?;
        let again = answers(&mut both)?;
        let is_same = first.iter().zip(&again).all(|(first, again)| first.saw == again.saw);
        check(is_same, || format!("{first:?}, then {again:?}"))?;
        // A socket of UDP cannot share its port with another: one after the other, there and back.
        for target in [targets, targets].concat() {
            let asked = || Datagrams::open(Some(source), target)?.ask(b"from one port");
            client.namespace().run(asked)??;
        }
    }
    Ok(())
}

fn answers(connections: &mut [Connection]) -> Result<Vec<Answer>> {
    connections.iter_mut().map(Connection::ask).collect()
}

/// From the pod through the other node, which does not know that it is the pod itself. (What the pod
/// sends to its own node's addresses does not pass the node's interface.)
fn hairpin(mode: Mode) -> Result<()> {
    let site = site(mode, &["--cluster-ips"])?;
    apply_second(&site)?;
    let pod = site.lab.pods().first().context("the lab has a pod")?.namespace();
    let node = site.addresses(NODE);
    for (family, through) in node.into_iter().enumerate() {
        let [balancer, cluster] = [BALANCER[family], CLUSTER[family]];
        let via = |address| format!("route add {address} via {through}");
        site.lab.node("node2").namespace().ip(&[via(balancer), via(cluster)])?;
        for address in [balancer, cluster] {
            let target = SocketAddr::new(address.parse()?, 80);
            reaches_itself(pod, target, through)?;
        }
        reaches_itself(pod, SocketAddr::new(through, PORT), through)?;
    }
    Ok(())
}

/// Over TCP and UDP, the pod sees not itself but the node.
fn reaches_itself(pod: &Namespace, target: SocketAddr, node: IpAddr) -> Result<()> {
    let datagram = || Datagrams::open(None, target)?.ask(b"to myself");
    let over_tcp = get(pod, None, target).with_context(|| format!("TCP to {target}"))?;
    let over_udp = pod.run(datagram)?.with_context(|| format!("UDP to {target}"))?;
    for answer in [over_tcp, over_udp] {
        let fits = answer.by == POD && answer.saw.ip() == node;
        check(fits, || format!("{target}: {answer:?}, not seen as {node}"))?;
    }
    Ok(())
}

/// Three times as many as there are ports: they come back as their connections close.
fn in_turn(mode: Mode) -> Result<()> {
    let site = site(mode, &[])?;
    let [four, six] = site.targets(NODE);
    // Who closes first keeps its port for a minute: each is used once.
    let ports = Some(2_000..=61_999);
    for (target, close, ports) in [(four, Close::ByClient, ports), (six, Close::Reset, None)] {
        let load = Load { close, ports, one_source: true, ..Load::new(target, 60_000) };
        let outcome = site.lab.client().load(&load)?;
        let counters = || format!("{target}, {close:?}; {}", site.counters(NODE));
        outcome.all_answered().with_context(counters)?;
    }
    let refused = counted(&site, "no_port")?;
    check(refused == 0, || format!("{refused} found no port"))?;
    let findings = status(&site)?["findings"].to_string();
    check(!findings.contains("source ports"), || format!("closed flows are in use: {findings}"))
}

/// Ports, and how many of them connections hold that live: more than four in five.
const FEW: &str = "10000-10255";
const LIVE: usize = 215;
/// More than there are ports left.
const MORE: usize = 100;

fn run_out(mode: Mode) -> Result<()> {
    let mut site = site(mode, &["--snat-ports", FEW])?;
    for target in site.targets(NODE) {
        let held = Held::open(site.lab.client(), target, LIVE)?;
        is_said(&site, true)?;
        let before = counted(&site, "no_port")?;
        let (mut open, refused) = all_at_once(&site, target)?;
        let left = 256 - LIVE;
        check(open.len() <= left && refused.len() >= MORE - left, || {
            format!("{} of {MORE} got one of {left} ports: {refused:?}", open.len())
        })?;
        // The tries of one packet may all miss the few that are free; those of its repetition seldom do.
        check(open.len() * 2 > left, || format!("{} of {left} ports were found", open.len()))?;
        let after = counted(&site, "no_port")?;
        check(after - before >= refused.len() as u64, || {
            format!("{} were refused, {} counted", refused.len(), after - before)
        })?;
        // Others have ports of their own: UDP, and the other family.
        site.lab.client().get_udp(target)?;
        let other = site.targets(NODE).into_iter().find(|other| *other != target);
        site.lab.client().get(other.context("two families")?)?;
        answers(&mut open)?;
        held.use_all()?;
        drop(open);
        held.close()?.all_kept()?;
        // All have closed by FIN, and their ports are there for others: for more than were left, and
        // few enough that none is asked for twice within a second.
        let load = Load { close: Close::Reset, workers: 2, ..Load::new(target, 120) };
        wait("ports are free again", || site.lab.client().load(&load)?.all_answered())?;
        is_said(&site, false)?;
    }
    let log = site.agents[0].process().log_text();
    let warned = |line: &&str| line.contains("WARN") && line.contains("are in use");
    let said = log.lines().filter(warned).count();
    check(said == 2, || format!("said {said} times: {log}"))
}

/// Waits until `status` names the service that runs short of ports, or none.
fn is_said(site: &Site, is_short: bool) -> Result<()> {
    wait("the status tells of scarce ports", || {
        let status = status(site)?;
        let findings = status["findings"].to_string();
        let named = findings.contains("Service default/web: source ports: most of the 256 ");
        check(named == is_short, || findings.clone())?;
        let ports = status["ports_in_use"][0]["ports"].as_u64().unwrap_or_default();
        check(!is_short || ports >= LIVE as u64, || status["ports_in_use"].to_string())
    })
}

/// Opens connections at the same time; those that came about, and why others did not.
fn all_at_once(site: &Site, target: SocketAddr) -> Result<(Vec<Connection>, Vec<String>)> {
    let client = site.lab.client();
    let source = client.sources(target.ip())[0];
    let all: Vec<_> = thread::scope(|scope| {
        let opening = (0..MORE).map(|_| scope.spawn(|| client.connect(source, target)));
        let opening: Vec<_> = opening.collect();
        opening
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    let (open, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    let refused = refused.into_iter().filter_map(Result::err).map(|error| format!("{error:#}"));
    Ok((open.into_iter().collect::<Result<_>>()?, refused.collect()))
}

/// Few enough ports that connections meet at some of them, and enough for all that come in a second.
const SHARED: &str = "10000-17999";

/// Connections of three kinds from one address and range of ports to one backend: through the nodePort,
/// masqueraded by the node's rules, and of the node's own sockets; many live, and more come and go.
fn beside(mode: Mode) -> Result<()> {
    let site = site(mode, &["--snat-ports", SHARED])?;
    masquerade(&site)?;
    let client = site.lab.client();
    let pod = site.lab.pods().first().context("the lab has a pod")?.address().both();
    let mut exchanged = 0;
    for (target, pod) in site.targets(NODE).into_iter().zip(pod) {
        let backend = SocketAddr::new(pod, 80);
        let ours = Held::open(client, target, 200)?;
        let masqueraded = Held::open(client, backend, 200)?;
        let mut own = own_connections(&site, target.ip(), backend)?;
        let first = answers(&mut own)?;
        let strange = first.iter().find(|answer| answer.saw.ip() != target.ip());
        check(strange.is_none(), || format!("{strange:?} was not seen as the node"))?;
        exchanged += first.iter().filter(|answer| !answer.source_kept()).count();
        thread::scope(|scope| {
            let load = |to| {
                let load = Load { close: Close::Reset, workers: 8, ..Load::new(to, 3_000) };
                client.load(&load)?.all_answered().with_context(|| format!("{to}"))
            };
            let running = [target, backend].map(|to| scope.spawn(move || load(to)));
            for _ in 0..20 {
                let again = answers(&mut own)?;
                let is_same = first.iter().zip(&again).all(|(first, now)| first.saw == now.saw);
                check(is_same, || "the node's own connections changed their ports".to_owned())?;
            }
            running
                .into_iter()
                .try_for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
        .with_context(|| site.counters(NODE))?;
        for held in [ours, masqueraded] {
            held.use_all()?;
            held.close()?.all_kept().with_context(|| site.counters(NODE))?;
        }
    }
    // Of 400 in 8,000 ports, 200 of the node's own meet ten: the backend sees these by others.
    check(exchanged > 0, || "no two connections ever met at a port".to_owned())
}

/// What clients send to pods through the node leaves with its address, by a port of our range.
fn masquerade(site: &Site) -> Result<()> {
    let pod = site.lab.pods().first().context("the lab has a pod")?.address().both();
    for ((family, pod), through) in ["ip", "ip6"].into_iter().zip(pod).zip(site.addresses(NODE)) {
        let rules = format!(
            "add table {family} host\n\
             add chain {family} host leaving {{ type nat hook postrouting priority 100; }}\n\
             add rule {family} host leaving {family} daddr {pod} meta l4proto tcp oifname eth0 \
             masquerade to :{SHARED} fully-random\n"
        );
        site.lab.node(NODE).namespace().capture("nft", &[&rules])?;
        let line = format!("route replace {pod} via {through}");
        site.lab.client().namespace().ip(&[line])?;
    }
    Ok(())
}

/// Connections of the node's own, from two hundred ports of the range.
fn own_connections(site: &Site, node: IpAddr, backend: SocketAddr) -> Result<Vec<Connection>> {
    let open = |port| Connection::open(Some(SocketAddr::new(node, port)), backend);
    let all = || (10_000..10_200).map(open).collect::<Result<Vec<_>>>();
    site.lab.node(NODE).namespace().run(all)?
}
