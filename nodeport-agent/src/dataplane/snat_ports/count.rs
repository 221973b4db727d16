//! Counts the SNAT ports in use towards each backend, in the table of flows, while packets change it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt as _};
use nodeport_common::abi::{
    Addr4, Addr6, FLOW_HOST, FLOW_LOCAL, FLOW_PROVED, FLOW_REPLY, FlowDetails, FlowEntry,
    FlowState, Heap, Plain, maps,
};
use nodeport_common::core::table::half::key;
use nodeport_common::core::table::status::Status;

use super::super::maps::read_only;
use super::super::pins::Pins;
use super::super::sys::ReadOnlyArray;

/// Entries that are looked at in one step.
const STEP: u32 = 4_096;

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
    Ok(Tables::open(pins)?.count(|_| Ok(false))?.unwrap_or_default())
}

/// The tables of both families.
pub(super) struct Tables {
    of4: Table<Addr4, [u64; 0]>,
    of6: Table<Addr6, [u64; 2]>,
}

/// That of one family.
struct Table<A, P> {
    entries: ReadOnlyArray<FlowEntry<A, P>>,
    details: ReadOnlyArray<FlowDetails>,
    size: u32,
}

/// Flows of a service towards a backend.
type Counts = HashMap<(Key, u32), u32>;

impl Tables {
    pub(super) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let heaps = read_only::<Heap>(pins, maps::HEAP)?;
        let size = |index| heaps.read(index).map_or(0, |heap| heap.entries);
        Ok(Self {
            of4: Table::open(pins, maps::FLOWS4, maps::DETAILS4, size(0))?,
            of6: Table::open(pins, maps::FLOWS6, maps::DETAILS6, size(1))?,
        })
    }

    /// Counts in steps, after each of which `pause` is called with the time that it took, and says
    /// whether that is enough; none if it was.
    pub(super) fn count(
        &self,
        mut pause: impl FnMut(Duration) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Option<Vec<Use>>> {
        let mut counts = Counts::new();
        let is_whole =
            self.of4.count(&mut counts, &mut pause)? && self.of6.count(&mut counts, &mut pause)?;
        Ok(is_whole.then(|| sum(&counts)))
    }
}

impl<A, P> Table<A, P>
where
    A: Copy + Default + PartialEq + Into<IpAddr>,
    P: Default + PartialEq,
    FlowEntry<A, P>: Plain,
{
    fn open(pins: &Pins, flows: &str, details: &str, size: u32) -> anyhow::Result<Self> {
        let (entries, details) = (read_only(pins, flows)?, read_only(pins, details)?);
        Ok(Self { size: size.min(entries.len()), entries, details })
    }

    /// False if `pause` said that it is enough.
    fn count(
        &self,
        counts: &mut Counts,
        pause: &mut impl FnMut(Duration) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        for first in (0..self.size).step_by(STEP as usize) {
            let began = Instant::now();
            let were_used = self.step(first..self.size.min(first + STEP), counts);
            if pause(began.elapsed())? {
                return Ok(false);
            }
            // Entries are given out from the front: where none ever was, none is behind.
            if !were_used {
                break;
            }
        }
        Ok(true)
    }

    /// Whether a half lies, or once lay, in one of these entries. One that changes hands while it is
    /// read may be counted wrongly: that is one of thousands, until the next round.
    fn step(&self, numbers: std::ops::Range<u32>, counts: &mut Counts) -> bool {
        let mut were_used = false;
        for number in numbers {
            let Some(entry) = self.entries.read(number) else { continue };
            were_used |= entry != FlowEntry::default();
            if let Some(to) = holds_port(&entry) {
                let service = self.details.read(number).map_or(0, |details| details.service);
                *counts.entry((to, service)).or_default() += 1;
            }
        }
        were_used
    }
}

/// Towards whom the half in an entry holds a port that nobody else gets: the reply's half of a flow
/// that hides its client, or is the node's own, has proved itself, and is not over.
fn holds_port<A: Copy + Into<IpAddr>, P>(entry: &FlowEntry<A, P>) -> Option<Key> {
    const HOLDS: u8 = FLOW_REPLY | FLOW_PROVED;
    let status = Status::of(entry);
    let is_over = matches!(status.flow_state(), FlowState::Closed | FlowState::Reset);
    let is_pods = status.flags & (FLOW_LOCAL | FLOW_HOST) == FLOW_LOCAL;
    if !status.is_live() || is_over || is_pods || status.flags & HOLDS != HOLDS {
        return None;
    }
    let key = key(entry, status.flags);
    let port = u16::from_be_bytes(key.ports.src);
    let backend = SocketAddr::new(key.src.into(), port);
    Some(Key { backend, source: key.dst.into(), protocol: key.protocol })
}

/// The sum over all services, by backend.
fn sum(counts: &Counts) -> Vec<Use> {
    let mut sums: BTreeMap<Key, (u32, Use)> = BTreeMap::new();
    for (&(to, service), &count) in counts {
        let (most, sum) = sums.entry(to).or_insert((0, Use { to, service, ports: 0 }));
        sum.ports += count;
        // Of two that have as many, the one with the smaller number, so that it stays the same.
        if (count, std::cmp::Reverse(service)) > (*most, std::cmp::Reverse(sum.service)) {
            (*most, sum.service) = (count, service);
        }
    }
    sums.into_values().map(|(_, sum)| sum).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use nodeport_common::abi::{FLOW_UDP, FlowEntry4, IPPROTO_TCP, IPPROTO_UDP, Ports};

    use super::*;
    use crate::dataplane::sys::SharedArray;

    const SIZE: u32 = 2 * STEP + 10;
    const ESTABLISHED: u8 = FlowState::Established as u8 + 1;
    const HOLDS: u8 = FLOW_REPLY | FLOW_PROVED;

    fn array<T: Plain>(file: &File) -> (SharedArray<T>, ReadOnlyArray<T>) {
        file.set_len(u64::from(SIZE) * size_of::<T>() as u64).unwrap();
        let written = SharedArray::map(file.as_fd(), SIZE).unwrap();
        (written, ReadOnlyArray::map(file.as_fd(), SIZE).unwrap())
    }

    struct Memory {
        entries: SharedArray<FlowEntry4>,
        details: SharedArray<FlowDetails>,
        table: Table<Addr4, [u64; 0]>,
    }

    fn memory() -> Memory {
        let file = || tempfile::tempfile().unwrap();
        let (written, entries) = array(&file());
        let (written_beside, details) = array(&file());
        let table = Table { entries, details, size: SIZE };
        Memory { entries: written, details: written_beside, table }
    }

    impl Memory {
        /// An answer of the backend with this last byte.
        fn put(&self, number: u32, backend: u8, service: u32, state: u8, flags: u8) {
            let ports = Ports { src: 80_u16.to_be_bytes(), dst: (number as u16).to_be_bytes() };
            let (src, dst) = ([10, 0, 0, backend], [10, 1, 0, 1]);
            let entry = FlowEntry { src, dst, ports, state, flags, ..FlowEntry::default() };
            assert!(self.entries.write(number, entry));
            assert!(self.details.write(number, FlowDetails { service, ..FlowDetails::default() }));
        }

        /// Backend, protocol, service and ports.
        fn count(&self) -> Vec<(String, u8, u32, u32)> {
            let mut counts = Counts::new();
            assert!(self.table.count(&mut counts, &mut |_| Ok(false)).unwrap());
            let row = |one: Use| {
                assert_eq!(one.to.source, IpAddr::from([10, 1, 0, 1]));
                (one.to.backend.to_string(), one.to.protocol, one.service, one.ports)
            };
            sum(&counts).into_iter().map(row).collect()
        }
    }

    #[test]
    fn ports_that_nobody_else_gets_are_counted_by_backend() {
        let memory = memory();
        assert_eq!(memory.count(), []);
        for number in 0..4 {
            memory.put(number, 1, if number < 3 { 8 } else { 7 }, ESTABLISHED, HOLDS);
        }
        memory.put(4, 1, 0, ESTABLISHED, HOLDS | FLOW_LOCAL | FLOW_HOST);
        memory.put(5, 2, 9, ESTABLISHED, HOLDS | FLOW_UDP);
        // The client's half, one at a pod of this node, newcomers, one that is over, a free one.
        memory.put(6, 1, 8, ESTABLISHED, FLOW_PROVED);
        memory.put(7, 1, 8, ESTABLISHED, HOLDS | FLOW_LOCAL);
        memory.put(8, 1, 8, FlowState::Opening as u8 + 1, FLOW_REPLY);
        memory.put(9, 1, 8, FlowState::Closed as u8 + 1, HOLDS);
        memory.put(10, 1, 8, FlowState::Reset as u8 + 1, HOLDS);
        memory.put(11, 1, 8, 0, HOLDS);
        let expected = [
            ("10.0.0.1:80".to_owned(), IPPROTO_TCP, 8, 5),
            ("10.0.0.2:80".to_owned(), IPPROTO_UDP, 9, 1),
        ];
        assert_eq!(memory.count(), expected);
    }

    #[test]
    fn all_that_was_ever_used_is_looked_at_and_no_more() {
        let memory = memory();
        // One in the first step that has long ended, and live ones behind it.
        let ended = FlowEntry { version: 1, ..FlowEntry4::default() };
        assert!(memory.entries.write(0, ended));
        memory.put(STEP, 1, 1, ESTABLISHED, HOLDS);
        memory.put(2 * STEP, 1, 1, ESTABLISHED, HOLDS);
        assert_eq!(memory.count()[0].3, 2);
        let mut steps = 0;
        let mut pause = |_| {
            steps += 1;
            Ok(false)
        };
        memory.entries.write(2 * STEP, FlowEntry::default());
        memory.entries.write(STEP, FlowEntry::default());
        assert!(memory.table.count(&mut Counts::new(), &mut pause).unwrap());
        assert_eq!(steps, 2);
        assert!(!memory.table.count(&mut Counts::new(), &mut |_| Ok(true)).unwrap());
    }
}
