//! Many connections: none fails, and each pod gets its share.

use anyhow::{Context as _, Result};
use xtask::lab::client::{Close, Load};
use xtask::lab::{Mode, Topology};

use super::Case;
use super::site::Site;

pub(crate) const CASES: &[Case] = &[
    ("100,000 short connections from 8 addresses, with fair shares", many),
    ("thousands of connections from one address, with its ports used again at once", reused),
];

fn four_pods() -> Topology {
    Topology::new(2).pods("node1", &["web-1", "web-2"]).pods("node2", &["web-3", "web-4"])
}

fn many(mode: Mode) -> Result<()> {
    let site = Site::new(&four_pods(), mode)?;
    for (target, requests) in site.targets("node1").into_iter().zip([60_000, 40_000]) {
        // A backend that closes first keeps its end in TIME_WAIT, and a SNAT port that comes
        // again within that minute would meet it: so the client closes, by a reset.
        let load = Load { close: Close::Reset, ..Load::new(target, requests) };
        let outcome = site.lab.client().load(&load)?;
        outcome.all_answered().with_context(|| format!("{target}; {}", site.counters("node1")))?;
        outcome.fair(&site.pods(), 0.05).with_context(|| target.to_string())?;
    }
    Ok(())
}

fn reused(mode: Mode) -> Result<()> {
    let site = Site::new(&four_pods(), mode)?;
    for target in site.targets("node1") {
        for close in [Close::Reset, Close::ByServer] {
            let ports = Some(40_000..=40_063);
            let load = Load { close, one_source: true, ports, ..Load::new(target, 3_000) };
            let outcome = site.lab.client().load(&load)?;
            outcome.all_answered().with_context(|| format!("{target}, {close:?}"))?;
        }
    }
    Ok(())
}
