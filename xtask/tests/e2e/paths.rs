//! Every way from a client to a pod and back.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use xtask::lab::client::{Load, Outcome, Transport};
use xtask::lab::{Client, Fabric, Mode, PodLink, Topology};

use super::Case;
use super::site::{Site, check};

pub(crate) const CASES: &[Case] = &[
    ("segment, pods on veths: TCP and UDP, both families, local and remote", segment),
    ("segment, pods on a bridge", bridge),
    ("routed nodes", routed),
    ("VXLAN between nodes", vxlan),
    ("frames with a VLAN tag, to backends without", tagged),
];

fn two_nodes() -> Topology {
    Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2"])
}

fn segment(mode: Mode) -> Result<()> {
    everything(&two_nodes(), mode)
}

fn bridge(mode: Mode) -> Result<()> {
    everything(&two_nodes().pod_link(PodLink::Bridge), mode)
}

fn routed(mode: Mode) -> Result<()> {
    everything(&two_nodes().fabric(Fabric::Routed), mode)
}

fn vxlan(mode: Mode) -> Result<()> {
    everything(&two_nodes().fabric(Fabric::Vxlan), mode)
}

fn tagged(mode: Mode) -> Result<()> {
    // The node has no VLAN device that its own pods would be reached through.
    let topology = Topology::new(2).pods("node2", &["web-1", "web-2"]);
    let site = Site::new(&topology, mode)?;
    site.lab.client().tag_frames()?;
    for target in site.targets("node1") {
        for transport in [Transport::Tcp, Transport::Udp] {
            let outcome = site.lab.client().load(&Load { transport, ..Load::new(target, 400) })?;
            outcome.all_answered().with_context(|| format!("{transport:?} to {target}"))?;
            outcome.fair(&["web-1", "web-2"], 0.25)?;
        }
    }
    Ok(())
}

fn everything(topology: &Topology, mode: Mode) -> Result<()> {
    let site = Site::new(topology, mode)?;
    for node in ["node1", "node2"] {
        for target in site.targets(node) {
            for transport in [Transport::Tcp, Transport::Udp] {
                let load = Load { transport, ..Load::new(target, 400) };
                for (number, client) in site.lab.clients().iter().enumerate() {
                    let outcome = client.load(&load)?;
                    right(client, node, target, &outcome).with_context(|| {
                        format!("{transport:?} from client {number} to {target} on {node}")
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// All answered, both pods by their share; the pod on the node itself saw the client, the other
/// one the node.
fn right(client: &Client, node: &str, target: SocketAddr, outcome: &Outcome) -> Result<()> {
    outcome.all_answered()?;
    // Three standard deviations of 400 fair coins are 15 %.
    outcome.fair(&["web-1", "web-2"], 0.25)?;
    let local = if node == "node1" { "web-1" } else { "web-2" };
    let kept = outcome.answers.get(local).copied().unwrap_or_default();
    check(outcome.sources_kept == kept, || {
        format!("{} sources kept, {local} answered {kept} times", outcome.sources_kept)
    })?;
    let sources = client.sources(target.ip());
    let strangers: Vec<_> = outcome.seen.keys().filter(|seen| !sources.contains(seen)).collect();
    check(strangers.len() == 1, || format!("pods saw {strangers:?} beside the client"))
}
