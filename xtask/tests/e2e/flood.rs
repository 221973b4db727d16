//! A million SYNs from random sources break none of ten thousand connections.

use anyhow::{Context as _, Result};
use xtask::bench::flood::{Amount, Counts, Goal, Phase, Scene, all_followed, measure};
use xtask::lab::Mode;
use xtask::lab::client::{Close, Held, Load};

use super::Case;
use super::site::check;

pub(crate) const CASES: &[Case] = &[
    ("a million SYNs break none of 10,000 connections, and all are accounted for", ports_run_out),
    ("the same where the table has no room: newcomers push out each other", room_runs_out),
];

const CONNECTIONS: usize = 10_000;
/// A second, if the machine is up to it.
const RATE: u32 = 100_000;

/// 20,000 source ports to each of two backends are fewer than the table has room for.
fn ports_run_out(mode: Mode) -> Result<()> {
    // TC differs in where packets are met, not in who gets a port: a part of them tells.
    let syns = if mode == Mode::Xdp { 1_000_000 } else { 300_000 };
    let counts = flooded(mode, &[], syns)?;
    // 40,000 ports, of which the connections have a quarter.
    check(counts.opened > 40_000, || format!("newcomers keep newcomers out: {counts:?}"))?;
    // Who loses its port is ended as a whole.
    check(counts.of("partner_rebuilt") == 0, || format!("a half was lost: {counts:?}"))
}

/// Room for 16,384 flows, of which the connections take 10,000.
fn room_runs_out(mode: Mode) -> Result<()> {
    let arguments = ["--max-flows", "16384"].map(str::to_owned);
    let counts = flooded(mode, &arguments, 200_000)?;
    check(counts.opened > 16_384, || format!("nobody was pushed out: {counts:?}"))
}

/// Floods the NodePort over IPv4 while connections to it are in use; what was counted meanwhile.
fn flooded(mode: Mode, arguments: &[String], syns: u32) -> Result<Counts> {
    let scene = Scene::build(mode, arguments)?;
    let [target, _] = scene.targets();
    let held = Held::open(scene.client(), target, CONNECTIONS)?;
    let amount = Amount { syns, rate: RATE, number: 0 };
    let Phase { sent, counts, .. } = measure(&scene, &held, Goal::NodePort, amount)?;
    check(sent == u64::from(syns), || format!("{sent} SYNs were sent"))?;
    // What the flood has left holds all ports or all room, for a minute yet.
    let load = Load { close: Close::Reset, ..Load::new(target, 1_000) };
    let before = scene.counts()?;
    let newcomers = scene.client().load(&load)?.all_answered();
    let meanwhile = scene.counts()?.since(&before);
    newcomers.with_context(|| format!("newcomers after the flood: {meanwhile:?}"))?;
    let used = held.use_all();
    let seconds = held.started().elapsed().as_secs_f64() / 2.0;
    all_followed(&scene.flows()?, held.locals(), seconds)?;
    held.close()?.all_kept().with_context(|| format!("{counts:?}"))?;
    used.map(|()| counts)
}
