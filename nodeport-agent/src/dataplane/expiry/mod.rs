//! Takes flows out of the table when they have been silent for too long, or when their backend
//! is gone.
//!
//! One thread has a program go through the table in steps of bounded length, with pauses that keep
//! its share of a CPU small. While the agent is away flows go on, and none expires.

mod decide;
mod sweep;

use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nodeport_common::abi::{Heap, maps};

pub(super) use decide::limits;
use nodeport_common::core::expiry::Limits;
use sweep::{Family, Step};

use super::maps::shared;
use super::overload::Overload;
use super::pins::Pins;
use super::sys::SharedArray;
use super::worker::{Worker, has_ended};

/// After each step the thread rests for so many times what the step took: looking costs a tenth
/// of a CPU at most.
const REST: u32 = 9;
/// The same after a step that ended flows: ports are given back as fast as they are taken.
const SHORT_REST: u32 = 1;
/// A round through all tables takes at least so long.
const ROUND: Duration = Duration::from_secs(1);
/// A step that takes longer than this is worth a word.
const LONG_STEP: Duration = Duration::from_millis(20);

/// Pause after a table could not be read.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What the thread that takes flows out works with.
pub(super) struct Sweeping {
    family4: Family,
    family6: Family,
    /// Whether IPv6 has its turn.
    is_at_6: bool,
    limits: Limits,
    overload: Overload,
}

impl Sweeping {
    pub(super) fn open(
        pins: &Pins,
        program: OwnedFd,
        limits: Limits,
        overload: Overload,
    ) -> anyhow::Result<Self> {
        let heaps: SharedArray<Heap> = shared(pins, maps::HEAP)?;
        let entries = |index| heaps.read(index).map_or(0, |heap| heap.entries);
        let family4 = Family::new(program.try_clone()?, 4, entries(0));
        let family6 = Family::new(program, 6, entries(1));
        Ok(Self { family4, family6, is_at_6: false, limits, overload })
    }

    /// Starts the thread.
    pub(super) fn start(self) -> anyhow::Result<Worker> {
        Worker::start("expiry", "flows expire no more", |stop| self.run(stop))
    }

    /// Takes one step; a round is through both families.
    fn step(&mut self) -> anyhow::Result<Step> {
        let was_at_6 = self.is_at_6;
        let step = if was_at_6 {
            self.family6.step(&self.limits)?
        } else {
            self.family4.step(&self.limits)?
        };
        self.is_at_6 ^= step.is_round;
        Ok(Step { is_round: was_at_6 && step.is_round, ..step })
    }

    /// Goes on until told to stop.
    fn run(mut self, stop: &PipeReader) -> anyhow::Result<()> {
        let mut began = Instant::now();
        loop {
            let start = Instant::now();
            let step = self.step();
            let mut rest = rest_after(&step, start.elapsed());
            if step.is_ok_and(|step| step.is_round) {
                self.overload.look();
                rest = rest.max(ROUND.saturating_sub(began.elapsed()));
                began = Instant::now() + rest;
            }
            if has_ended(stop, rest)? {
                return Ok(());
            }
        }
    }
}

fn rest_after(step: &anyhow::Result<Step>, took: Duration) -> Duration {
    if took > LONG_STEP {
        tracing::debug!("one step through the flows took {took:?}");
    }
    match step {
        Ok(Step { ended: 0, .. }) => took * REST,
        Ok(_) => took * SHORT_REST,
        Err(error) => {
            tracing::warn!("looking for flows that are over: {error:#}; trying again");
            AFTER_FAILURE
        }
    }
}
