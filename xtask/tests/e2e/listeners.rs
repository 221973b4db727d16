//! A process of the node that listens where a service is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::lab::client::{Connection, Load, Transport};
use xtask::lab::{AgentOptions, Lab, Mode, Process, Topology, server};

use super::Case;
use super::site::{PORT, Site, check, wait};

pub(crate) const CASES: &[Case] = &[
    (
        "--host-listeners yield: a port is left at the address that a process listens on",
        one_address,
    ),
    ("--host-listeners yield: kube-proxy's placeholders never get a port", placeholder),
    ("a process that listens on a nodePort: the service wins, and the process is named", served),
    (
        "--host-listeners yield: a process that listens on a nodePort answers there, as long as it does",
        left,
    ),
];

const NODE: &str = "node1";
/// The name that the process answers with.
const HOST: &str = "host";

/// A service with two pods, one of them on the node on which the process listens.
fn site(mode: Mode, options: &[&str]) -> Result<Site> {
    let topology = Topology::new(2).pods(NODE, &["web-1"]).pods("node2", &["web-2"]);
    let lab = Lab::build(&topology)?;
    lab.keep_flows_together()?;
    let more = options.iter().map(|option| (*option).to_owned()).collect();
    Site::serve(lab, &[NODE], &AgentOptions { mode, more, ..AgentOptions::default() })
}

/// A process in the node's own network namespace.
pub(crate) fn listen_as(site: &Site, program: &Path, address: IpAddr) -> Result<Process> {
    let node = site.lab.node(NODE);
    let options = server::Options { name: HOST.to_owned(), port: PORT, address };
    server::start_as(node.namespace(), program, &options, node.folder())
}

/// A process at all of the node's addresses.
fn listen(site: &Site) -> Result<Process> {
    listen_as(site, &server::program()?, Ipv6Addr::UNSPECIFIED.into())
}

/// What `status` says of listeners.
fn told(site: &Site) -> Result<Vec<Value>> {
    let status = site.lab.call_agent(NODE, &["status", "-o", "json"])?;
    let status: Value = serde_json::from_str(&status).context("reading the status")?;
    Ok(status["host_listeners"].as_array().cloned().unwrap_or_default())
}

/// Waits until `status` names this process, for TCP and UDP, and who gets the packets.
fn wait_until_told(site: &Site, process: &Process, outcome: &str) -> Result<()> {
    wait("status names the process", || {
        let told = told(site)?;
        let mut protocols: Vec<_> = told.iter().map(|one| one["protocol"].clone()).collect();
        protocols.sort_by_key(Value::to_string);
        check(protocols == ["TCP", "UDP"], || format!("{told:?}"))?;
        told.iter().try_for_each(|one| {
            let fits = one["process"]["pid"] == process.id()
                && one["process"]["command"] == "xtask"
                && one["port"] == PORT
                && one["service"] == "default/web"
                && one["families"] == serde_json::json!(["IPv4", "IPv6"])
                && one["address"] == "::"
                && one["outcome"] == outcome;
            check(fits, || format!("{one}, not {outcome} of process {}", process.id()))
        })
    })
}

fn wait_until_forgotten(site: &Site) -> Result<()> {
    wait("status names no process any more", || {
        let told = told(site)?;
        check(told.is_empty(), || format!("{told:?}"))
    })
}

/// The service answers everywhere, over TCP and UDP, and nobody else does.
fn all_by_pods(site: &Site) -> Result<()> {
    for target in site.targets(NODE) {
        for transport in [Transport::Tcp, Transport::Udp] {
            let outcome = site.lab.client().load(&Load { transport, ..Load::new(target, 200) })?;
            outcome.all_answered().with_context(|| format!("{transport:?} to {target}"))?;
            outcome.fair(&["web-1", "web-2"], 0.4)?;
        }
    }
    Ok(())
}

/// Who answers a new connection, and a datagram from a new port.
fn answer(site: &Site, target: SocketAddr) -> Result<[String; 2]> {
    let client = site.lab.client();
    Ok([client.get(target)?.by, client.get_udp(target)?.by])
}

fn served(mode: Mode) -> Result<()> {
    let mut site = site(mode, &[])?;
    let process = listen(&site)?;
    wait_until_told(&site, &process, "served")?;
    all_by_pods(&site)?;
    let text = site.lab.call_agent(NODE, &["status"])?;
    check(text.contains("[::]:30007") && text.contains("xtask"), || text.clone())?;
    let log = site.agents[0].process().log_text();
    let line = format!("nodePort {PORT}/TCP (IPv4, IPv6) of Service default/web: xtask (process");
    check(log.matches(&line).count() == 1, || format!("not said once: {log}"))?;
    drop(process);
    wait_until_forgotten(&site)?;
    let log = site.agents[0].process().log_text();
    check(log.contains(&format!("over: {line}")), || format!("not said to be over: {log}"))
}

fn left(mode: Mode) -> Result<()> {
    let mut site = site(mode, &["--host-listeners", "yield"])?;
    let client = site.lab.client().clone();
    let connect = |target: SocketAddr| client.connect(client.sources(target.ip())[0], target);
    let mut open = site.targets(NODE).map(connect).into_iter().collect::<Result<Vec<_>>>()?;
    let pods = answers(&mut open)?;
    let go_on = |open: &mut [Connection]| {
        let now = answers(open)?;
        check(now == pods, || format!("open connections went from {pods:?} to {now:?}"))
    };

    let process = listen(&site)?;
    site.targets(NODE).into_iter().try_for_each(|target| wait_for(&site, target, true))?;
    wait_until_told(&site, &process, "left")?;
    go_on(&mut open)?;

    // A new agent knows at once, and what it finds in the maps goes on.
    site.agents[0].restart()?;
    for target in [site.targets(NODE); 20].concat() {
        let by = answer(&site, target)?;
        check(by.iter().all(|by| by == HOST), || format!("{by:?} answered at {target}"))?;
    }
    go_on(&mut open)?;

    drop(process);
    site.targets(NODE).into_iter().try_for_each(|target| wait_for(&site, target, false))?;
    all_by_pods(&site)?;
    go_on(&mut open)?;
    wait_until_forgotten(&site)
}

/// Who answers on connections that are open.
fn answers(open: &mut [Connection]) -> Result<Vec<String>> {
    open.iter_mut().map(|connection| Ok(connection.ask()?.by)).collect()
}

/// Waits until a new connection and a datagram from a new port are answered by the process, or by
/// pods.
pub(crate) fn wait_for(site: &Site, target: SocketAddr, process: bool) -> Result<()> {
    let who = if process { "the process" } else { "the service" };
    wait(&format!("{who} answers at {target}"), || {
        let by = answer(site, target)?;
        check(by.iter().all(|by| (by == HOST) == process), || format!("{by:?} answered"))
    })
}

fn one_address(mode: Mode) -> Result<()> {
    let site = site(mode, &["--host-listeners", "yield"])?;
    for (own, other) in [(0, 1), (1, 0)] {
        let targets = site.targets(NODE);
        let process = listen_as(&site, &server::program()?, targets[own].ip())?;
        wait_for(&site, targets[own], true)?;
        for _ in 0..20 {
            let by = answer(&site, targets[other])?;
            check(by.iter().all(|by| by != HOST), || {
                format!("{by:?} answered at {}, where nobody listens", targets[other])
            })?;
        }
        drop(process);
        wait_for(&site, targets[own], false)?;
    }
    Ok(())
}

fn placeholder(mode: Mode) -> Result<()> {
    let mut site = site(mode, &["--host-listeners", "yield"])?;
    // A process has the name of the path by which its program was called.
    let program = site.lab.node(NODE).folder().join("kube-proxy");
    std::os::unix::fs::symlink(server::program()?, &program)?;
    let _process = listen_as(&site, &program, Ipv6Addr::UNSPECIFIED.into())?;
    wait("status names the placeholders", || {
        let told = told(&site)?;
        let fits = |one: &Value| {
            one["outcome"] == "placeholder" && one["process"]["command"] == "kube-proxy"
        };
        check(told.len() == 2 && told.iter().all(fits), || format!("{told:?}"))
    })?;
    all_by_pods(&site)?;
    let log = site.agents[0].process().log_text();
    let warned = log.lines().any(|line| line.contains("WARN") && line.contains("kube-proxy"));
    check(!warned, || format!("a warning of what is harmless: {log}"))
}
