//! Long transfers.

use anyhow::{Context as _, Result};
use xtask::lab::server::sha256;
use xtask::lab::{Mode, Topology};

use super::Case;
use super::site::{Site, check};

pub(crate) const CASES: &[Case] = &[
    ("a download of 1 GB has the right hash", gigabyte),
    ("a path narrower than its ends is found by path MTU discovery", narrow),
];

const GIGABYTE: u64 = 1_000_000_000;

fn gigabyte(mode: Mode) -> Result<()> {
    let site = Site::new(&Topology::new(2).pods("node2", &["web-1"]), mode)?;
    let [target, _] = site.targets("node1");
    download(&site, target, GIGABYTE)
}

fn narrow(mode: Mode) -> Result<()> {
    let topology = Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2"]);
    let site = Site::new(&topology.narrow(1_300), mode)?;
    for node in ["node1", "node2"] {
        for target in site.targets(node) {
            // Enough connections to meet both pods, the local one and the remote one.
            for _ in 0..8 {
                download(&site, target, 3_000_000)
                    .with_context(|| format!("{target} on {node}"))?;
            }
        }
    }
    Ok(())
}

fn download(site: &Site, target: std::net::SocketAddr, bytes: u64) -> Result<()> {
    let got = site.lab.client().download(target, bytes)?;
    check(got.sha256 == sha256(bytes), || format!("{bytes} bytes came with {}", got.sha256))
}
