//! Takes flows out of the tables when they have been silent for too long, or when their backend
//! is gone.
//!
//! One thread goes through the tables in steps of bounded length, with pauses that keep its share
//! of a CPU small. The agent's absence ends no flow, only this.

mod decide;
mod sweep;

use std::io::{PipeWriter, Write as _};
use std::os::fd::AsFd as _;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nodeport_common::abi::{Addr4, Addr6, maps};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) use decide::Limits;
use sweep::{Family, Step};

use super::overload::Overload;
use super::pins::Pins;
use super::sys::Jiffies;

/// After each step the thread rests for so many times what the step took.
const REST: u32 = 9;
/// A round through all tables takes at least so long.
const ROUND: Duration = Duration::from_secs(1);
/// A step that takes longer than this is worth a word.
const LONG_STEP: Duration = Duration::from_millis(20);

/// The thread that takes flows out.
#[derive(Debug)]
pub(super) struct Sweeper {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
pub(super) struct Sweeping {
    family4: Family<Addr4>,
    family6: Family<Addr6>,
    /// Whether IPv6 has its turn.
    is_at_6: bool,
    clock: Jiffies,
    limits: Limits,
    overload: Overload,
}

impl Sweeping {
    pub(super) fn open(
        pins: &Pins,
        clock: Jiffies,
        limits: Limits,
        overload: Overload,
    ) -> anyhow::Result<Self> {
        let family4 = Family::open(pins, [maps::FLOWS4, maps::NURSERY4], maps::BACKENDS4)?;
        let family6 = Family::open(pins, [maps::FLOWS6, maps::NURSERY6], maps::BACKENDS6)?;
        Ok(Self { family4, family6, is_at_6: false, clock, limits, overload })
    }

    /// Takes one step; true if that was the last of a round.
    fn step(&mut self) -> anyhow::Result<bool> {
        let now = self.clock.now().context("reading the kernel's clock")?;
        let was_at_6 = self.is_at_6;
        let step = if was_at_6 {
            self.family6.step(now, &self.limits)?
        } else {
            self.family4.step(now, &self.limits)?
        };
        self.is_at_6 ^= step == Step::RoundEnded;
        Ok(was_at_6 && step == Step::RoundEnded)
    }

    fn run(mut self, stop: &impl std::os::fd::AsFd) -> anyhow::Result<()> {
        let mut began = Instant::now();
        loop {
            let start = Instant::now();
            let ended = self.step()?;
            let took = start.elapsed();
            if took > LONG_STEP {
                tracing::debug!("one step through the flows took {took:?}");
            }
            let mut rest = took * REST;
            if ended {
                self.overload.look();
                rest = rest.max(ROUND.saturating_sub(began.elapsed()));
            }
            if has_ended(stop, rest)? {
                return Ok(());
            }
            if ended {
                began = Instant::now();
            }
        }
    }
}

/// Rests; true if it is time to end.
fn has_ended(stop: &impl std::os::fd::AsFd, rest: Duration) -> anyhow::Result<bool> {
    let rest = Timespec::try_from(rest)?;
    match poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&rest)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("resting between two steps"),
    }
}

impl Sweeper {
    pub(super) fn start(sweeping: Sweeping) -> anyhow::Result<Self> {
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        let run = move || {
            if let Err(error) = sweeping.run(&reader.as_fd()) {
                tracing::error!("flows expire no more: {error:#}; restart the agent");
            }
        };
        let thread = std::thread::Builder::new()
            .name("expiry".to_owned())
            .spawn(run)
            .context("starting the thread that lets flows expire")?;
        Ok(Self { stop: Some(writer), thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(mut stop) = self.stop.take() {
            // Closing the pipe says the same.
            let _ = stop.write_all(&[0]);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
