//! Agents that end, start again, and leave.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use xtask::lab::client::Load;
use xtask::lab::server::sha256;
use xtask::lab::{Mode, Topology};

use super::Case;
use super::site::{Site, check};

pub(crate) const CASES: &[Case] = &[
    ("an agent killed and started again under load loses nothing", restarted),
    ("the data path goes on while the agent is away", away),
    ("pods that go and come: downloads go on, new connections avoid those that end", pods_change),
    ("cleanup leaves nothing behind", cleaned),
];

fn two_pods() -> Topology {
    Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2"])
}

fn restarted(mode: Mode) -> Result<()> {
    let mut site = Site::new(&two_pods(), mode)?;
    let [target, _] = site.targets("node1");
    let Site { agents, lab } = &mut site;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let loading = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let outcome = lab.client().load(&Load { workers: 4, ..Load::new(target, 400) })?;
                outcome.all_answered()?;
            }
            Ok::<_, anyhow::Error>(())
        });
        let downloading = scope.spawn(|| {
            let client = lab.client();
            let mut connection = client.connect(client.sources(target.ip())[0], target)?;
            connection.download_slowly(20_000_000, Duration::from_millis(10))
        });
        let restarted = agents.iter_mut().try_for_each(|agent| {
            for _ in 0..3 {
                agent.kill();
                thread::sleep(Duration::from_millis(200));
                agent.restart()?;
            }
            Ok::<_, anyhow::Error>(())
        });
        let download = downloading.join().map_err(|_| anyhow!("the download panicked"))?;
        ended.store(true, Ordering::Relaxed);
        loading.join().map_err(|_| anyhow!("the load panicked"))??;
        restarted?;
        let download = download.context("download")?;
        check(download.sha256 == sha256(download.bytes), || "the download is damaged".into())
    })
}

fn away(mode: Mode) -> Result<()> {
    let mut site = Site::new(&two_pods(), mode)?;
    site.agents.iter_mut().for_each(xtask::lab::Agent::kill);
    for target in site.targets("node1") {
        let outcome = site.lab.client().load(&Load::new(target, 500))?;
        outcome.all_answered()?;
        outcome.fair(&["web-1", "web-2"], 0.3)?;
    }
    Ok(())
}

fn pods_change(mode: Mode) -> Result<()> {
    let mut site = Site::new(&two_pods(), mode)?;
    let [target, _] = site.targets("node1");
    let source = site.lab.client().sources(target.ip())[0];
    let mut connection = site.lab.client().connect(source, target)?;
    let serving = connection.ask()?.by;
    let other = if serving == "web-1" { "web-2" } else { "web-1" };
    let download =
        thread::spawn(move || connection.download_slowly(20_000_000, Duration::from_millis(10)));
    // The pod ends: it finishes what it does, and gets nothing new.
    site.offer(|pod| pod.name() != serving)?;
    site.wait_for_pods(target, &[other])?;
    site.lab.add_pod("node1", "web-3")?;
    site.offer(|pod| pod.name() != serving)?;
    site.wait_for_pods(target, &[other, "web-3"])?;
    let download = download.join().map_err(|_| anyhow!("the download panicked"))??;
    check(download.sha256 == sha256(download.bytes), || "the download is damaged".into())
}

fn cleaned(mode: Mode) -> Result<()> {
    let mut site = Site::new(&two_pods(), mode)?;
    for agent in site.agents.drain(..) {
        agent.cleanup()?;
    }
    for node in site.lab.nodes() {
        let pins = node.bpffs().join("nodeport");
        check(!fs::exists(&pins)?, || format!("{}: {} is left", node.name(), pins.display()))?;
        let attached = node.namespace().run(|| {
            let mut bpftool = std::process::Command::new("bpftool");
            xtask::command::capture(bpftool.args(["net", "show"]))
        })??;
        check(!attached.contains("nodeport"), || format!("{}: {attached}", node.name()))?;
    }
    let [target, _] = site.targets("node1");
    check(site.lab.client().get(target).is_err(), || format!("{target} still answers"))
}
