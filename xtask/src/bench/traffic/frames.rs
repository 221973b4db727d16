//! Frames that XDP sends back over a veth: live ones, that the kernel makes and really sends. The
//! far end counts and drops them.

use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use super::super::frames::ack;
use super::super::runner::{PEER, Runner, isolate};
use super::super::spread::Spread;
use crate::{command, workspace};

/// What is run, and on which program of the benchmark's object.
const PROGRAMS: [(&str, &str); 3] = [
    (EMPTY, "empty_xdp"),
    // What the next one does to have the same frame each time.
    ("a fresh packet alone", "fresh4_xdp"),
    (FrameRate::OURS, "walk4_xdp"),
];

const EMPTY: &str = "empty";

/// What one program reached.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FrameRate {
    /// Which program.
    pub program: &'static str,
    /// Frames per second.
    pub value: Spread,
    /// The rounds' ratios to the empty program.
    pub ratio: Spread,
    /// Whether the rounds differ too much to tell small differences.
    pub unsteady: bool,
}

impl FrameRate {
    /// The whole packet path, with one flow; the fresh packet is part of it.
    pub(super) const OURS: &'static str = "nodeport, established";
    /// The least ratio to the empty program.
    pub(super) const GOAL: f64 = 0.88;
}

/// Has each program send so many frames in each round, in turn.
///
/// # Errors
/// If a program cannot be loaded, or a frame does not arrive.
pub(super) fn measure(rounds: u32, frames: u32, cpu: usize) -> Result<Vec<FrameRate>> {
    // The thread ends up in a network namespace of its own.
    let measured = thread::spawn(move || sample(rounds, frames, cpu)).join();
    let rates = measured.map_err(|_| anyhow!("the measuring thread has panicked"))??;
    Ok(figures(&rates))
}

/// Frames per second of each program, by rounds.
fn sample(rounds: u32, frames: u32, cpu: usize) -> Result<Vec<Vec<f64>>> {
    isolate(cpu)?;
    take_frames()?;
    let mut runner = Runner::new(1, frames)?;
    runner.leave_by_device()?;
    let progress = ProgressBar::new(u64::from(rounds) * PROGRAMS.len() as u64);
    let mut rates = vec![Vec::new(); PROGRAMS.len()];
    for _ in 0..rounds {
        for ((name, program), rates) in PROGRAMS.iter().zip(&mut rates) {
            let before = taken()?;
            let took = runner.live(program, &ack(4), frames)?;
            let arrived = taken()?.saturating_sub(before);
            // The kernel's own discovery of IPv6 neighbours adds one now and then.
            ensure!(arrived >= u64::from(frames), "{name}: {arrived} of {frames} frames arrived");
            rates.push(f64::from(frames) / took.as_secs_f64());
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(rates)
}

fn figures(rates: &[Vec<f64>]) -> Vec<FrameRate> {
    let Some(empty) = rates.first() else { return Vec::new() };
    let figure = |((program, _), rates): (&(&'static str, &str), &Vec<f64>)| {
        let (value, ratio) = (Spread::of(rates)?, Spread::of_ratios(rates, empty)?);
        Some(FrameRate { program, value, ratio, unsteady: ratio.is_unsteady() })
    };
    PROGRAMS.iter().zip(rates).filter_map(figure).collect()
}

fn take_frames() -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["link", "set", "dev", PEER, "xdpdrv", "object"]).arg(workspace::lab_object());
    command::capture(ip.args(["section", "drop"])).map(|_| ())
}

/// How many frames the far end has taken.
fn taken() -> Result<u64> {
    let said = command::capture(Command::new("ethtool").args(["-S", PEER]))?;
    drops(&said).with_context(|| format!("`ethtool -S {PEER}` has no xdp_drops: {said}"))
}

/// The sum over all queues; `None` if there are none.
fn drops(statistics: &str) -> Option<u64> {
    let queues = statistics.lines().filter_map(|line| line.trim().split_once("_xdp_drops: "));
    let queues: Vec<u64> = queues.filter_map(|(_, count)| count.trim().parse().ok()).collect();
    (!queues.is_empty()).then(|| queues.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_held_against_the_empty_program_of_the_same_round() {
        let rates = figures(&[vec![4.0, 2.0], vec![3.6, 1.8], vec![3.0, 1.5]]);
        assert_eq!(rates.iter().map(|r| r.ratio.median).collect::<Vec<_>>(), [1.0, 0.9, 0.75]);
        assert_eq!(rates[2].program, FrameRate::OURS);
    }

    #[test]
    fn drops_of_all_queues_are_counted() {
        let text = "NIC statistics:\n     rx_queue_0_xdp_drops: 5\n     rx_queue_0_drops: 9\n     \
                    rx_queue_1_xdp_drops: 2\n";
        assert_eq!(drops(text), Some(7));
        assert_eq!(drops("no stats available"), None);
    }
}
