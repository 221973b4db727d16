//! Counts what is written to the maps.

use std::sync::Arc;

use crate::dataplane::{Dataplane, Failure, Observed, Op, PortReport};

/// The kernel side, with a count of the writes to it that succeeded.
pub(super) struct Counted {
    inner: Box<dyn Dataplane>,
    writes: u64,
}

impl Counted {
    pub(super) fn new(inner: Box<dyn Dataplane>) -> Self {
        Self { inner, writes: 0 }
    }

    /// Writes so far. The slots of a table are one.
    pub(super) const fn writes(&self) -> u64 {
        self.writes
    }
}

impl Dataplane for Counted {
    fn observe(&mut self) -> anyhow::Result<Observed> {
        self.inner.observe()
    }

    fn read_slots(&mut self, offset: u32, len: u32) -> anyhow::Result<Vec<u32>> {
        self.inner.read_slots(offset, len)
    }

    fn slot_capacity(&self) -> u32 {
        self.inner.slot_capacity()
    }

    fn check(&self) -> anyhow::Result<()> {
        self.inner.check()
    }

    fn port_report(&self) -> Arc<PortReport> {
        self.inner.port_report()
    }

    fn begin_barrier(&mut self) {
        self.inner.begin_barrier();
    }

    fn barrier_ended(&mut self) -> Option<anyhow::Result<()>> {
        self.inner.barrier_ended()
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        let failures = self.inner.apply(ops);
        let is_write = |op: &&Op| !matches!(op, Op::Barrier);
        let failed = failures.iter().filter_map(|failure| ops.get(failure.index)).filter(is_write);
        self.writes += (ops.iter().filter(is_write).count() - failed.count()) as u64;
        failures
    }
}
