//! What becomes of flows when the pods behind a service change.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use xtask::lab::client::Connection;
use xtask::lab::manifests::Slices;
use xtask::lab::{AgentOptions, Lab, Mode, Pod, Topology, stray};

use super::Case;
use super::site::{PORT, Site, check, wait};

pub(crate) const CASES: &[Case] = &[
    (
        "a connection to a pod that ends goes on, to one that is gone it is reset at its next packet",
        connections,
    ),
    ("a UDP flow leaves a pod that is gone at its next packet", datagrams),
    ("a stray reset ends no connection, and one that closes it ends its flow early", resets),
    ("sessionAffinity that is switched off and on again knows nobody", affinity_again),
];

const PORTS: &[(&str, &str)] = &[("http", "TCP"), ("echo", "UDP")];

fn site(mode: Mode) -> Result<Site> {
    Site::new(&Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2"]), mode)
}

/// The pods that are endpoints of the service, all ready.
fn offer(site: &Site, is_behind: impl Fn(&Pod) -> bool) -> Result<()> {
    let pods: Vec<_> =
        site.lab.pods().iter().filter(|pod| is_behind(pod)).map(|pod| (pod, true)).collect();
    site.lab.apply_slices(&Slices { service: "web", ports: PORTS, pods: &pods })
}

/// The first of the client's addresses of that family.
fn source(site: &Site, target: SocketAddr) -> IpAddr {
    site.lab.client().sources(target.ip())[0]
}

/// A connection through the first node to that pod.
fn connected_to(site: &Site, target: SocketAddr, pod: &str) -> Result<Connection> {
    for _ in 0..200 {
        let mut connection = site.lab.client().connect(source(site, target), target)?;
        if connection.ask()?.by == pod {
            return Ok(connection);
        }
    }
    anyhow::bail!("200 connections to {target}, none to {pod}")
}

fn kind(error: &anyhow::Error) -> Option<ErrorKind> {
    error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
}

/// The pods themselves go on all the while: what they still have to say does not matter.
fn connections(mode: Mode) -> Result<()> {
    let site = site(mode)?;
    for target in site.targets("node1") {
        for gone in ["web-1", "web-2"] {
            let other = if gone == "web-1" { "web-2" } else { "web-1" };
            let mut connection = connected_to(&site, target, gone)?;
            let mut stays = connected_to(&site, target, other)?;
            site.offer(|pod| pod.name() != gone)?;
            site.wait_for_pods(target, &[other])?;
            let by = connection.ask().context("to a pod that ends")?.by;
            check(by == gone, || format!("{target}: {by} answered, not {gone}"))?;
            offer(&site, |pod| pod.name() != gone)?;
            let reset = || {
                let answer = connected_to(&site, target, other)?.ask()?;
                check(answer.by == other, || format!("{target}: {} answered", answer.by))
            };
            wait("new connections", reset)?;
            // What tells that the agent has written it is the reset itself: it may be asked again.
            let mut told = None;
            for _ in 0..100 {
                match connection.ask() {
                    Ok(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
                    Err(error) => {
                        told = kind(&error);
                        break;
                    }
                }
            }
            check(told == Some(ErrorKind::ConnectionReset), || {
                format!("{target}, {gone} is gone: {told:?}; {}", site.counters("node1"))
            })?;
            stays.ask().with_context(|| format!("the connection to {other}"))?;
            let counters = site.counters("node1");
            check(counters.contains("connection_reset"), || format!("not counted: {counters}"))?;
            offer(&site, |_| true)?;
            site.wait_for_pods(target, &[gone, other])?;
        }
    }
    Ok(())
}

fn datagrams(mode: Mode) -> Result<()> {
    let site = site(mode)?;
    for target in site.targets("node1") {
        let flows: Vec<_> = (0..16)
            .map(|_| site.lab.client().datagrams(source(&site, target), target))
            .collect::<Result<_>>()?;
        let asked = || -> Result<BTreeSet<String>> {
            flows.iter().map(|flow| Ok(flow.ask(b"who")?.by)).collect()
        };
        for gone in ["web-1", "web-2"] {
            let other = if gone == "web-1" { "web-2" } else { "web-1" };
            let before = asked()?;
            check(before.contains(gone), || format!("{target}: only {before:?} before"))?;
            offer(&site, |pod| pod.name() != gone)?;
            wait(&format!("all leave {gone}"), || {
                let by = asked()?;
                check(by.len() == 1 && by.contains(other), || format!("{target}: {by:?}"))
            })?;
            offer(&site, |_| true)?;
            site.wait_for_pods(target, &[gone, other])?;
        }
    }
    Ok(())
}

/// States of the flow of that client at a node.
fn states(site: &Site, client: SocketAddr) -> Result<Vec<String>> {
    let text = site.lab.call_agent("node1", &["flows", "-o", "json"])?;
    let flows: Vec<serde_json::Value> = serde_json::from_str(&text).context("flows -o json")?;
    let client = client.to_string();
    let of_client = flows.iter().filter(|flow| flow["client"] == client);
    Ok(of_client.map(|flow| flow["state"].as_str().unwrap_or("?").to_owned()).collect())
}

fn resets(mode: Mode) -> Result<()> {
    let topology = Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2"]);
    let lab = Lab::build(&topology)?;
    lab.keep_flows_together()?;
    let more = vec!["--tcp-closed-timeout=2s".to_owned()];
    let options = AgentOptions { mode, more, ..AgentOptions::default() };
    let site = Site::serve(lab, &["node1", "node2"], &options)?;
    for target in site.targets("node1") {
        for pod in ["web-1", "web-2"] {
            let mut connection = connected_to(&site, target, pod)?;
            let client = connection.local();
            stray::reset(site.lab.client().namespace(), client, target, 0x1234_5678)?;
            wait(&format!("the reset of {client}"), || {
                let states = states(&site, client)?;
                check(states == ["reset"], || format!("{client} to {target}: {states:?}"))
            })?;
            for _ in 0..3 {
                let by = connection.ask().context("after a stray reset")?.by;
                check(by == pod, || format!("{client} to {target}: {by} answered, not {pod}"))?;
            }
            let doubted = states(&site, client)?;
            check(doubted == ["doubted"], || format!("{client} to {target}: {doubted:?}"))?;
            connection.ask_and_reset()?;
            wait(&format!("the end of {client}"), || {
                let states = states(&site, client)?;
                check(states.is_empty(), || format!("{client} to {target}: {states:?}"))
            })?;
        }
    }
    Ok(())
}

/// The service that every site has, with or without affinity.
fn service(affinity: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: NodePort\n  \
         sessionAffinity: {affinity}\n  ports:\n    \
         - {{name: http, port: 80, nodePort: {PORT}, protocol: TCP}}\n    \
         - {{name: echo, port: 80, nodePort: {PORT}, protocol: UDP}}\n"
    )
}

/// Which pods answer the client's addresses, each of which has one alone.
fn known(site: &Site, target: SocketAddr) -> Result<BTreeSet<String>> {
    let mut pods = BTreeSet::new();
    for source in site.lab.client().sources(target.ip()) {
        let mut own = BTreeSet::new();
        for _ in 0..12 {
            own.insert(site.lab.client().connect(source, target)?.ask_and_close()?.by);
        }
        check(own.len() == 1, || format!("{source} to {target}: {own:?}"))?;
        pods.append(&mut own);
    }
    Ok(pods)
}

/// Waits until every row of the node's services has so many endpoints and this affinity.
fn in_force(site: &Site, pods: usize, seconds: u32) -> Result<()> {
    wait(&format!("{pods} pods, affinity {seconds} s"), || {
        let text = site.lab.call_agent("node1", &["services", "-o", "json"])?;
        let rows: serde_json::Value = serde_json::from_str(&text).context("services -o json")?;
        let rows = rows.as_array().context("no list of services")?;
        let is_so = |row: &serde_json::Value| {
            row["usable_backends"] == pods && row["affinity_seconds"] == seconds
        };
        check(rows.len() == 4 && rows.iter().all(is_so), || text.clone())
    })
}

/// All clients have one pod, since there was no other; when affinity comes back they are spread.
fn affinity_again(mode: Mode) -> Result<()> {
    let site = site(mode)?;
    for target in site.targets("node1") {
        offer(&site, |pod| pod.name() == "web-1")?;
        site.lab.apply("web", &service("ClientIP"))?;
        in_force(&site, 1, 10_800)?;
        known(&site, target)?;
        offer(&site, |_| true)?;
        in_force(&site, 2, 10_800)?;
        let pods = known(&site, target)?;
        check(pods.iter().eq(["web-1"]), || format!("{target}: known at web-1, now {pods:?}"))?;
        site.lab.apply("web", &service("None"))?;
        in_force(&site, 2, 0)?;
        check(known(&site, target).is_err(), || format!("{target}: still known"))?;
        site.lab.apply("web", &service("ClientIP"))?;
        in_force(&site, 2, 10_800)?;
        let pods = known(&site, target)?;
        check(pods.len() == 2, || format!("{target}: all are at {pods:?} again"))?;
        site.lab.apply("web", &service("None"))?;
        in_force(&site, 2, 0)?;
    }
    Ok(())
}
