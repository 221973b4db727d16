//! Counts the flows of each backend, for services that send new ones to the less busy of two.
//!
//! What programs know between two counts they add themselves ([`Load`]). So nothing has to be written
//! where flows end, which is in many places; what a count misses the next one finds; and while the
//! agent is away, what was opened since it went is evened out.

use std::io::PipeReader;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodeport_common::abi::{
    Addr4, Addr6, BACKEND_BITS, Backend, FLOW_REPLY, FlowEntry, FlowState, Heap, Load, Plain, maps,
};
use nodeport_common::core::table::half::kept;
use nodeport_common::core::table::status::Status;

use super::control::Control;
use super::maps::{read_only, shared};
use super::pins::Pins;
use super::sys::{ReadOnlyArray, SharedArray};
use super::worker::{Worker, has_ended};

/// From one count to the next, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// And so many times what a count took: it costs a tenth of a CPU at most.
const REST: u32 = 9;
/// Entries after which it is asked whether any more have been used.
const PART: u32 = 4_096;

/// What the thread that counts works with.
pub(super) struct Counting {
    control: Arc<Control>,
    family4: Family<Addr4, [u64; 0]>,
    family6: Family<Addr6, [u64; 2]>,
}

impl Counting {
    pub(super) fn open(pins: &Pins, control: Arc<Control>) -> anyhow::Result<Self> {
        let heaps: ReadOnlyArray<Heap> = read_only(pins, maps::HEAP)?;
        let size = |index| heaps.read(index).map_or(0, |heap| heap.entries);
        Ok(Self {
            control,
            family4: Family {
                size: size(0),
                flows: read_only(pins, maps::FLOWS4)?,
                backends: read_only(pins, maps::BACKENDS4)?,
                loads: shared(pins, maps::LOADS4)?,
            },
            family6: Family {
                size: size(1),
                flows: read_only(pins, maps::FLOWS6)?,
                backends: read_only(pins, maps::BACKENDS6)?,
                loads: shared(pins, maps::LOADS6)?,
            },
        })
    }

    /// Starts the thread.
    pub(super) fn start(self) -> anyhow::Result<Worker> {
        Worker::start("loads", "how busy backends are is not known any more", |stop| self.run(stop))
    }

    /// Goes on until told to stop. Where no service wants to know, it only looks whether one does.
    fn run(self, stop: &PipeReader) -> anyhow::Result<()> {
        loop {
            let start = Instant::now();
            if self.control.counts_loads() {
                self.family4.count();
                self.family6.count();
            }
            if has_ended(stop, PAUSE.max(start.elapsed() * REST))? {
                return Ok(());
            }
        }
    }
}

/// The maps of one family.
struct Family<A, P> {
    /// Entries that the table has.
    size: u32,
    flows: ReadOnlyArray<FlowEntry<A, P>>,
    backends: ReadOnlyArray<Backend<A>>,
    loads: SharedArray<Load>,
}

impl<A, P> Family<A, P>
where
    FlowEntry<A, P>: Plain,
    Backend<A>: Plain,
{
    /// Counts, and writes what has changed.
    fn count(&self) {
        // What is opened meanwhile may be counted in both words, and is not lost.
        let before: Vec<Load> = (0..self.loads.len()).map_while(|at| self.loads.read(at)).collect();
        let mut flows = vec![0u32; before.len()];
        for first in (0..self.size).step_by(PART as usize) {
            if !self.count_part(first, &mut flows) {
                // Entries are given out from the front: behind these none has been used.
                break;
            }
        }
        for ((index, load), flows) in (0..).zip(&before).zip(flows) {
            let base = flows.wrapping_sub(load.opened);
            if base != load.base {
                self.loads.write_word(index, BASE, base);
            }
        }
    }

    /// Counts flows in part of the table, by the indices of their backends; false if none of its entries
    /// has ever been used.
    fn count_part(&self, first: u32, flows: &mut [u32]) -> bool {
        let mut any_used = false;
        for number in first..self.size.min(first + PART) {
            let Some(entry) = self.flows.read(number) else { continue };
            let status = Status::of(&entry);
            any_used |= status.state != 0 || status.version != 0;
            if is_live_client_half(status)
                && let Some(index) = self.backend_of(&entry)
                && let Some(count) = flows.get_mut(index as usize)
            {
                *count += 1;
            }
        }
        any_used
    }

    /// The index of the flow's backend, if that is the same one still.
    fn backend_of(&self, entry: &FlowEntry<A, P>) -> Option<u32> {
        let index = entry.backend & ((1 << BACKEND_BITS) - 1);
        let backend = self.backends.read(index)?;
        (kept(backend.generation) == entry.backend >> BACKEND_BITS).then_some(index)
    }
}

/// Whether it is a client's half of a flow that is not over.
fn is_live_client_half(status: Status) -> bool {
    let is_over = matches!(status.flow_state(), FlowState::Closed | FlowState::Reset);
    status.is_live() && status.flags & FLOW_REPLY == 0 && !is_over
}

/// The place of [`Load::base`] among the words of a load.
const BASE: usize = std::mem::offset_of!(Load, base) / size_of::<u32>();

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use nodeport_common::core::table::half::backend_word;

    use super::*;

    const SIZE: u32 = 3 * PART;
    const BACKENDS: u32 = 8;
    const GENERATION: u32 = 5;

    /// As programs see the maps, and as the agent does.
    struct World {
        flows: SharedArray<FlowEntry<Addr4, [u64; 0]>>,
        backends: SharedArray<Backend<Addr4>>,
        family: Family<Addr4, [u64; 0]>,
    }

    fn file<T>(len: u32) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(u64::from(len) * (size_of::<T>() as u64).next_multiple_of(8)).unwrap();
        file
    }

    fn world() -> World {
        let flows = file::<FlowEntry<Addr4, [u64; 0]>>(SIZE);
        let (backends, loads) = (file::<Backend<Addr4>>(BACKENDS), file::<Load>(BACKENDS));
        World {
            flows: SharedArray::map(flows.as_fd(), SIZE).unwrap(),
            backends: SharedArray::map(backends.as_fd(), BACKENDS).unwrap(),
            family: Family {
                size: SIZE,
                flows: ReadOnlyArray::map(flows.as_fd(), SIZE).unwrap(),
                backends: ReadOnlyArray::map(backends.as_fd(), BACKENDS).unwrap(),
                loads: SharedArray::map(loads.as_fd(), BACKENDS).unwrap(),
            },
        }
    }

    impl World {
        fn put(&self, number: u32, backend: u32, state: FlowState, flags: u8) {
            let generation = self.backends.read(backend).unwrap().generation;
            let backend = backend_word(backend, generation);
            let entry =
                FlowEntry { backend, state: state as u8 + 1, flags, ..FlowEntry::default() };
            self.flows.write(number, entry);
        }

        fn opens(&self, backend: u32) {
            self.family.loads.update(backend, |load| load.opened += 1);
        }

        fn load(&self, backend: u32) -> u32 {
            self.family.loads.read(backend).unwrap().flows()
        }
    }

    #[test]
    fn what_counts_is_a_client_half_that_is_not_over() {
        use FlowState::*;

        let world = world();
        world.backends.write(3, Backend { generation: GENERATION, ..Backend::default() });
        let states =
            [Opening, Answered, Established, ClientClosed, BackendClosed, Doubted, Closed, Reset];
        for (number, state) in (0..).zip(states) {
            world.put(2 * number, 3, state, 0);
            world.put(2 * number + 1, 3, state, FLOW_REPLY);
        }
        world.family.count();
        assert_eq!((world.load(3), world.load(0)), (6, 0));
    }

    #[test]
    fn a_count_takes_the_place_of_what_was_noted_before_it() {
        let world = world();
        for number in 0..10 {
            world.opens(2);
            world.put(number, 2, FlowState::Established, 0);
        }
        assert_eq!(world.load(2), 10, "noted");
        world.family.count();
        assert_eq!(world.load(2), 10, "counted");
        world.opens(2);
        assert_eq!(world.load(2), 11, "and noted since");
        for number in 0..8 {
            world.flows.write(number, FlowEntry { version: 1, ..FlowEntry::default() });
        }
        assert_eq!(world.load(2), 11, "what ended is told by the next count");
        world.family.count();
        assert_eq!(world.load(2), 2);
    }

    #[test]
    fn flows_of_the_backend_before_are_not_its_own() {
        let world = world();
        world.put(0, 1, FlowState::Established, 0);
        world.family.count();
        assert_eq!(world.load(1), 1);
        world.backends.write(1, Backend { generation: 1, ..Backend::default() });
        world.family.count();
        assert_eq!(world.load(1), 0);
    }

    #[test]
    fn a_part_without_flows_that_had_some_is_not_the_end() {
        let world = world();
        world.put(PART + 7, 1, FlowState::Established, 0);
        world.family.count();
        assert_eq!(world.load(1), 0, "nothing lies behind what was never used");
        world.flows.write(9, FlowEntry { version: 1, ..FlowEntry::default() });
        world.family.count();
        assert_eq!(world.load(1), 1);
    }

    #[test]
    fn counters_may_go_round() {
        let world = world();
        world.family.loads.write(4, Load { base: 0, opened: u32::MAX });
        world.put(0, 4, FlowState::Established, 0);
        world.family.count();
        assert_eq!(world.load(4), 1);
        world.family.loads.update(4, |load| load.opened = load.opened.wrapping_add(2));
        assert_eq!(world.load(4), 3);
    }
}
