//! One walk through the tables of flows, while packets change them, for all who count in them.

use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use nodeport_common::abi::{Addr4, Addr6, FlowDetails, FlowEntry, FlowState, Heap, Plain, maps};
use nodeport_common::core::table::status::Status;

use super::super::maps::read_only;
use super::super::pins::Pins;
use super::super::sys::ReadOnlyArray;

/// Entries that are looked at in one step.
const STEP: u32 = 4_096;

/// An address as the table of its family has it.
pub(crate) trait InTable: Copy + Default + PartialEq + Into<IpAddr> {
    /// Whether that is the table of IPv6 flows.
    const IS_IPV6: bool;
    /// What fills up an entry.
    type Pad: Copy + Default + PartialEq;
}

impl InTable for Addr4 {
    const IS_IPV6: bool = false;
    type Pad = [u64; 0];
}

impl InTable for Addr6 {
    const IS_IPV6: bool = true;
    type Pad = [u64; 2];
}

/// Somebody who counts on a walk.
pub(crate) trait Counter {
    /// Is told of each entry that was ever used, also of free ones. One that changes hands while it is
    /// read may be half the one and half the other: one of thousands, until the next walk.
    fn see<A: InTable>(&mut self, seen: &Seen<'_, A>);
}

/// One who counts on some walks and not on others.
impl<C: Counter> Counter for Option<C> {
    fn see<A: InTable>(&mut self, seen: &Seen<'_, A>) {
        if let Some(counter) = self {
            counter.see(seen);
        }
    }
}

impl<C: Counter, D: Counter> Counter for (C, D) {
    fn see<A: InTable>(&mut self, seen: &Seen<'_, A>) {
        self.0.see(seen);
        self.1.see(seen);
    }
}

/// An entry as the walk met it.
pub(crate) struct Seen<'a, A: InTable> {
    /// Its number in the table of its family.
    pub(crate) number: u32,
    /// What lies in it.
    pub(crate) entry: &'a FlowEntry<A, A::Pad>,
    /// How that stands.
    pub(crate) status: Status,
    details: &'a ReadOnlyArray<FlowDetails>,
}

impl<A: InTable> Seen<'_, A> {
    /// Whether a half of a flow lies in it that is not over.
    pub(crate) fn is_open(&self) -> bool {
        let is_over = matches!(self.status.flow_state(), FlowState::Closed | FlowState::Reset);
        self.status.is_live() && !is_over
    }

    /// What lies beside the entry: another cache line, read when it is asked for.
    pub(crate) fn details(&self) -> FlowDetails {
        self.details.read(self.number).unwrap_or_default()
    }
}

/// The tables of both families.
pub(crate) struct Tables {
    of4: Table<Addr4>,
    of6: Table<Addr6>,
}

impl Tables {
    pub(crate) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let heaps = read_only::<Heap>(pins, maps::HEAP)?;
        let size = |index| heaps.read(index).map_or(0, |heap| heap.entries);
        Ok(Self {
            of4: Table::open(pins, maps::FLOWS4, maps::DETAILS4, size(0))?,
            of6: Table::open(pins, maps::FLOWS6, maps::DETAILS6, size(1))?,
        })
    }

    /// Shows `counter` all entries, in steps, after each of which `pause` is called with the time that
    /// it took, and says whether that is enough. False if it was.
    pub(crate) fn walk(
        &self,
        counter: &mut impl Counter,
        mut pause: impl FnMut(Duration) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        Ok(self.of4.walk(counter, &mut pause)? && self.of6.walk(counter, &mut pause)?)
    }
}

/// That of one family.
pub(super) struct Table<A: InTable> {
    pub(super) entries: ReadOnlyArray<FlowEntry<A, A::Pad>>,
    pub(super) details: ReadOnlyArray<FlowDetails>,
    pub(super) size: u32,
}

impl<A: InTable> Table<A>
where
    FlowEntry<A, A::Pad>: Plain,
{
    fn open(pins: &Pins, flows: &str, details: &str, size: u32) -> anyhow::Result<Self> {
        let (entries, details) = (read_only(pins, flows)?, read_only(pins, details)?);
        Ok(Self { size: size.min(entries.len()), entries, details })
    }

    /// As [`Tables::walk`].
    pub(super) fn walk(
        &self,
        counter: &mut impl Counter,
        pause: &mut impl FnMut(Duration) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        for first in (0..self.size).step_by(STEP as usize) {
            let began = Instant::now();
            let were_used = self.step(first..self.size.min(first + STEP), counter);
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

    /// Whether a half lies, or once lay, in one of these entries.
    fn step(&self, numbers: Range<u32>, counter: &mut impl Counter) -> bool {
        let mut were_used = false;
        for number in numbers {
            let Some(entry) = self.entries.read(number) else { continue };
            let status = Status::of(&entry);
            if status.state != 0 || entry != FlowEntry::default() {
                were_used = true;
                counter.see(&Seen { number, entry: &entry, status, details: &self.details });
            }
        }
        were_used
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use nodeport_common::abi::{FLOW_REPLY, FlowEntry4};

    use super::*;
    use crate::dataplane::sys::SharedArray;

    const SIZE: u32 = 2 * STEP + 10;
    const ESTABLISHED: u8 = FlowState::Established as u8 + 1;

    /// A table of IPv4 flows as programs see it, and as the agent does.
    pub(in super::super) struct Memory {
        pub(in super::super) entries: SharedArray<FlowEntry4>,
        pub(in super::super) details: SharedArray<FlowDetails>,
        table: Table<Addr4>,
    }

    /// As a program and the agent see one array of so many elements.
    pub(in super::super) fn array<T: Plain>(len: u32) -> (SharedArray<T>, ReadOnlyArray<T>) {
        let file: File = tempfile::tempfile().unwrap();
        let stride = (size_of::<T>() as u64).next_multiple_of(8);
        file.set_len(u64::from(len) * stride).unwrap();
        let written = SharedArray::map(file.as_fd(), len).unwrap();
        (written, ReadOnlyArray::map(file.as_fd(), len).unwrap())
    }

    pub(in super::super) fn memory() -> Memory {
        let ((written, entries), (written_beside, details)) = (array(SIZE), array(SIZE));
        let table = Table { entries, details, size: SIZE };
        Memory { entries: written, details: written_beside, table }
    }

    impl Memory {
        /// Walks to the end.
        pub(in super::super) fn show(&self, counter: &mut impl Counter) {
            assert!(self.table.walk(counter, &mut |_| Ok(false)).unwrap());
        }
    }

    /// Number, whether it is open, and service.
    #[derive(Default)]
    struct Noted(Vec<(u32, bool, u32)>);

    impl Counter for Noted {
        fn see<A: InTable>(&mut self, seen: &Seen<'_, A>) {
            assert!(!A::IS_IPV6);
            self.0.push((seen.number, seen.is_open(), seen.details().service));
        }
    }

    /// One that has long ended.
    fn ended() -> FlowEntry4 {
        FlowEntry { version: 1, ..FlowEntry4::default() }
    }

    fn half(state: u8, flags: u8) -> FlowEntry4 {
        FlowEntry { state, flags, ..FlowEntry4::default() }
    }

    #[test]
    fn all_that_was_ever_used_is_shown() {
        use FlowState::*;

        let memory = memory();
        memory.entries.write(0, ended());
        for (number, state) in [(1, Opening), (3, Closed), (4, Reset), (5, Doubted)] {
            memory.entries.write(number, half(state as u8 + 1, FLOW_REPLY));
        }
        memory.entries.write(2 * STEP, half(ESTABLISHED, 0));
        memory.entries.write(STEP, ended());
        memory.details.write(5, FlowDetails { service: 8, ..FlowDetails::default() });
        let mut noted = Noted::default();
        memory.show(&mut noted);
        let expected = [
            (0, false, 0),
            (1, true, 0),
            (3, false, 0),
            (4, false, 0),
            (5, true, 8),
            (STEP, false, 0),
            (2 * STEP, true, 0),
        ];
        assert_eq!(noted.0, expected);
    }

    #[test]
    fn nothing_is_looked_at_behind_what_was_never_used() {
        let memory = memory();
        memory.entries.write(0, ended());
        memory.entries.write(2 * STEP, half(ESTABLISHED, 0));
        let mut noted = Noted::default();
        let mut steps = 0;
        let mut pause = |_| {
            steps += 1;
            Ok(false)
        };
        assert!(memory.table.walk(&mut noted, &mut pause).unwrap());
        assert_eq!((steps, noted.0), (2, vec![(0, false, 0)]));
    }

    #[test]
    fn a_walk_ends_when_it_is_told_to() {
        let memory = memory();
        memory.entries.write(0, ended());
        memory.entries.write(STEP, ended());
        let mut noted = Noted::default();
        assert!(!memory.table.walk(&mut noted, &mut |_| Ok(true)).unwrap());
        assert_eq!(noted.0.len(), 1);
    }

    #[test]
    fn several_count_on_one_walk() {
        let memory = memory();
        memory.entries.write(7, ended());
        let mut all = ((Noted::default(), None::<Noted>), Some(Noted::default()));
        memory.show(&mut all);
        let ((first, second), third) = all;
        assert_eq!((first.0.len(), second.is_none(), third.unwrap().0.len()), (1, true, 1));
    }
}
