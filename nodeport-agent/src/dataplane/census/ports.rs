//! Counts the SNAT ports in use towards each backend.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use foldhash::HashMap;
use nodeport_common::abi::{FLOW_HOST, FLOW_LOCAL, FLOW_PROVED, FLOW_REPLY};
use nodeport_common::core::table::half::key;

use super::super::pins::Pins;
use super::walk::{Counter, InTable, Seen, Tables};

/// Towards whom a port is in use: there no two flows have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The backend.
    pub backend: SocketAddr,
    /// The node's address that the backend sees.
    pub source: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
}

/// How many ports are in use towards a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    /// Towards whom.
    pub(crate) to: Key,
    /// The service that most of the flows are of: its index in `service_stats`.
    pub(crate) service: u32,
    /// Ports of flows that have proved themselves and are not over: all others give theirs to whoever
    /// finds none.
    pub(crate) ports: u32,
}

/// Counts, in one go.
pub(crate) fn in_use(pins: &Pins) -> anyhow::Result<Vec<Use>> {
    let mut ports = Ports::default();
    Tables::open(pins)?.walk(&mut ports, |_| Ok(false))?;
    Ok(ports.in_use())
}

/// A count of them.
#[derive(Default)]
pub(super) struct Ports {
    /// Flows of a service towards a backend.
    counts: HashMap<(Key, u32), u32>,
}

impl Counter for Ports {
    fn see<A: InTable>(&mut self, seen: &Seen<'_, A>) {
        if let Some(to) = holds_port(seen) {
            *self.counts.entry((to, seen.details().service)).or_default() += 1;
        }
    }
}

/// Towards whom the half in an entry holds a port that nobody else gets: the reply's half of a flow
/// that hides its client, or is the node's own, has proved itself, and is not over.
fn holds_port<A: InTable>(seen: &Seen<'_, A>) -> Option<Key> {
    const HOLDS: u8 = FLOW_REPLY | FLOW_PROVED;
    let flags = seen.status.flags;
    let is_pods = flags & (FLOW_LOCAL | FLOW_HOST) == FLOW_LOCAL;
    if !seen.is_open() || is_pods || flags & HOLDS != HOLDS {
        return None;
    }
    let key = key(seen.entry, flags);
    let port = u16::from_be_bytes(key.ports.src);
    let backend = SocketAddr::new(key.src.into(), port);
    Some(Key { backend, source: key.dst.into(), protocol: key.protocol })
}

impl Ports {
    /// The sum over all services, by backend.
    pub(super) fn in_use(&self) -> Vec<Use> {
        let mut sums: BTreeMap<Key, (u32, Use)> = BTreeMap::new();
        for (&(to, service), &count) in &self.counts {
            let (most, sum) = sums.entry(to).or_insert((0, Use { to, service, ports: 0 }));
            sum.ports += count;
            // Of two that have as many, the one with the smaller number, so that it stays the same.
            if (count, std::cmp::Reverse(service)) > (*most, std::cmp::Reverse(sum.service)) {
                (*most, sum.service) = (count, service);
            }
        }
        sums.into_values().map(|(_, sum)| sum).collect()
    }
}

#[cfg(test)]
mod tests {
    use nodeport_common::abi::{
        FLOW_UDP, FlowDetails, FlowEntry, FlowState, IPPROTO_TCP, IPPROTO_UDP, Ports as PortPair,
    };

    use super::super::walk::tests::{Memory, memory};
    use super::*;

    const ESTABLISHED: u8 = FlowState::Established as u8 + 1;
    const HOLDS: u8 = FLOW_REPLY | FLOW_PROVED;

    /// Puts an answer of the backend with this last byte.
    fn put(memory: &Memory, number: u32, backend: u8, service: u32, state: u8, flags: u8) {
        let ports = PortPair { src: 80_u16.to_be_bytes(), dst: (number as u16).to_be_bytes() };
        let (src, dst) = ([10, 0, 0, backend], [10, 1, 0, 1]);
        let entry = FlowEntry { src, dst, ports, state, flags, ..FlowEntry::default() };
        assert!(memory.entries.write(number, entry));
        assert!(memory.details.write(number, FlowDetails { service, ..FlowDetails::default() }));
    }

    /// Backend, protocol, service and ports.
    fn count(memory: &Memory) -> Vec<(String, u8, u32, u32)> {
        let mut ports = Ports::default();
        memory.show(&mut ports);
        let row = |one: Use| {
            assert_eq!(one.to.source, IpAddr::from([10, 1, 0, 1]));
            (one.to.backend.to_string(), one.to.protocol, one.service, one.ports)
        };
        ports.in_use().into_iter().map(row).collect()
    }

    #[test]
    fn ports_that_nobody_else_gets_are_counted_by_backend() {
        let memory = memory();
        assert_eq!(count(&memory), []);
        for number in 0..4 {
            put(&memory, number, 1, if number < 3 { 8 } else { 7 }, ESTABLISHED, HOLDS);
        }
        put(&memory, 4, 1, 0, ESTABLISHED, HOLDS | FLOW_LOCAL | FLOW_HOST);
        put(&memory, 5, 2, 9, ESTABLISHED, HOLDS | FLOW_UDP);
        // The client's half, one at a pod of this node, newcomers, one that is over, a free one.
        put(&memory, 6, 1, 8, ESTABLISHED, FLOW_PROVED);
        put(&memory, 7, 1, 8, ESTABLISHED, HOLDS | FLOW_LOCAL);
        put(&memory, 8, 1, 8, FlowState::Opening as u8 + 1, FLOW_REPLY);
        put(&memory, 9, 1, 8, FlowState::Closed as u8 + 1, HOLDS);
        put(&memory, 10, 1, 8, FlowState::Reset as u8 + 1, HOLDS);
        put(&memory, 11, 1, 8, 0, HOLDS);
        let expected = [
            ("10.0.0.1:80".to_owned(), IPPROTO_TCP, 8, 5),
            ("10.0.0.2:80".to_owned(), IPPROTO_UDP, 9, 1),
        ];
        assert_eq!(count(&memory), expected);
    }
}
