//! Processor time of a load: of this process, which is client and backend, and of the kernel's
//! threads that carry packets when a softirq has gone on for too long. What the node does for a
//! packet happens in the one or the other.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// Wall and processor time since a moment.
pub(super) struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

/// What has passed.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Spent {
    /// As a clock on the wall shows it.
    pub wall: Duration,
    /// On all processors.
    pub cpu: Duration,
}

impl Stopwatch {
    pub(super) fn start() -> Result<Self> {
        Ok(Self { cpu: cpu_time()?, wall: Instant::now() })
    }

    pub(super) fn stop(self) -> Result<Spent> {
        let wall = self.wall.elapsed();
        Ok(Spent { wall, cpu: cpu_time()?.saturating_sub(self.cpu) })
    }
}

impl Spent {
    /// So many per second of the wall's clock.
    pub(in super::super) fn rate(&self, count: u64) -> f64 {
        count as f64 / self.wall.as_secs_f64()
    }

    /// Nanoseconds of processors for each.
    pub(in super::super) fn cpu_each(&self, count: u64) -> f64 {
        self.cpu.as_nanos() as f64 / count as f64
    }
}

fn cpu_time() -> Result<Duration> {
    let process = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("processor time")?;
    Ok(Duration::from(process) + softirq_threads())
}

/// Zero where they cannot be read: then they are those of another PID namespace.
fn softirq_threads() -> Duration {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    // Kernel threads of the first processors have small numbers.
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let threads = pids.filter(|pid| *pid < 2_000).filter(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.starts_with("ksoftirqd/"))
    });
    let time = |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    threads.filter_map(time).sum()
}
