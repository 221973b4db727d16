//! On which addresses of the node nodePorts are served.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::lab::client::Load;
use xtask::lab::{AgentOptions, Lab, Mode, Process, Topology, server};

use super::Case;
use super::listeners::{listen_as, wait_for};
use super::site::{PORT, Site, ask, check, wait};

pub(crate) const CASES: &[Case] = &[
    ("--nodeport-addresses: by default the others are left to the node's stack", primary),
    ("--nodeport-addresses: those in networks are served as they come and go", networks),
    ("--nodeport-addresses all: every interface's are served as they come and go", all),
];

const NODE: &str = "node1";
/// Addresses that the node has for a while.
const GUESTS: [&str; 2] = ["203.0.113.60", "2001:db8:60::1"];
const NETWORKS: &str = "203.0.113.0/24,2001:db8:60::/48";

/// A lab whose client reaches the guests through the node.
fn site(mode: Mode, value: Option<&str>) -> Result<Site> {
    let topology = Topology::new(2).pods(NODE, &["web-1"]).pods("node2", &["web-2"]);
    let lab = Lab::build(&topology)?;
    lab.keep_flows_together()?;
    let more = value.into_iter().flat_map(|value| ["--nodeport-addresses", value]);
    let more = more.map(str::to_owned).collect();
    // That it serves somewhere is for the cases to wait for.
    let mut site = Site::serve(lab, &[], &AgentOptions::default())?;
    let options = AgentOptions { mode, more, ..AgentOptions::default() };
    site.agents.push(site.lab.start_agent(NODE, &options)?);
    let own = site.addresses(NODE);
    let routes = GUESTS.iter().zip(own).map(|(guest, own)| format!("route add {guest} via {own}"));
    site.lab.client().namespace().ip(&routes.collect::<Vec<_>>())?;
    Ok(site)
}

fn guests() -> [SocketAddr; 2] {
    GUESTS.map(|guest| SocketAddr::new(guest.parse().expect("an address"), PORT))
}

/// Gives the guests to an interface of the node, or takes them away.
fn change(site: &Site, what: &str, interface: &str) -> Result<()> {
    let line = |address: IpAddr| match address {
        IpAddr::V4(_) => format!("address {what} {address}/32 dev {interface}"),
        // Nobody else in the lab has it.
        IpAddr::V6(_) if what == "add" => {
            format!("address add {address}/128 dev {interface} nodad")
        }
        IpAddr::V6(_) => format!("address {what} {address}/128 dev {interface}"),
    };
    site.lab.node(NODE).namespace().ip(&guests().map(|guest| line(guest.ip())))
}

/// Processes of the node, each at one of these addresses.
fn listen(site: &Site, at: [SocketAddr; 2]) -> Result<Vec<Process>> {
    let program = server::program()?;
    at.iter().map(|at| listen_as(site, &program, at.ip())).collect()
}

/// Packets for these reach the node's own stack, and the process that listens there.
fn are_left_to_the_stack(site: &Site, targets: [SocketAddr; 2]) -> Result<()> {
    targets.into_iter().try_for_each(|target| wait_for(site, target, true))
}

/// Both pods answer there, each for half of the connections.
fn are_served(site: &Site, targets: [SocketAddr; 2]) -> Result<()> {
    targets.into_iter().try_for_each(|target| {
        wait_for(site, target, false)?;
        let outcome = site.lab.client().load(&Load::new(target, 400))?;
        outcome.all_answered().with_context(|| target.to_string())?;
        outcome.fair(&["web-1", "web-2"], 0.25)
    })
}

fn are_not_answered(site: &Site, targets: [SocketAddr; 2]) -> Result<()> {
    targets.into_iter().try_for_each(|target| {
        wait(&format!("{target} is served no more"), || {
            let source = site.lab.client().sources(target.ip())[0];
            let got = ask(site, source, target);
            check(got.iter().all(Option::is_some), || format!("{target}: {got:?}"))
        })
    })
}

fn status(site: &Site) -> Result<Value> {
    let status = site.lab.call_agent(NODE, &["status", "-o", "json"])?;
    serde_json::from_str(&status).context("reading the status")
}

/// Waits until `status` says that nodePorts are served on these alone, and what it finds wrong.
fn wait_until_told(site: &Site, expected: &[(IpAddr, &str)], findings: usize) -> Result<()> {
    wait("status says on which addresses nodePorts are served", || {
        let status = status(site)?;
        let told = status["node_addresses"].as_array().cloned().unwrap_or_default();
        let is_told = |(address, why): &(IpAddr, &str)| {
            told.iter().any(|one| one["address"] == address.to_string() && one["why"] == *why)
        };
        let is_right = told.len() == expected.len() && expected.iter().all(is_told);
        check(is_right, || format!("{told:?}, not {expected:?}"))?;
        let found = status["findings"].as_array().cloned().unwrap_or_default();
        let names = |one: &Value| one.to_string().contains("--nodeport-addresses");
        check(found.len() == findings && found.iter().all(names), || format!("{found:?}"))
    })
}

fn primary(mode: Mode) -> Result<()> {
    let site = site(mode, None)?;
    are_served(&site, site.targets(NODE))?;
    change(&site, "add", "lo")?;
    let _processes = listen(&site, guests())?;
    are_left_to_the_stack(&site, guests())?;
    are_served(&site, site.targets(NODE))?;
    wait_until_told(&site, &site.addresses(NODE).map(|own| (own, "primary")), 0)
}

fn networks(mode: Mode) -> Result<()> {
    let mut site = site(mode, Some(NETWORKS))?;
    wait_until_told(&site, &[], 2)?;
    let log = site.agents[0].process().log_text();
    check(log.contains("no IPv4 address of this node is in 203.0.113.0/24"), || log.clone())?;
    let _processes = listen(&site, site.targets(NODE))?;
    are_left_to_the_stack(&site, site.targets(NODE))?;

    change(&site, "add", "lo")?;
    are_served(&site, guests())?;
    let [four, six] = guests().map(|guest| guest.ip());
    let why = ["on lo, in 203.0.113.0/24", "on lo, in 2001:db8:60::/48"];
    wait_until_told(&site, &[(four, why[0]), (six, why[1])], 0)?;
    are_left_to_the_stack(&site, site.targets(NODE))?;

    change(&site, "del", "lo")?;
    are_not_answered(&site, guests())?;
    wait_until_told(&site, &[], 2)
}

fn all(mode: Mode) -> Result<()> {
    let mut site = site(mode, Some("all"))?;
    are_served(&site, site.targets(NODE))?;
    are_not_answered(&site, guests())?;
    change(&site, "add", "eth0")?;
    are_served(&site, guests())?;
    // What comes while the agent is away is served when it is back.
    change(&site, "del", "eth0")?;
    are_not_answered(&site, guests())?;
    change(&site, "add", "eth0")?;
    site.agents[0].restart()?;
    are_served(&site, guests())?;
    are_served(&site, site.targets(NODE))
}
