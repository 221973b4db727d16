//! Goes through the tables of one family.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use aya::maps::{MapData, MapError};
use nodeport_common::abi::{Backend, Flow, FlowKey, Plain};
use nodeport_common::core::flow::partner_key;

use super::super::maps::{Hash, hash, open, shared};
use super::super::pins::Pins;
use super::super::sys::{self, Batch, Cursor, SharedArray};
use super::super::wire::Wire;
use super::decide::Limits;

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
    tables: [Table<A>; 2],
    backends: SharedArray<Backend<A>>,
    table: usize,
    cursor: Cursor,
    keys: Vec<Wire<FlowKey<A>>>,
    values: Vec<Wire<Flow<A>>>,
}

struct Table<A: Plain> {
    name: &'static str,
    map: MapData,
    hash: Hash<FlowKey<A>, Flow<A>>,
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
    ) -> anyhow::Result<Self> {
        let table = |name| -> anyhow::Result<Table<A>> {
            Ok(Table { name, map: open(pins, name)?, hash: hash(pins, name)? })
        };
        let mut family = Self {
            tables: [table(tables[0])?, table(tables[1])?],
            backends: shared(pins, backends)?,
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

    /// Reads the next entries and removes those that are over.
    pub(super) fn step(&mut self, now: u32, limits: &Limits) -> anyhow::Result<Step> {
        let (count, is_last) = self.read()?;
        let mut ended = 0;
        for index in 0..count {
            let (key, flow) = (self.keys[index].0, self.values[index].0);
            if self.is_over(&key, &flow, now, limits) && self.end(&key, now, limits)? {
                ended += 1;
            }
        }
        if is_last {
            self.table = (self.table + 1) % self.tables.len();
        }
        Ok(Step { ended, is_round: is_last && self.table == 0 })
    }

    fn read(&mut self) -> anyhow::Result<(usize, bool)> {
        loop {
            let Table { name, map, .. } = &self.tables[self.table];
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
        self.is_stale(flow) || limits.is_over(flow, None, key.protocol, now)
    }

    /// Whether the flow's backend is gone.
    fn is_stale(&self, flow: &Flow<A>) -> bool {
        let backend = self.backends.read(flow.backend);
        backend.map(|backend| backend.generation) != Some(flow.generation)
    }

    /// Looks at both halves as they are now, and removes them if the flow is over; true if so.
    fn end(&self, key: &FlowKey<A>, now: u32, limits: &Limits) -> anyhow::Result<bool> {
        let Some((table, flow)) = self.find(key)? else { return Ok(false) };
        let other_key = partner_key(key, &flow);
        // The same key, used by another flow, is no partner.
        let is_ours = |other: &(usize, Flow<A>)| partner_key(&other_key, &other.1) == *key;
        let other = self.find(&other_key)?.filter(is_ours);
        let partner = other.as_ref().map(|(_, flow)| flow);
        if !self.is_stale(&flow) && !limits.is_over(&flow, partner, key.protocol, now) {
            return Ok(false);
        }
        self.remove(table, key)?;
        if let Some((table, _)) = other {
            self.remove(table, &other_key)?;
        }
        Ok(true)
    }

    /// A half, and in which table it is: it may just have moved.
    fn find(&self, key: &FlowKey<A>) -> anyhow::Result<Option<(usize, Flow<A>)>> {
        for (table, Table { name, hash, .. }) in self.tables.iter().enumerate() {
            match hash.get(&Wire(*key), 0) {
                Ok(flow) => return Ok(Some((table, flow.0))),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).with_context(|| format!("reading {name}")),
            }
        }
        Ok(None)
    }

    /// Removes a half. One that has just moved to the other table was alive, and stays.
    fn remove(&self, table: usize, key: &FlowKey<A>) -> anyhow::Result<()> {
        let Table { name, map, .. } = &self.tables[table];
        sys::delete_batch(map.fd().as_fd(), &[Wire(*key)])
            .with_context(|| format!("removing a flow from {name}"))?;
        Ok(())
    }
}
