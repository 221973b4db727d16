//! Ways to the backend, each in namespaces of its own, all up at the same time.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cluster::{self, Service, services};
use super::load::{self, Ends, Flows};
use super::manifests::manifests;
use super::measure::{Measure, Setup, Way};
use super::probe::{Counts, Probe};
use super::{iptables, kube, nftables};
use crate::lab::{Agent, AgentOptions, Line, Mode, Process};

/// Services in one transaction of nft, and in one manifest.
const PER_PIECE: usize = 500;
/// How long a way may take until packets get through.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A way to a backend, ready for packets.
pub(super) struct Candidate {
    /// Which way.
    pub way: Way,
    // Before the line, whose namespaces its process is in.
    _running: Running,
    _line: Line,
    ends: Ends,
    flows: Flows,
}

impl Candidate {
    /// Builds its namespaces, sets it up and waits until packets get through.
    ///
    /// # Errors
    /// If a part of it is refused, or nothing gets through.
    pub(super) fn build(way: Way) -> Result<Self> {
        let line = Line::build(way.place)?;
        line.lab().client().namespace().sysctl("ipv4/ip_local_port_range", "1024 65535")?;
        let services = services(way.services, backend(&line)?);
        let running = set_up(way.setup, &line, &services)?;
        let node = line.node().address().v4;
        let target = SocketAddrV4::new(node, cluster::measured_port(way.services));
        let ends = Ends::new(way.short(), &line, (way.setup != Setup::Routing).then_some(target));
        let flows = Flows::new(line.client_addresses());
        let mut candidate = Self { way, _running: running, _line: line, ends, flows };
        candidate.wait()?;
        Ok(candidate)
    }

    /// One sample of each measure that a probe gives.
    ///
    /// # Errors
    /// If anything sent did not arrive.
    pub(super) fn sample(&mut self, probe: Probe, counts: &Counts) -> Result<Vec<(Measure, f64)>> {
        probe.run(&self.ends, &mut self.flows, counts)
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let udp = load::packets(&self.ends, &mut self.flows, 0, 1, 1);
            let through = udp.and_then(|_| load::connections(&self.ends, 2));
            match through {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("wait until packets get through");
                }
                Err(_) => sleep(Duration::from_millis(200)),
            }
        }
    }
}

fn backend(line: &Line) -> Result<[Ipv4Addr; 2]> {
    line.backend_addresses().try_into().ok().context("the backend has two addresses")
}

/// What must run for as long as packets shall get through.
enum Running {
    /// Nothing: the kernel has all rules.
    Nothing,
    /// Our agent.
    Agent { _agent: Box<Agent> },
    /// kube-proxy and what it needs.
    KubeProxy { _processes: Vec<Process> },
}

fn set_up(setup: Setup, line: &Line, services: &[Service]) -> Result<Running> {
    match setup {
        Setup::Routing => {}
        Setup::Nodeport => {
            let agent = start_agent(line, services)?;
            return Ok(Running::Agent { _agent: Box::new(agent) });
        }
        Setup::Iptables => {
            load_rules(line, "iptables-restore", &[], &iptables::ruleset(services))?;
        }
        Setup::Nftables => {
            let node = line.node().address().v4;
            for piece in nftables::rulesets(services, node, PER_PIECE) {
                load_rules(line, "nft", &["-f"], &piece)?;
            }
        }
        Setup::KubeProxy => {
            return Ok(Running::KubeProxy { _processes: kube::start(line, services)? });
        }
    }
    Ok(Running::Nothing)
}

fn load_rules(line: &Line, program: &str, options: &[&str], text: &str) -> Result<()> {
    let file = line.node().folder().join("rules");
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    let path = file.to_string_lossy();
    line.node().namespace().capture(program, &[options, &[&path]].concat()).map(|_| ())
}

fn start_agent(line: &Line, services: &[Service]) -> Result<Agent> {
    let lab = line.lab();
    lab.apply_nodes()?;
    for (name, text) in manifests(services, line.backend_node(), PER_PIECE) {
        lab.apply(&name, &text)?;
    }
    let last = cluster::FIRST_NODE_PORT + (services.len() as u16).saturating_sub(1);
    let more = [
        ("--node-port-range", format!("{}-{}", cluster::FIRST_NODE_PORT, last)),
        ("--snat-ports", format!("1024-{}", cluster::FIRST_NODE_PORT - 1)),
    ];
    let options = AgentOptions {
        mode: Mode::Tc,
        devices: line.devices(),
        more: more.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect(),
        ..AgentOptions::default()
    };
    lab.start_agent("node1", &options)
}
