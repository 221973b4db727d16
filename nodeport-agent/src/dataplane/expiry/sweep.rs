//! Goes through the tables of one family.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use aya::maps::MapData;
use nodeport_common::abi::{Backend, Flow, FlowKey, Plain};
use nodeport_common::core::expiry::Limits;

use super::super::maps::{open, shared};
use super::super::pins::Pins;
use super::super::sys::{self, Batch, Cursor, SharedArray};
use super::super::wire::Wire;
use super::ender::Ender;

/// Entries that are read in one step.
const STEP: usize = 2_048;
/// Most entries that one bucket of a hash can be believed to have.
const LARGEST_STEP: usize = 1 << 20;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Flows that were ended.
    pub(super) ended: u32,
    /// It was the last of a round.
    pub(super) is_round: bool,
}

/// The tables of one family, and where the way through them stands.
pub(super) struct Family<A: Plain> {
    tables: [Table; 2],
    backends: SharedArray<Backend<A>>,
    ender: Ender,
    table: usize,
    cursor: Cursor,
    keys: Vec<Wire<FlowKey<A>>>,
    values: Vec<Wire<Flow<A>>>,
}

struct Table {
    name: &'static str,
    map: MapData,
}

impl<A> Family<A>
where
    A: Plain + Default + PartialEq,
    FlowKey<A>: Plain + Default,
    Flow<A>: Plain + Default,
    Backend<A>: Plain,
{
    pub(super) fn open(
        pins: &Pins,
        tables: [&'static str; 2],
        backends: &str,
        ender: Ender,
    ) -> anyhow::Result<Self> {
        let table = |name| -> anyhow::Result<Table> { Ok(Table { name, map: open(pins, name)? }) };
        let mut family = Self {
            tables: [table(tables[0])?, table(tables[1])?],
            backends: shared(pins, backends)?,
            ender,
            table: 0,
            cursor: Cursor::default(),
            keys: Vec::new(),
            values: Vec::new(),
        };
        family.make_room(STEP);
        Ok(family)
    }

    fn make_room(&mut self, entries: usize) {
        self.keys.resize_with(entries, Wire::default);
        self.values.resize_with(entries, Wire::default);
    }

    /// Reads the next entries and ends those that are over.
    pub(super) fn step(&mut self, now: u32, limits: &Limits) -> anyhow::Result<Step> {
        let (count, is_last) = self.read()?;
        let entries = self.keys.iter().zip(&self.values).take(count);
        let over: Vec<_> = entries
            .filter(|(key, flow)| self.is_over(&key.0, &flow.0, now, limits))
            .map(|(key, _)| key.0)
            .collect();
        let ended = self.ender.end(&over, limits)?;
        if is_last {
            self.table = (self.table + 1) % self.tables.len();
        }
        Ok(Step { ended, is_round: is_last && self.table == 0 })
    }

    fn read(&mut self) -> anyhow::Result<(usize, bool)> {
        loop {
            let Table { name, map } = &self.tables[self.table];
            let (keys, values) = (&mut self.keys, &mut self.values);
            match sys::look_up_batch(map.fd().as_fd(), &mut self.cursor, keys, values)
                .with_context(|| format!("reading {name}"))?
            {
                Batch::More(count) => return Ok((count, false)),
                Batch::Last(count) => return Ok((count, true)),
                Batch::TooSmall if self.keys.len() >= LARGEST_STEP => {
                    bail!("the entries of {name} are in one place: its hash is under attack")
                }
                Batch::TooSmall => self.make_room(self.keys.len() * 2),
            }
        }
    }

    /// A first look, at one half alone: nearly all flows live.
    fn is_over(&self, key: &FlowKey<A>, flow: &Flow<A>, now: u32, limits: &Limits) -> bool {
        self.is_stale(flow) || limits.is_over(flow, key.protocol, now)
    }

    /// Whether the flow's backend is gone.
    fn is_stale(&self, flow: &Flow<A>) -> bool {
        let backend = self.backends.read(flow.backend);
        backend.map(|backend| backend.generation) != Some(flow.generation)
    }
}
