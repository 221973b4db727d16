//! The kernel's clock, as programs see it.
//!
//! Entries of flows are stamped with jiffies, which no file shows everywhere (containers hide
//! `/proc/timer_list`). A program of two instructions, run on demand, returns them.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya_obj::generated::{bpf_cmd, bpf_prog_type};
use nodeport_common::abi::Plain;

use super::bpf::{address, call_for_fd};
use super::test_run::run_program;

/// `call bpf_jiffies64; exit`: opcode, registers, offset and immediate of each.
const PROGRAM: [u64; 2] = [instruction(0x85, 118), instruction(0x95, 0)];

const fn instruction(opcode: u64, immediate: u64) -> u64 {
    if cfg!(target_endian = "little") { opcode | immediate << 32 } else { opcode << 56 | immediate }
}

/// Smallest frame that a test run takes.
const FRAME: [u8; 14] = [0; 14];
/// How long the clock is watched to find out how fast it ticks.
const WATCHED: Duration = Duration::from_millis(60);
/// Slowest tick of any kernel configuration, with room.
const LONGEST_TICK: Duration = Duration::from_millis(50);

/// The clock.
#[derive(Debug)]
pub(crate) struct Jiffies(OwnedFd);

/// The head of `bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
}
impl Plain for ProgramLoad {}

impl Jiffies {
    /// Loads the program.
    pub(crate) fn load() -> io::Result<Self> {
        let mut attributes = ProgramLoad {
            kind: bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32,
            count: PROGRAM.len() as u32,
            // Both are constants, which the call only reads.
            instructions: address(PROGRAM.as_ptr()),
            licence: address(c"Dual MIT/GPL".as_ptr()),
        };
        call_for_fd(bpf_cmd::BPF_PROG_LOAD, &mut attributes).map(Self)
    }

    /// Jiffies now, low 32 bits.
    pub(crate) fn now(&self) -> io::Result<u32> {
        run_program(self.0.as_fd(), &FRAME)
    }

    /// Jiffies per second, found by watching the clock from one tick to another.
    pub(crate) fn frequency(&self) -> anyhow::Result<u32> {
        let (from, began) = self.tick()?;
        std::thread::sleep(WATCHED);
        let (to, ended) = self.tick()?;
        let ticks = f64::from(to.wrapping_sub(from));
        let hz = (ticks / ended.duration_since(began).as_secs_f64()).round();
        ensure!((20.0..=2_000.0).contains(&hz), "the kernel's clock ticks {hz} times a second?");
        Ok(usual(hz as u32))
    }

    /// Waits for the next tick.
    fn tick(&self) -> anyhow::Result<(u32, Instant)> {
        let start = Instant::now();
        let before = self.now().context("reading the kernel's clock")?;
        loop {
            let now = self.now().context("reading the kernel's clock")?;
            if now != before {
                return Ok((now, Instant::now()));
            }
            ensure!(start.elapsed() < LONGEST_TICK, "the kernel's clock stands still");
        }
    }
}

/// The configurable frequency next to a measured one, if there is one within two percent.
fn usual(measured: u32) -> u32 {
    [100, 250, 300, 1_000]
        .into_iter()
        .find(|hz| measured.abs_diff(*hz) * 50 <= *hz)
        .unwrap_or(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_frequencies_snap_to_configurable_ones() {
        for (measured, hz) in
            [(100, 100), (99, 100), (252, 250), (246, 250), (297, 300), (985, 1_000), (500, 500)]
        {
            assert_eq!(usual(measured), hz, "{measured}");
        }
    }

    #[test]
    fn the_clock_ticks() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let clock = Jiffies::load().unwrap();
        let hz = clock.frequency().unwrap();
        let before = clock.now().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let ticks = clock.now().unwrap().wrapping_sub(before);
        // A busy machine may sleep for longer, and its clock may lag behind for some ticks.
        assert!(ticks >= hz / 10, "{ticks} ticks of {hz} a second in 200 ms");
    }
}
