//! The place: a client that uses its connections, a flooder, a node with the agent, and pods on
//! another node.
//!
//! ```text
//!  client1 ─┐
//!           ├─ switch ── node1 (agent)
//!  flooder ─┘      └──── node2 ── web-1, web-2
//! ```
//!
//! Answers to the flood's sources go through node1 to the flooder, which drops them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};

use super::account::Counts;
use crate::lab::flood::{SOURCES4, SOURCES6};
use crate::lab::site::{PORT, Site};
use crate::lab::{AgentOptions, Client, Lab, Mode, Namespace, Pair, Topology};

/// The node that is flooded.
const NODE: &str = "node1";
const PODS: [&str; 2] = ["web-1", "web-2"];
const NIC: &str = "eth0";

/// Where a flood goes, and so what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// Nowhere: there is none.
    Nothing,
    /// Into a route of the node that drops all.
    Dropped,
    /// Through the node to the pods, and their answers back, by plain routes.
    Routed,
    /// To the NodePort, and its pods' answers back.
    NodePort,
}

impl Goal {
    /// All, in the order in which a round has them.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Dropped, Self::Routed, Self::NodePort];

    /// As tables call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no flood",
            Self::Dropped => "dropped by a route",
            Self::Routed => "routed to the pods",
            Self::NodePort => "to the NodePort",
        }
    }
}

/// The lab with the service applied and the agent running.
pub struct Scene(Site);

impl Scene {
    /// Builds it. `more` goes to the agent's command line.
    ///
    /// # Errors
    /// If a part of it cannot be built, or the service is not served in time.
    pub fn build(mode: Mode, more: &[String]) -> Result<Self> {
        let mut topology = Topology::new(2).pods("node2", &PODS);
        topology.clients = 2;
        let lab = Lab::build(&topology)?;
        lead_answers_away(&lab)?;
        let options = AgentOptions { mode, more: more.to_vec(), ..AgentOptions::default() };
        Site::serve(lab, &[NODE], &options).map(Self)
    }

    /// The client whose connections are to live.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.0.lab.client()
    }

    /// Where the flood comes from.
    #[must_use]
    pub fn flooder(&self) -> &Namespace {
        self.0.lab.clients()[1].namespace()
    }

    /// The NodePort in both families.
    #[must_use]
    pub fn targets(&self) -> [SocketAddr; 2] {
        self.0.targets(NODE)
    }

    /// Where floods of that goal are sent.
    #[must_use]
    pub fn addresses(&self, goal: Goal, is_ipv4: bool) -> Vec<SocketAddr> {
        let pick = |pair: Pair| if is_ipv4 { IpAddr::V4(pair.v4) } else { IpAddr::V6(pair.v6) };
        let at = |pair: Pair| SocketAddr::new(pick(pair), crate::lab::server::PORT);
        match goal {
            Goal::Nothing => Vec::new(),
            Goal::Dropped => vec![at(nowhere())],
            Goal::Routed => self.0.lab.pods().iter().map(|pod| at(pod.address())).collect(),
            Goal::NodePort => {
                vec![SocketAddr::new(pick(self.0.lab.node(NODE).address()), PORT)]
            }
        }
    }

    /// What the node has counted until now, and what the links to it have lost.
    ///
    /// # Errors
    /// If the agent's program or `ip` does not say.
    pub fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::read(&self.ask("services")?, &self.ask("status")?)?;
        let switch = self.0.lab.fabric().first().context("the lab has no switch")?;
        for (namespace, device) in [
            (self.flooder(), NIC),
            (switch, self.flooder().name()),
            (switch, NODE),
            (self.0.lab.node(NODE).namespace(), NIC),
        ] {
            let link = namespace.capture("ip", &["-s", "-j", "link", "show", "dev", device])?;
            counts.lost_on_links += Counts::lost(&json(&link)?)?;
        }
        Ok(counts)
    }

    /// The node's flows, as `nodeport-agent flows` lists them.
    ///
    /// # Errors
    /// If it does not.
    pub fn flows(&self) -> Result<serde_json::Value> {
        self.ask("flows")
    }

    /// What the agent's program prints on the node, as JSON.
    fn ask(&self, command: &str) -> Result<serde_json::Value> {
        json(&self.0.lab.call_agent(NODE, &[command, "-o", "json"])?)
    }
}

/// Destinations that the node drops, of the blocks for documentation (RFC 5737, RFC 3849).
fn nowhere() -> Pair {
    Pair { v4: [192, 0, 2, 1].into(), v6: [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() }
}

/// What the flood's packets need on their ways, and where their answers end. No redirects: the
/// node sends out of the interface that packets came from, and would tell each source about it.
fn lead_answers_away(lab: &Lab) -> Result<()> {
    let flooder = &lab.clients()[1];
    let (node, sink) = (lab.node(NODE), flooder.addresses()[0]);
    let at_node = node.address();
    for scope in ["all", "default", NIC] {
        node.namespace().sysctl(&format!("ipv4/conf/{scope}/send_redirects"), "0")?;
    }
    let nowhere = nowhere();
    let mut lines = ways([SOURCES4, SOURCES6], sink);
    lines.push(format!("route add blackhole {}", nowhere.v4));
    lines.push(format!("route add blackhole {}", nowhere.v6));
    node.namespace().ip(&lines)?;
    lab.node("node2").namespace().ip(&ways([SOURCES4, SOURCES6], at_node))?;
    let mut lines: Vec<String> =
        [SOURCES4, SOURCES6].iter().map(|net| format!("route add blackhole {net}")).collect();
    for Pair { v4, v6 } in lab.pods().iter().map(|pod| pod.address()).chain([nowhere]) {
        lines.extend(ways([&v4.to_string(), &v6.to_string()], at_node));
    }
    flooder.namespace().ip(&lines)
}

fn ways([to4, to6]: [&str; 2], hop: Pair) -> Vec<String> {
    vec![
        format!("route add {to4} via {} dev {NIC}", hop.v4),
        format!("route add {to6} via {} dev {NIC}", hop.v6),
    ]
}

fn json(text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).with_context(|| format!("read as JSON: {text:.200}"))
}
