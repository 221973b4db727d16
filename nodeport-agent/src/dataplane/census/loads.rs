//! Counts the flows of each backend, for services that send new ones to the less busy of two.
//!
//! What programs know between two counts they add themselves ([`Load`]). So nothing has to be written
//! where flows end, which is in many places; what a count misses the next one finds; and while the
//! agent is away, what was opened since it went is evened out.

use nodeport_common::abi::{Addr4, Addr6, BACKEND_BITS, Backend, FLOW_REPLY, Load, Plain, maps};
use nodeport_common::core::table::half::kept;

use super::super::maps::{read_only, shared};
use super::super::pins::Pins;
use super::super::sys::{ReadOnlyArray, SharedArray};
use super::walk::{Counter, InTable, Seen};

/// What is known of the backends of both families.
pub(super) struct Loads {
    of4: Family<Addr4>,
    of6: Family<Addr6>,
}

/// The maps of one family.
struct Family<A> {
    backends: ReadOnlyArray<Backend<A>>,
    loads: SharedArray<Load>,
}

/// A count that goes on.
pub(super) struct Count<'a> {
    of4: Part<'a, Addr4>,
    of6: Part<'a, Addr6>,
}

/// That of one family.
struct Part<'a, A> {
    family: &'a Family<A>,
    /// What was written when it began.
    before: Vec<Load>,
    /// Flows by the indices of their backends.
    flows: Vec<u32>,
}

impl Loads {
    pub(super) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let (backends4, loads4) = (read_only(pins, maps::BACKENDS4)?, shared(pins, maps::LOADS4)?);
        let (backends6, loads6) = (read_only(pins, maps::BACKENDS6)?, shared(pins, maps::LOADS6)?);
        Ok(Self {
            of4: Family { backends: backends4, loads: loads4 },
            of6: Family { backends: backends6, loads: loads6 },
        })
    }

    /// Begins to count. What is opened meanwhile may be counted in both words, and is not lost.
    pub(super) fn begin(&self) -> Count<'_> {
        Count { of4: self.of4.begin(), of6: self.of6.begin() }
    }
}

impl<A> Family<A> {
    fn begin(&self) -> Part<'_, A> {
        let before: Vec<_> = (0..self.loads.len()).map_while(|at| self.loads.read(at)).collect();
        Part { family: self, flows: vec![0; before.len()], before }
    }
}

impl Count<'_> {
    /// Writes what has changed.
    pub(super) fn finish(self) {
        self.of4.finish();
        self.of6.finish();
    }
}

impl Counter for Count<'_> {
    /// A flow is its client's half.
    fn see<A: InTable>(&mut self, seen: &Seen<'_, A>) {
        if !seen.is_open() || seen.status.flags & FLOW_REPLY != 0 {
            return;
        }
        if A::IS_IPV6 {
            self.of6.add(seen.entry.backend);
        } else {
            self.of4.add(seen.entry.backend);
        }
    }
}

impl<A> Part<'_, A>
where
    Backend<A>: Plain,
{
    /// Counts a flow to that backend, if its index has the same one still.
    fn add(&mut self, word: u32) {
        let index = word & ((1 << BACKEND_BITS) - 1);
        let Some(backend) = self.family.backends.read(index) else { return };
        if kept(backend.generation) == word >> BACKEND_BITS
            && let Some(flows) = self.flows.get_mut(index as usize)
        {
            *flows += 1;
        }
    }

    fn finish(self) {
        for ((index, load), flows) in (0..).zip(&self.before).zip(self.flows) {
            let base = flows.wrapping_sub(load.opened);
            if base != load.base {
                self.family.loads.write_word(index, BASE, base);
            }
        }
    }
}

/// The place of [`Load::base`] among the words of a load.
const BASE: usize = std::mem::offset_of!(Load, base) / size_of::<u32>();

#[cfg(test)]
mod tests {
    use nodeport_common::abi::{FlowEntry, FlowEntry4, FlowState};
    use nodeport_common::core::table::half::backend_word;

    use super::super::walk::tests::{Memory, array, memory};
    use super::*;

    const BACKENDS: u32 = 8;
    const GENERATION: u32 = 5;

    /// As programs see the maps, and as the agent does.
    struct World {
        flows: Memory,
        backends: SharedArray<Backend<Addr4>>,
        counted: Loads,
    }

    fn family<A>() -> (SharedArray<Backend<A>>, Family<A>)
    where
        Backend<A>: Plain,
    {
        let ((written, backends), (loads, _)) = (array(BACKENDS), array(BACKENDS));
        (written, Family { backends, loads })
    }

    fn world() -> World {
        let ((backends, of4), (_, of6)) = (family(), family());
        World { flows: memory(), backends, counted: Loads { of4, of6 } }
    }

    impl World {
        fn put(&self, number: u32, backend: u32, state: FlowState, flags: u8) {
            let generation = self.backends.read(backend).unwrap().generation;
            let backend = backend_word(backend, generation);
            let entry =
                FlowEntry { backend, state: state as u8 + 1, flags, ..FlowEntry::default() };
            self.flows.entries.write(number, entry);
        }

        fn ends(&self, number: u32) {
            self.flows.entries.write(number, FlowEntry { version: 1, ..FlowEntry4::default() });
        }

        fn opens(&self, backend: u32) {
            self.counted.of4.loads.update(backend, |load| {
                load.opened = load.opened.wrapping_add(1);
            });
        }

        fn count(&self) {
            let mut count = self.counted.begin();
            self.flows.show(&mut count);
            count.finish();
        }

        fn load(&self, backend: u32) -> u32 {
            self.counted.of4.loads.read(backend).unwrap().flows()
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
        world.count();
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
        world.count();
        assert_eq!(world.load(2), 10, "counted");
        world.opens(2);
        assert_eq!(world.load(2), 11, "and noted since");
        (0..8).for_each(|number| world.ends(number));
        assert_eq!(world.load(2), 11, "what ended is told by the next count");
        world.count();
        assert_eq!(world.load(2), 2);
    }

    #[test]
    fn what_is_opened_while_a_count_goes_on_is_not_lost() {
        let world = world();
        world.put(0, 2, FlowState::Established, 0);
        let mut count = world.counted.begin();
        world.flows.show(&mut count);
        world.put(1, 2, FlowState::Opening, 0);
        world.opens(2);
        count.finish();
        assert_eq!(world.load(2), 2);
    }

    #[test]
    fn flows_of_the_backend_before_are_not_its_own() {
        let world = world();
        world.put(0, 1, FlowState::Established, 0);
        world.count();
        assert_eq!(world.load(1), 1);
        world.backends.write(1, Backend { generation: 1, ..Backend::default() });
        world.count();
        assert_eq!(world.load(1), 0);
    }

    #[test]
    fn counters_may_go_round() {
        let world = world();
        world.counted.of4.loads.write(4, Load { base: 0, opened: u32::MAX });
        world.put(0, 4, FlowState::Established, 0);
        world.count();
        assert_eq!(world.load(4), 1);
        world.opens(4);
        world.opens(4);
        assert_eq!(world.load(4), 3);
    }
}
