//! Very many live flows: the memory that they take, how long a sweep through them takes and its
//! longest step, and how long it takes to list them.
//!
//! The flows are stored by the benchmark's program in the tables of a running agent, which its
//! own programs read. Then the agent is asked for them, and ended; and its program that ends silent
//! flows is run over them, in steps as the agent makes them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nodeport_common::abi::{Addr4, BACKEND_USABLE, Backend, SWEEP_ANY_USED, maps};

use super::Options;
use super::observe;
use super::process;
use super::report::{Figure, mib, ms};
use super::services::{NODE, READY, SYNC_LIMIT, Stage};
use crate::bench::runner::XDP_TX;
use crate::lab::Lab;
use crate::workspace;

/// Backends that the benchmark's flows go to: those of the indices below this, of generation 1.
const BACKENDS: u32 = 16;
/// Element of the programs' configuration (`nodeport-ebpf/src/bench/fresh.rs`).
const MASK: u32 = 0;
const PORT: u32 = 1;
/// Entries that the agent has looked at in a step (`nodeport-agent/src/dataplane/expiry/sweep.rs`).
const STEP: u32 = 4_096;
/// The maps that hold IPv4 flows.
const TABLES: [&str; 3] = [maps::FLOWS4, maps::DETAILS4, maps::INDEX4];

/// Measures on the lab's only node.
pub(super) fn measure(lab: &Lab, options: &Options) -> Result<Vec<Figure>> {
    ensure!(options.flows.is_power_of_two(), "--flows {}: not a power of two", options.flows);
    let outcome = measure_here(lab, options);
    let cleaned = lab.call_agent(NODE, &["cleanup"]).map(|_| ());
    let figures = outcome?;
    cleaned?;
    Ok(figures)
}

fn measure_here(lab: &Lab, options: &Options) -> Result<Vec<Figure>> {
    // The agent gives out the indices from 1 on, with generation 1.
    let stage = Stage::new(lab, BACKENDS - 1, 1)?;
    let more = ["--max-flows".to_owned(), options.flows.to_string()];
    let mut agent = stage.launch(&more)?;
    agent.wait_for(READY, SYNC_LIMIT)?;
    let before = process::memory(agent.id())?;
    fill(stage.folder(), options.flows)?;
    let list = list(lab, options, &["flows"])?;
    let json = list_json(lab, options)?;
    let after = process::memory(agent.id())?;
    agent.kill();
    let bytes = observe::memory(stage.folder(), &TABLES)?;
    let mut sweeper = Sweeper::load(stage.folder())?;
    let sweeps = (0..options.rounds).map(|_| sweeper.sweep(options.flows, u32::MAX >> 1));
    let sweeps: Vec<Sweep> = sweeps.collect::<Result<_>>()?;
    for sweep in &sweeps {
        ensure!(sweep.ended == 0, "a sweep has ended {} live flows", sweep.ended);
    }
    let last = sweeper.sweep(options.flows, 0)?;
    ensure_all("a sweep has ended", last.ended, options.flows)?;
    let figure = |name, unit, samples| Figure::new(name, ("flows", options.flows), unit, samples);
    let of = |sweeps: &[Sweep], value: fn(&Sweep) -> Duration| {
        sweeps.iter().map(|sweep| ms(value(sweep))).collect()
    };
    let ending = [last];
    Ok(vec![
        figure("list-flows", "ms", list),
        figure("list-flows-json", "ms", json),
        figure("sweep", "ms", of(&sweeps, |sweep| sweep.took)),
        figure("sweep-longest-step", "ms", of(&sweeps, |sweep| sweep.longest)),
        figure("sweep-that-ends-all", "ms", of(&ending, |sweep| sweep.took)),
        figure("sweep-that-ends-all-longest-step", "ms", of(&ending, |sweep| sweep.longest)),
        figure("bytes-per-flow", "B", vec![bytes as f64 / f64::from(options.flows)]),
        figure("flow-tables", "MiB", vec![mib(bytes)]),
        figure("agent-memory", "MiB", vec![mib(after.own.max(before.own))]),
    ])
}

/// Of so many flows one may be without a place: all lines of the index that it could be in are
/// full, and the newcomer among them goes.
const HOMELESS: u32 = 100_000;

fn ensure_all(what: &str, found: u32, flows: u32) -> Result<()> {
    let least = flows - flows.div_ceil(HOMELESS);
    ensure!((least..=flows).contains(&found), "{what} {found} of {flows} flows");
    Ok(())
}

/// Stores the flows in the agent's tables.
fn fill(folder: &Path, flows: u32) -> Result<()> {
    let mut ebpf = load(&workspace::bench_object(), folder, flows * 2)?;
    let config = ebpf.map_mut("bench_config").context("bench_config: no such map")?;
    let mut config: Array<_, u64> = Array::try_from(config)?;
    config.set(MASK, u64::from(flows) - 1, 0).context("write bench_config")?;
    config.set(PORT, u64::from(super::world::FIRST_PORT), 0).context("write bench_config")?;
    let backends = ebpf.map_mut(maps::BACKENDS4).context("backends4: no such map")?;
    let mut backends: Array<_, [u8; size_of::<Backend<Addr4>>()]> = Array::try_from(backends)?;
    // Index 0 is nobody's for the agent, and the first backend of the benchmark's flows.
    let mut first = backends.get(&1, 0).context("read backend 1")?;
    ensure!(first[7] == BACKEND_USABLE, "the agent has not made backend 1");
    first[3] = u8::MAX;
    backends.set(0, first, 0).context("write backend 0")?;
    let program = ebpf.program_mut("fill4").context("fill4: no such program")?;
    let program: &mut Xdp = program.try_into()?;
    program.load().context("load fill4")?;
    let (verdict, _) = run(program, &[0; 64], flows)?;
    ensure!(verdict == XDP_TX, "fill4: verdict {verdict}: a flow could not be stored");
    Ok(())
}

/// Loads an object over the maps that are pinned in the folder.
fn load(object: &Path, folder: &Path, look_ups: u32) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for name in maps::ALL {
        loader.map_pin_path(name, folder.join(name));
    }
    loader.map_max_entries("lookup4", look_ups);
    loader.load_file(object).with_context(|| format!("load {}", object.display()))
}

fn run(program: &Xdp, data: &[u8], repeat: u32) -> Result<(u32, Duration)> {
    let mut out = vec![0; data.len() + 256];
    let options = TestRunOptions {
        data_in: Some(data),
        data_out: Some(&mut out),
        repeat,
        ..TestRunOptions::new()
    };
    let start = Instant::now();
    let result = program.test_run(options).context("run a program")?;
    Ok((result.return_value, start.elapsed()))
}

/// Milliseconds that listing all flows took, in each round.
fn list(lab: &Lab, options: &Options, arguments: &[&str]) -> Result<Vec<f64>> {
    let file = lab.node(NODE).folder().join("flows.txt");
    let mut samples = Vec::new();
    for _ in 0..options.rounds {
        samples.push(ms(list_once(lab, arguments, &file)?));
        let lines = BufReader::new(File::open(&file)?).split(b'\n').count();
        // The first line has the titles.
        ensure_all("`flows` has listed", lines.saturating_sub(1) as u32, options.flows)?;
    }
    fs::remove_file(&file).context("remove the list of flows")?;
    Ok(samples)
}

fn list_json(lab: &Lab, options: &Options) -> Result<Vec<f64>> {
    let file = lab.node(NODE).folder().join("flows.json");
    let mut samples = Vec::new();
    for _ in 0..options.rounds {
        samples.push(ms(list_once(lab, &["flows", "-o", "json"], &file)?));
        let mut lines = BufReader::new(File::open(&file)?).lines();
        let clients = lines.try_fold(0u32, |count, line| {
            line.map(|line| count + u32::from(line.contains("\"client\":")))
        })?;
        ensure_all("`flows -o json` has listed", clients, options.flows)?;
    }
    fs::remove_file(&file).context("remove the list of flows")?;
    Ok(samples)
}

/// From the start of the command to its end.
fn list_once(lab: &Lab, arguments: &[&str], file: &Path) -> Result<Duration> {
    let call = lab.agent_call(NODE)?;
    let mut words = call.split_whitespace();
    let mut command = Command::new(words.next().context("the agent's call is empty")?);
    command.args(words).args(arguments).stdout(File::create(file)?);
    let start = Instant::now();
    let mut child = lab.node(NODE).namespace().start(&mut command)?;
    let status = child.wait().context("wait for `flows`")?;
    let took = start.elapsed();
    ensure!(status.success(), "`{call} {}` failed ({status})", arguments.join(" "));
    Ok(took)
}

/// A way through all entries of the table.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    took: Duration,
    longest: Duration,
    ended: u32,
}

/// The agent's program that ends silent flows.
struct Sweeper(Ebpf);

impl Sweeper {
    const PROGRAM: &'static str = "nodeport_expire";

    fn load(folder: &Path) -> Result<Self> {
        let mut ebpf = load(&workspace::object(), folder, 1)?;
        let program = ebpf.program_mut(Self::PROGRAM).context(Self::PROGRAM)?;
        let program: &mut Xdp = program.try_into()?;
        program.load().context(Self::PROGRAM)?;
        Ok(Self(ebpf))
    }

    /// Goes through all halves, without the agent's rests. All states may be silent for `limit`.
    fn sweep(&mut self, flows: u32, limit: u32) -> Result<Sweep> {
        let program = self.0.program(Self::PROGRAM).context(Self::PROGRAM)?;
        let program: &Xdp = program.try_into()?;
        let mut sweep = Sweep { took: Duration::ZERO, longest: Duration::ZERO, ended: 0 };
        for first in (0..flows * 2).step_by(STEP as usize) {
            // Family, entries, and seven limits, as `SweepRequest` has them.
            let words = [4, first, STEP, limit, limit, limit, limit, limit, limit, limit];
            let request: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
            let (said, took) = run(program, &request, 1)?;
            sweep.ended += said & !SWEEP_ANY_USED;
            sweep.took += took;
            sweep.longest = sweep.longest.max(took);
        }
        Ok(sweep)
    }
}
