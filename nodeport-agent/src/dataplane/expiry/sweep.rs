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
pub(super) enum Step {
    /// There is more in this round.
    More,
    /// That was the last of the round.
    RoundEnded,
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
        for index in 0..count {
            let (key, flow) = (self.keys[index].0, self.values[index].0);
            if self.is_over(&key, &flow, now, limits) {
                self.end(&key, now, limits)?;
            }
        }
        if !is_last {
            return Ok(Step::More);
        }
        self.table = (self.table + 1) % self.tables.len();
        Ok(if self.table == 0 { Step::RoundEnded } else { Step::More })
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

    /// Looks at both halves as they are now, and removes them if the flow is over.
    fn end(&mut self, key: &FlowKey<A>, now: u32, limits: &Limits) -> anyhow::Result<()> {
        let Some(flow) = self.find(key)? else { return Ok(()) };
        let other_key = partner_key(key, &flow);
        // The same key, used by another flow, is no partner.
        let is_ours = |other: &Flow<A>| partner_key(&other_key, other) == *key;
        let other = self.find(&other_key)?.filter(is_ours);
        if !self.is_stale(&flow) && !limits.is_over(&flow, other.as_ref(), key.protocol, now) {
            return Ok(());
        }
        self.remove(key)?;
        if other.is_some() {
            self.remove(&other_key)?;
        }
        Ok(())
    }

    /// A half, in whichever table it is: it may just have moved.
    fn find(&self, key: &FlowKey<A>) -> anyhow::Result<Option<Flow<A>>> {
        for Table { name, hash, .. } in &self.tables {
            match hash.get(&Wire(*key), 0) {
                Ok(flow) => return Ok(Some(flow.0)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).with_context(|| format!("reading {name}")),
            }
        }
        Ok(None)
    }

    fn remove(&mut self, key: &FlowKey<A>) -> anyhow::Result<()> {
        for Table { name, map, .. } in &self.tables {
            sys::delete_batch(map.fd().as_fd(), &[Wire(*key)])
                .with_context(|| format!("removing a flow from {name}"))?;
        }
        Ok(())
    }
}
