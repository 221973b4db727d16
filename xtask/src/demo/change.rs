//! A pod that ends while downloads run, and one that comes.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{PODS, Stage, screen};
use crate::lab::client::{Connection, Download, Load};
use crate::lab::manifests::{DEMO_PORT, Slices};
use crate::lab::server::sha256;

/// Bytes of each download; with the pauses it lasts some seconds.
const BYTES: u64 = 40_000_000;
/// Pause after each 64 KiB.
const PAUSE: Duration = Duration::from_millis(5);
/// The pod that comes.
const NEW: &str = "frontend-3";
/// How long a change may take until packets meet it.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn show(stage: &mut Stage) -> Result<()> {
    let [ending, staying] = PODS;
    screen::title(&format!("{ending} ends and {NEW} comes, while downloads run from both pods"));
    let target = SocketAddr::new(stage.lab.node("node1").address().v4.into(), DEMO_PORT);
    let downloads: Vec<_> = [ending, staying]
        .into_iter()
        .map(|pod| Ok((pod, start(connect_to(stage, target, pod)?))))
        .collect::<Result<_>>()?;
    offer(stage, ending)?;
    let took = wait_for(stage, target, &[staying])?;
    println!("  {ending} marked as ending: new connections avoid it after {took:.0?}");
    stage.lab.add_pod("node2", NEW)?;
    offer(stage, ending)?;
    let took = wait_for(stage, target, &[staying, NEW])?;
    println!("  {NEW} offered: it gets its share after {took:.0?}");
    for (pod, download) in downloads {
        let Download { bytes, sha256: hash, took } = download
            .join()
            .map_err(|_| anyhow!("the download panicked"))?
            .with_context(|| format!("download from {pod}"))?;
        ensure!(hash == sha256(bytes), "the download from {pod} is damaged");
        println!("  download from {pod}: {} MB in {took:.1?}, hash right", bytes / 1_000_000);
    }
    println!();
    screen::well("no connection broke; new ones went only where they should");
    Ok(())
}

/// A connection that this pod serves.
fn connect_to(stage: &Stage, target: SocketAddr, pod: &str) -> Result<Connection> {
    let client = stage.lab.client();
    let source = client.sources(target.ip())[0];
    for _ in 0..100 {
        let mut connection = client.connect(source, target)?;
        if connection.ask()?.by == pod {
            return Ok(connection);
        }
    }
    Err(anyhow!("100 connections to {target}, and none was served by {pod}"))
}

fn start(mut connection: Connection) -> thread::JoinHandle<Result<Download>> {
    thread::spawn(move || connection.download_slowly(BYTES, PAUSE))
}

fn offer(stage: &Stage, ending: &str) -> Result<()> {
    let pods: Vec<_> = stage.lab.pods().iter().map(|pod| (pod, pod.name() != ending)).collect();
    stage.lab.apply_slices(&Slices::demo(&pods))
}

/// Waits until just these pods answer new connections; says how long that took.
fn wait_for(stage: &Stage, target: SocketAddr, pods: &[&str]) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let took = started.elapsed();
        let outcome = stage.lab.client().load(&Load::new(target, 40))?;
        outcome.all_answered()?;
        match outcome.fair(pods, 1.0) {
            Ok(()) => return Ok(took),
            Err(error) if took > APPLIED_WITHIN => {
                return Err(error).with_context(|| format!("waited for {pods:?}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
