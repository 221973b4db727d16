//! Goes through the table of one family.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use nodeport_common::abi::{SWEEP_ANY_USED, SweepRequest};
use nodeport_common::core::expiry::Limits;

use super::super::sys::run_program;

/// Entries that are looked at in one step: well below a millisecond's worth.
const STEP: u32 = 4_096;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Flows that were ended.
    pub(super) ended: u32,
    /// It was the last of a round.
    pub(super) is_round: bool,
}

/// The table of one family, and where the way through it stands.
#[derive(Debug)]
pub(super) struct Family {
    program: OwnedFd,
    /// 4 or 6.
    family: u32,
    entries: u32,
    next: u32,
}

impl Family {
    pub(super) fn new(program: OwnedFd, family: u32, entries: u32) -> Self {
        Self { program, family, entries, next: 0 }
    }

    /// Has the next entries looked at, and those that are over ended.
    pub(super) fn step(&mut self, limits: &Limits) -> anyhow::Result<Step> {
        let (family, first) = (self.family, self.next);
        let count = STEP.min(self.entries - first);
        let request = SweepRequest { family, first, count, limits: *limits };
        let said =
            run_program(self.program.as_fd(), &request).context("running nodeport_expire")?;
        // Where no half ever lay, none lies behind.
        let is_round = said & SWEEP_ANY_USED == 0 || first + count >= self.entries;
        self.next = if is_round { 0 } else { first + count };
        Ok(Step { ended: said & !SWEEP_ANY_USED, is_round })
    }
}
