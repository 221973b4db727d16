//! Every way from a client to a pod and back.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use xtask::lab::client::{Load, Outcome, Tag, Transport};
use xtask::lab::{Client, Fabric, Mode, PodLink, Topology};

use super::Case;
use super::site::{Site, check};

pub(crate) const CASES: &[Case] = &[
    ("segment, pods on veths: TCP and UDP, both families, local and remote", segment),
    ("segment, pods on a bridge", bridge),
    ("routed nodes", routed),
    ("VXLAN between nodes", vxlan),
    ("tagged frames: a priority is taken off, a VLAN without device is left alone", tagged),
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
    let site = Site::new(&Topology::new(2).pods("node2", &["web-1", "web-2"]), mode)?;
    let client = site.lab.client();
    client.tag_frames(Tag::Priority)?;
    for target in site.targets("node1") {
        for transport in [Transport::Tcp, Transport::Udp] {
            let outcome = client.load(&Load { transport, ..Load::new(target, 400) })?;
            outcome.all_answered().with_context(|| format!("{transport:?} to {target}"))?;
            outcome.fair(&["web-1", "web-2"], 0.25)?;
        }
    }
    client.tag_frames(Tag::Vlan)?;
    for target in site.targets("node1") {
        let answer = client.get_udp(target);
        check(answer.is_err(), || format!("a frame of a foreign VLAN got {answer:?}"))?;
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
