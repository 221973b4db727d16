//! What is sent: bounded numbers of packets, requests and connections, every one of which must
//! arrive.

mod clock;
mod datagrams;
mod flows;
mod one_cpu;
mod tcp;

use std::net::SocketAddr;
use std::time::Duration;

use crate::lab::{Line, Namespace};

pub(super) use datagrams::rate;
pub(super) use flows::Flows;
pub(super) use one_cpu::{RoundTrips, packets, round_trips};
pub(super) use tcp::{connections, requests, whole};

use super::cluster::ENDPOINT_PORT;
use super::measure::Way;

/// How long to wait for what was sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between whom.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    /// The way between them, in few letters.
    name: String,
    client: Namespace,
    backend: Namespace,
    /// Where the client sends to, in turn.
    targets: Vec<SocketAddr>,
    /// Where it arrives.
    sinks: Vec<SocketAddr>,
}

impl Ends {
    /// The ends of a line, whose client sends to a port of the node, or, without one, to the
    /// backend itself.
    pub(super) fn new(way: Way, line: &Line, node_port: Option<u16>) -> Self {
        let at = |pair, port| SocketAddr::new(way.family.of(pair), port);
        let sinks = line.backend_addresses().into_iter().map(|pair| at(pair, ENDPOINT_PORT));
        let sinks: Vec<_> = sinks.collect();
        let target = node_port.map(|port| at(line.node().address(), port));
        Self {
            name: way.short(),
            client: line.lab().client().namespace().clone(),
            backend: line.backend().clone(),
            targets: target.map_or_else(|| sinks.clone(), |target| vec![target]),
            sinks,
        }
    }

    /// The target of the connection or flow of that number.
    fn target(&self, number: u64) -> SocketAddr {
        self.targets[(number % self.targets.len() as u64) as usize]
    }
}
