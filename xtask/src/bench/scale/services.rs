//! An agent among many services: how long it takes until all of them are in the maps, and how long
//! a change takes.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nodeport_common::abi::{Frontend, maps};

use super::Options;
use super::api::{Resource, Server};
use super::observe::{self, Maps};
use super::process::{self, Memory};
use super::world::{self, Service};
use crate::lab::{Lab, Process};

/// Pause between two looks at the maps: what is measured is so much too long at most.
const PAUSE: Duration = Duration::from_micros(100);
/// How long the agent may take until all is in the maps, and how long a change may.
pub(super) const SYNC_LIMIT: Duration = Duration::from_secs(300);
const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// A pause after the first sync, in which what follows it settles.
const SETTLE: Duration = Duration::from_secs(2);

/// What one round with one number of services came to.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// From the start of the agent's process until all is in the maps.
    pub first_sync: Duration,
    /// From the start until the programs are attached too, as the agent says.
    pub first_served: Duration,
    /// Part of the first behind the last answer to a list.
    pub after_list: Duration,
    /// Part of it until the maps had been made.
    pub until_maps: Duration,
    /// Processor time of the agent until all was in the maps.
    pub first_cpu: Duration,
    /// From each change until it is in the maps, sorted.
    pub changes: Vec<Duration>,
    /// Changes that were asked for in each second, as it came out.
    pub rate: f64,
    /// Writes to maps for each change; none if the agent did not tell.
    pub writes_per_change: f64,
    /// Processor time of the agent for each change.
    pub cpu_per_change: Duration,
    /// Processor time of the agent in the time of the changes, as a part of one processor.
    pub cpu_share: f64,
    /// Memory of the agent at the end.
    pub memory: Memory,
    /// Bytes of all maps of services, of which the flows' are not a part.
    pub map_bytes: u64,
}

/// The maps that grow with services, and those of a fixed size beside them.
const SERVICE_MAPS: [&str; 7] = [
    maps::FRONTENDS4,
    maps::FRONTENDS6,
    maps::BACKENDS4,
    maps::BACKENDS6,
    maps::SLOTS,
    maps::SERVICE_STATS,
    maps::PORTS,
];

/// One round on the lab's only node: the agent is started, fed, observed and removed again.
pub(super) fn round(lab: &Lab, options: &Options, count: u32) -> Result<Round> {
    let stage = Stage::new(lab, options.endpoints, count)?;
    let outcome = stage.measure(options);
    let cleaned = lab.call_agent(NODE, &["cleanup"]).map(|_| ());
    let outcome = outcome?;
    cleaned?;
    Ok(outcome)
}

/// What the agent says when its programs are attached and the maps hold all that was listed.
pub(super) const READY: &str = "serving: the maps follow";
/// The lab's only node.
pub(super) const NODE: &str = "node1";

pub(super) struct Stage<'a> {
    lab: &'a Lab,
    server: Server,
    services: Vec<Service>,
    folder: PathBuf,
    address: Ipv4Addr,
    kubeconfig: PathBuf,
}

impl<'a> Stage<'a> {
    /// A node and an API server with so many services, without an agent yet.
    pub(super) fn new(lab: &'a Lab, endpoints: u32, count: u32) -> Result<Self> {
        let node = lab.node(NODE);
        let (server, address) = (Server::start(node.namespace())?, node.address().v4);
        let services: Vec<_> = (0..count).map(|number| Service::new(number, endpoints)).collect();
        server.put(Resource::Nodes, NODE, |version| world::node(NODE, address, version));
        for service in &services {
            server.put(Resource::Services, &service.name(), |version| service.object(version));
            server.put(Resource::Slices, &service.slice_name(), |version| service.slice(version));
        }
        let kubeconfig = node.folder().join("kubeconfig");
        server.write_kubeconfig(&kubeconfig)?;
        Ok(Self { lab, server, services, folder: observe::folder(node), address, kubeconfig })
    }

    /// Starts the agent, with these options beside the usual ones.
    pub(super) fn launch(&self, more: &[String]) -> Result<Process> {
        let arguments = [self.arguments(), more.to_vec()].concat();
        self.lab.launch_agent(NODE, &arguments, "agent-scale.log")
    }

    /// Where the agent pins its maps.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn measure(mut self, options: &Options) -> Result<Round> {
        let start = Instant::now();
        let mut agent = self.launch(&[])?;
        let outcome = self.observe(options, &mut agent, start);
        let said = || format!("the agent said:\n{}", agent.log_text());
        outcome.with_context(said)
    }

    fn arguments(&self) -> Vec<String> {
        let (first, last) = (world::FIRST_PORT, world::FIRST_PORT + world::MOST_SERVICES as u16);
        let kubeconfig = self.kubeconfig.display().to_string();
        let range = format!("{first}-{last}");
        ["run", "--kubeconfig", &kubeconfig, "--node-name", NODE, "--devices", "eth0"]
            .into_iter()
            .chain(["--node-port-range", &range])
            .map(str::to_owned)
            .collect()
    }

    fn observe(&mut self, options: &Options, agent: &mut Process, start: Instant) -> Result<Round> {
        let maps = self.wait_for_maps(agent)?;
        let until_maps = start.elapsed();
        self.wait_for_all(&maps, agent)?;
        let end = Instant::now();
        let first_cpu = process::cpu(agent.id())?;
        let listed = self.server.listed().context("the agent has asked for no list")?;
        agent.wait_for(READY, SYNC_LIMIT)?;
        let first_served = start.elapsed();
        for service in &self.services {
            maps.check(service)?;
        }
        sleep(SETTLE);
        let changes = self.churn(&maps, options, agent)?;
        for service in &self.services {
            maps.check(service).context("after all changes")?;
        }
        Ok(Round {
            first_sync: end - start,
            first_served,
            after_list: end.saturating_duration_since(listed),
            until_maps,
            first_cpu,
            rate: changes.rate,
            writes_per_change: changes.writes,
            cpu_per_change: changes.cpu / options.changes(),
            cpu_share: changes.cpu.as_secs_f64() / changes.took.as_secs_f64(),
            changes: changes.latencies,
            memory: process::memory(agent.id())?,
            map_bytes: observe::memory(&self.folder, &SERVICE_MAPS)?,
        })
    }

    fn wait_for_maps(&self, agent: &mut Process) -> Result<Maps> {
        let deadline = Instant::now() + SYNC_LIMIT;
        loop {
            if let Some(maps) = Maps::open(&self.folder)? {
                return Ok(maps);
            }
            ensure!(agent.is_running(), "the agent has ended");
            ensure!(Instant::now() < deadline, "no maps after {SYNC_LIMIT:?}");
            sleep(PAUSE);
        }
    }

    /// Waits until every service has its frontend, and the node's address is served: the agent
    /// writes a frontend behind its slots and its backends, and the address behind all of them.
    fn wait_for_all(&self, maps: &Maps, agent: &mut Process) -> Result<()> {
        let deadline = Instant::now() + SYNC_LIMIT;
        let mut missing: Vec<u16> = self.services.iter().map(Service::port).collect();
        loop {
            // Each look ends at the first that is missing, so all looks together are few.
            while missing.pop_if(|port| maps.frontend(*port).is_some()).is_some() {}
            if missing.is_empty() && maps.serves_on(self.address) {
                return Ok(());
            }
            ensure!(agent.is_running(), "the agent has ended");
            ensure!(
                Instant::now() < deadline,
                "{} services are missing after {SYNC_LIMIT:?}",
                missing.len()
            );
            sleep(PAUSE);
        }
    }
}

/// What the changes came to.
struct Changes {
    latencies: Vec<Duration>,
    rate: f64,
    took: Duration,
    cpu: Duration,
    writes: f64,
}

/// A change that is under way.
struct Pending {
    /// Index of the service.
    service: usize,
    /// Its number.
    change: u32,
    /// When the API server took it in.
    at: Instant,
}

impl Stage<'_> {
    fn churn(&mut self, maps: &Maps, options: &Options, agent: &mut Process) -> Result<Changes> {
        let (cpu, writes) = (process::cpu(agent.id())?, self.writes()?);
        let ports: Vec<u16> = self.services.iter().map(Service::port).collect();
        let pending = Mutex::new(Vec::new());
        let start = Instant::now();
        let (fed, latencies) = thread::scope(|scope| {
            let feeder = scope.spawn(|| feed(&mut self.services, &self.server, options, &pending));
            let latencies = watch(maps, &ports, options.changes(), &pending);
            (feeder.join(), latencies)
        });
        let fed = fed.map_err(|_| anyhow::anyhow!("the thread that makes changes has panicked"))?;
        let (latencies, took) = (latencies?, start.elapsed());
        let cpu = process::cpu(agent.id())? - cpu;
        let writes = self.settled_writes()? - writes;
        Ok(Changes {
            latencies,
            rate: f64::from(options.changes()) / fed.as_secs_f64(),
            took,
            cpu,
            writes: writes as f64 / f64::from(options.changes()),
        })
    }

    /// Writes to maps that the agent has counted.
    fn writes(&self) -> Result<u64> {
        let text = self.lab.call_agent(NODE, &["status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&text).context("status")?;
        status["map_writes"].as_u64().context("status tells no map_writes")
    }

    /// The same once it has stopped to grow: what other commands are told is told a moment later.
    fn settled_writes(&self) -> Result<u64> {
        let mut last = self.writes()?;
        for _ in 0..20 {
            sleep(SETTLE);
            let now = self.writes()?;
            if now == last {
                break;
            }
            last = now;
        }
        Ok(last)
    }
}

/// Makes the changes, each at its time; returns how long that took.
fn feed(
    services: &mut [Service],
    server: &Server,
    options: &Options,
    pending: &Mutex<Vec<Pending>>,
) -> Duration {
    let start = Instant::now();
    for change in 0..options.changes() {
        let due = start + Duration::from_secs_f64(f64::from(change) / f64::from(options.rate));
        sleep(due.saturating_duration_since(Instant::now()));
        // A stride that has no factor in common with any number of services up to its own size.
        let service = (u64::from(change) * 1_000_003 % services.len() as u64) as usize;
        let Some(changed) = services.get_mut(service) else { continue };
        changed.replace_one(change);
        let (name, at) = (changed.slice_name(), Instant::now());
        pending.lock().unwrap_or_else(PoisonError::into_inner).push(Pending {
            service,
            change,
            at,
        });
        server.put(Resource::Slices, &name, |version| changed.slice(version));
    }
    start.elapsed()
}

/// Waits for all changes to be in the maps, and notes how long each took.
fn watch(
    maps: &Maps,
    ports: &[u16],
    count: u32,
    pending: &Mutex<Vec<Pending>>,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(count as usize);
    let mut known: Vec<Option<Frontend>> = ports.iter().map(|port| maps.frontend(*port)).collect();
    let mut waiting: Vec<Pending> = Vec::new();
    let mut last = Instant::now();
    while latencies.len() < count as usize {
        waiting.append(&mut pending.lock().unwrap_or_else(PoisonError::into_inner));
        let before = latencies.len();
        for place in changed(maps, ports, &mut known, &waiting) {
            let newest = newest_change(maps, ports[place])?;
            let now = Instant::now();
            waiting.retain(|one| {
                let is_there = one.service == place && newest >= Some(one.change);
                if is_there {
                    latencies.push(now - one.at);
                }
                !is_there
            });
        }
        if latencies.len() > before {
            last = Instant::now();
        }
        ensure!(last.elapsed() < CHANGE_LIMIT, "{} changes do not come", waiting.len());
        sleep(PAUSE);
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// Services that are waited for, and whose frontends have been switched.
fn changed(
    maps: &Maps,
    ports: &[u16],
    known: &mut [Option<Frontend>],
    waiting: &[Pending],
) -> Vec<usize> {
    let mut places: Vec<usize> = waiting.iter().map(|one| one.service).collect();
    places.sort_unstable();
    places.dedup();
    places.retain(|place| {
        let now = maps.frontend(ports[*place]);
        now.is_some() && std::mem::replace(&mut known[*place], now) != now
    });
    places
}

/// The last change that the endpoints of a service show. While they are read they may change once
/// more, so that parts of two tables are seen: then they are read again.
fn newest_change(maps: &Maps, port: u16) -> Result<Option<u32>> {
    const TRIES: u32 = 100;
    for _ in 0..TRIES {
        let Some(frontend) = maps.frontend(port) else { continue };
        let endpoints = maps.endpoints(frontend);
        if maps.frontend(port) == Some(frontend) {
            return Ok(endpoints?.into_iter().filter_map(world::change_of).max());
        }
    }
    anyhow::bail!("the frontend at port {port} changes faster than it can be read")
}
