//! The table of flows, read from memory while packets change it.

use nodeport_common::abi::{
    Exit, FLOW_PROVED, Flow, FlowDetails, FlowEntry, FlowKey, Heap, Plain, maps,
};
use nodeport_common::core::table::half::unpack;
use nodeport_common::core::table::status::Status;

use super::output::{each, share};
use super::view::InFamily;
use crate::dataplane::maps::read_only;
use crate::dataplane::pins::Pins;
use crate::dataplane::sys::ReadOnlyArray;

/// Entries that one thread reads, at least.
const SHARE: usize = 4_096;

/// The table of one family.
pub(super) struct Table<A: InFamily> {
    entries: ReadOnlyArray<FlowEntry<A, A::Pad>>,
    details: ReadOnlyArray<FlowDetails>,
    exits: ReadOnlyArray<Exit>,
    size: u32,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    /// Halves that lie in it.
    pub(super) halves: u64,
    /// Those of them whose flow has proved itself: they are not pushed out.
    pub(super) established: u64,
    /// Halves that it has room for.
    pub(super) size: u64,
}

impl<A: InFamily> Table<A>
where
    FlowEntry<A, A::Pad>: Plain,
{
    pub(super) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let heap = read_only::<Heap>(pins, maps::HEAP)?.read(A::HEAP).unwrap_or_default();
        let entries = read_only(pins, A::FLOWS)?;
        let (details, exits) = (read_only(pins, A::DETAILS)?, read_only(pins, maps::EXITS)?);
        Ok(Self { size: heap.entries.min(entries.len()), entries, details, exits })
    }

    /// All halves, in parts as threads have read them. One that changes hands while it is read is
    /// left out.
    pub(super) fn halves(&self) -> Vec<Vec<(FlowKey<A>, Flow<A>)>> {
        let share = share(self.size as usize, SHARE) as u32;
        let starts = (0..self.size).step_by(share.max(1) as usize);
        let part = |first: u32| -> Vec<_> {
            let end = first.saturating_add(share).min(self.size);
            (first..end).filter_map(|number| self.half(number)).collect()
        };
        each(starts, &part)
    }

    pub(super) fn level(&self) -> Level {
        let live = (0..self.size).filter_map(|number| self.live(number));
        let mut level = Level { size: self.size.into(), ..Level::default() };
        for status in live {
            level.halves += 1;
            level.established += u64::from(status.flags & FLOW_PROVED != 0);
        }
        level
    }

    fn half(&self, number: u32) -> Option<(FlowKey<A>, Flow<A>)> {
        let version = || self.live(number).map(|status| status.version);
        let copy = || Some((self.entries.read(number)?, self.details.read(number)?));
        let (entry, details) = steady(version, copy)?;
        let (key, mut flow) = unpack(&entry, &details);
        let exit = self.exits.read(flow.hop.exit.into()).unwrap_or_default();
        (flow.hop.ifindex, flow.hop.src_mac) = (exit.ifindex, exit.mac);
        Some((key, flow))
    }

    /// The status of an entry that a half lies in.
    fn live(&self, number: u32) -> Option<Status> {
        let status = Status::of(&self.entries.read(number)?);
        status.is_live().then_some(status)
    }
}

/// A copy, if the entry is the same half's before it and behind it. The version in the copy itself
/// would say nothing of the words that were copied before it.
fn steady<T>(version: impl Fn() -> Option<u16>, copy: impl FnOnce() -> Option<T>) -> Option<T> {
    let before = version()?;
    let copy = copy()?;
    (version()? == before).then_some(copy)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use nodeport_common::abi::{
        Addr4, FLOW_UDP, FlowEntry4, FlowState, HOP_SEND, IPPROTO_TCP, IPPROTO_UDP, NextHop,
    };
    use nodeport_common::core::table::half::exit_word;
    use nodeport_common::core::table::status::STRAY;

    use super::*;
    use crate::dataplane::sys::SharedArray;

    const SIZE: u32 = 8;
    const OPENING: u8 = FlowState::Opening as u8 + 1;
    const ESTABLISHED: u8 = FlowState::Established as u8 + 1;

    /// As a program and the agent see one array.
    fn array<T: Plain>(file: &File) -> (SharedArray<T>, ReadOnlyArray<T>) {
        file.set_len(u64::from(SIZE) * size_of::<T>() as u64).unwrap();
        (
            SharedArray::map(file.as_fd(), SIZE).unwrap(),
            ReadOnlyArray::map(file.as_fd(), SIZE).unwrap(),
        )
    }

    fn table() -> (SharedArray<FlowEntry4>, SharedArray<FlowDetails>, Table<Addr4>) {
        let file = || tempfile::tempfile().unwrap();
        let (written, entries) = array(&file());
        let (written_beside, details) = array(&file());
        let (written_exits, exits) = array(&file());
        written_exits.write(3, Exit { ifindex: 30, mac: [3; 6], pad: [0; 6] });
        (written, written_beside, Table { entries, details, exits, size: SIZE })
    }

    fn entry(number: u8, state: u8, flags: u8) -> FlowEntry4 {
        let exit = exit_word(&NextHop { exit: 3, kind: HOP_SEND, ..NextHop::UNRESOLVED });
        FlowEntry { src: [number; 4], exit, state, flags, ..FlowEntry::default() }
    }

    #[test]
    fn halves_are_read_with_their_interface() {
        let (entries, details, table) = table();
        assert_eq!(table.halves().concat(), []);
        entries.write(1, entry(1, ESTABLISHED, FLOW_PROVED));
        details.write(1, FlowDetails { service: 7, created: 9, ..FlowDetails::default() });
        entries.write(SIZE - 1, entry(2, OPENING, FLOW_UDP));
        // Ended ones, in a list and in none.
        entries.write(3, entry(3, 0, FLOW_PROVED));
        entries.write(4, entry(4, STRAY, 0));
        let halves = table.halves().concat();
        let [(key, flow), (second, _)] = halves[..] else { panic!("{halves:?}") };
        assert_eq!((key.src, key.protocol), ([1; 4], IPPROTO_TCP));
        assert_eq!((second.src, second.protocol), ([2; 4], IPPROTO_UDP));
        assert_eq!((flow.hop.ifindex, flow.hop.src_mac, flow.hop.kind), (30, [3; 6], HOP_SEND));
        assert_eq!((flow.service, flow.created), (7, 9));
        assert_eq!(table.level(), Level { halves: 2, established: 1, size: SIZE.into() });
    }

    #[test]
    fn no_half_is_shown_in_parts_of_two() {
        let (entries, _, table) = table();
        let first = entry(1, ESTABLISHED, 0);
        // What becomes of the entry while it is copied.
        let meanwhile = |then: FlowEntry4| {
            entries.write(0, first);
            let version = || table.live(0).map(|status| status.version);
            steady(version, || {
                entries.write(0, then);
                Some(())
            })
        };
        assert_eq!(meanwhile(first), Some(()));
        assert_eq!(meanwhile(FlowEntry { packets: 5, flags: FLOW_PROVED, ..first }), Some(()));
        assert_eq!(meanwhile(FlowEntry { version: 1, state: 0, ..first }), None);
        assert_eq!(meanwhile(FlowEntry { version: 1, ..entry(2, OPENING, 0) }), None);
        // It was free, and is written for the first time.
        entries.write(0, FlowEntry { state: 0, ..first });
        assert_eq!(steady(|| table.live(0).map(|status| status.version), || Some(())), None);
    }
}
