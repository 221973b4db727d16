//! How long planning takes, alone and on one processor: everything from nothing, and one endpoint's
//! change among many services. Prints JSON; `cargo xtask bench scale` runs it.
//!
//! Objects are read before the clock starts. What a change costs beside its planning, from the API
//! server's words to the write, is in the figures of `bench scale` that watch an agent.

use std::error::Error;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use nodeport_agent::config::{Networks, PortRange, Serves, SourceRanges};
use nodeport_agent::model::{Entry, Model, Name, Node, Origin, RawSlice, Rules, Service, Slice};
use nodeport_agent::plan::{Held, Planner, Settings, Update};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Deserialize as _;
use serde_json::json;

/// The node that is planned for.
const NODE: &str = "n1";
/// The first nodePort.
const FIRST_PORT: u16 = 20_000;

#[derive(Parser)]
struct Options {
    /// Number of services.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=40_000))]
    services: u16,
    /// Endpoints of each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    endpoints: u32,
    /// How many times everything is planned from nothing.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Changes that follow in each round.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changes: u32,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    stay_on_one_processor()?;
    let model = model(&options)?;
    let rounds: Vec<_> =
        (0..options.rounds).map(|_| round(&model, &options)).collect::<Result<_, _>>()?;
    println!("{}", json!({ "rounds": rounds }));
    Ok(())
}

fn round(model: &Model, options: &Options) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut planner = Planner::new(settings());
    let update = Update { node: model.node.clone(), entries: model.entries.clone() };
    let start = Instant::now();
    let changed = black_box(planner.update(update));
    let first = start.elapsed();
    if changed.groups.len() != usize::from(options.services) {
        return Err(format!("{} groups were planned", changed.groups.len()).into());
    }
    let mut times = Vec::with_capacity(options.changes as usize);
    for change in 0..options.changes {
        let number = (u64::from(change) * 1_000_003 % u64::from(options.services)) as u16;
        let slice = slice(number, options.endpoints, Some(change))?;
        let (took, groups) = follow(&mut planner, model, number, slice);
        if groups != 1 {
            return Err(format!("one endpoint's change changed {groups} groups").into());
        }
        times.push(took);
    }
    times.sort_unstable();
    let micros = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e6;
    Ok(
        json!({ "first_ms": first.as_secs_f64() * 1e3, "change_p50_us": micros(50), "change_p99_us": micros(99) }),
    )
}

/// Plans a changed slice; returns how long that took and how many groups it changed.
fn follow(planner: &mut Planner, model: &Model, number: u16, slice: Slice) -> (Duration, usize) {
    let name = name(number);
    let service = model.entries.get(&name).and_then(|entry| entry.service.clone());
    let entry = Entry { service, slices: vec![Arc::new(slice)] };
    let entries = [(name, entry)].into_iter().collect();
    let update = Update { node: model.node.clone(), entries };
    let start = Instant::now();
    let changed = black_box(planner.update(update));
    (start.elapsed(), changed.groups.len())
}

fn settings() -> Settings {
    Settings {
        node_name: NODE.into(),
        source_ranges: SourceRanges::LoadBalancer,
        held: Held::default(),
    }
}

fn model(options: &Options) -> Result<Model, Box<dyn Error>> {
    let serves = Serves {
        cluster_ips: false,
        load_balancer_ips: Networks::all(),
        external_ips: Networks::none(),
        source_ranges: SourceRanges::LoadBalancer,
    };
    let rules = Rules { node_ports: PortRange::new(FIRST_PORT, u16::MAX)?, serves };
    let address = json!({ "type": "InternalIP", "address": "192.0.2.1" });
    let node = json!({ "metadata": { "name": NODE }, "status": { "addresses": [address] } });
    let mut model = Model {
        node: Some(Arc::new(Node::new(&serde_json::from_value(node)?, Origin::Api))),
        ..Model::default()
    };
    for number in 0..options.services {
        let port = json!({ "name": "http", "port": 80, "nodePort": FIRST_PORT + number });
        let service = json!({
            "metadata": { "name": &*name(number).name, "uid": number.to_string() },
            "spec": { "type": "NodePort", "ports": [port] },
        });
        let service = Service::new(&serde_json::from_value(service)?, Origin::Api, &rules);
        let slices = vec![Arc::new(slice(number, options.endpoints, None)?)];
        model.entries.insert(name(number), Entry { service: Some(Arc::new(service)), slices });
    }
    Ok(model)
}

fn name(number: u16) -> Name {
    Name::new("default", &format!("service-{number:05}"))
}

/// A service's slice; after a change its first endpoint is another than before.
fn slice(number: u16, endpoints: u32, change: Option<u32>) -> Result<Slice, Box<dyn Error>> {
    let endpoint = |index: u32| {
        let address = match change.filter(|_| index == 0) {
            Some(change) => (12 << 24) + change,
            None => (11 << 24) + u32::from(number) * endpoints + index,
        };
        json!({ "addresses": [Ipv4Addr::from_bits(address).to_string()], "nodeName": format!("n{}", index % 5),
                "conditions": { "ready": true } })
    };
    let service = &*name(number).name;
    let object = json!({
        "metadata": { "name": format!("{service}-x7k2p"), "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
    });
    Ok(Slice::new(&RawSlice::deserialize(&object)?, Origin::Api))
}

/// The planner uses as many processors as it may.
fn stay_on_one_processor() -> Result<(), Box<dyn Error>> {
    let may = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| may.is_set(*cpu)).ok_or("no processor")?;
    let mut one = CpuSet::new();
    one.set(last);
    Ok(sched_setaffinity(None, &one)?)
}
