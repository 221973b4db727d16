//! Ways to the backend, each in namespaces of its own, all up at the same time.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cluster::{self, Service, services};
use super::load::{self, Ends, Flows};
use super::manifests::manifests;
use super::measure::{Family, Measure, Setup, Stand, Way};
use super::probe::{Counts, Probe};
use super::{iptables, kube, nftables};
use crate::lab::{Agent, AgentOptions, Line, Mode, Pair, retry};

/// Services in one transaction of nft, and in one manifest.
const PER_PIECE: usize = 500;
/// How long a way may take until packets get through.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A way to a backend in one or both families, ready for packets.
pub(super) struct Candidate {
    sides: Vec<Side>,
    // Before the line, whose namespaces its process is in.
    _running: Running,
    _line: Line,
}

/// One family of it.
pub(super) struct Side {
    /// Which way.
    pub way: Way,
    ends: Ends,
    flows: Flows,
}

impl Candidate {
    /// Builds its namespaces, sets it up and waits until packets get through.
    ///
    /// # Errors
    /// If a part of it is refused, or nothing gets through.
    pub(super) fn build(stand: &Stand) -> Result<Self> {
        let line = Line::build(stand.place)?;
        line.lab().client().namespace().sysctl("ipv4/ip_local_port_range", "1024 65535")?;
        let services = services(stand.services, backend(&line)?);
        let running = set_up(stand, &line, &services)?;
        let mut sides: Vec<Side> = stand.ways().map(|way| Side::new(way, &line)).collect();
        sides.iter_mut().try_for_each(Side::wait)?;
        Ok(Self { sides, _running: running, _line: line })
    }

    /// The families that it has.
    pub(super) fn sides(&mut self) -> &mut [Side] {
        &mut self.sides
    }
}

impl Side {
    fn new(way: Way, line: &Line) -> Self {
        let port = (way.setup != Setup::Routing).then(|| cluster::measured_port(way.services));
        let addresses = line.client_addresses().iter().map(|pair| way.family.of(*pair));
        Self { way, ends: Ends::new(way, line, port), flows: Flows::new(addresses.collect()) }
    }

    /// One sample of each measure that a probe gives.
    ///
    /// # Errors
    /// If anything sent did not arrive.
    pub(super) fn sample(&mut self, probe: Probe, counts: &Counts) -> Result<Vec<(Measure, f64)>> {
        probe.run(&self.ends, &mut self.flows, counts)
    }

    fn wait(&mut self) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(200);
        let through = retry(READY_WITHIN, PAUSE, || {
            load::packets(&self.ends, &mut self.flows, 0, 1, 1)?;
            load::connections(&self.ends, 2)
        });
        let what = || format!("wait until packets of {} get through", self.way);
        through.with_context(what).map(|_| ())
    }
}

fn backend(line: &Line) -> Result<[Pair; 2]> {
    line.backend_addresses().try_into().ok().context("the backend has two addresses")
}

/// What must run for as long as packets shall get through.
enum Running {
    /// Nothing: the kernel has all rules.
    Nothing,
    /// Our agent.
    Agent { _agent: Box<Agent> },
    /// kube-proxy and what it needs.
    KubeProxy { _kube: Box<kube::KubeProxy> },
}

fn set_up(stand: &Stand, line: &Line, services: &[Service]) -> Result<Running> {
    let Stand { setup, families, .. } = stand;
    match setup {
        Setup::Routing => {}
        Setup::Nodeport => {
            let agent = start_agent(line, services, families)?;
            return Ok(Running::Agent { _agent: Box::new(agent) });
        }
        Setup::Iptables => {
            for family in families {
                let rules = iptables::ruleset(services, *family);
                load_rules(line, iptables::program(*family), &[], &rules)?;
            }
        }
        Setup::Nftables => {
            let node = line.node().address();
            let rulesets = |family| nftables::rulesets(services, family, node, PER_PIECE);
            for piece in families.iter().flat_map(|family| rulesets(*family)) {
                load_rules(line, "nft", &["-f"], &piece)?;
            }
        }
        Setup::KubeProxy => {
            return Ok(Running::KubeProxy { _kube: Box::new(kube::start(line, services)?) });
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

fn start_agent(line: &Line, services: &[Service], families: &[Family]) -> Result<Agent> {
    let lab = line.lab();
    lab.apply_nodes()?;
    for (name, text) in manifests(services, families, line.backend_node(), PER_PIECE) {
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
