//! Frames that XDP sends over a veth, on one processor: live ones, that the kernel makes and really
//! sends. The far end counts and drops them.

mod device;
mod send;
mod walk;

use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use super::super::runner::{Runner, isolate};
use super::super::spread::Spread;

/// What one program reached.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FrameRate {
    /// Which program.
    pub program: &'static str,
    /// Frames per second.
    pub value: Spread,
    /// The rounds' ratios to the first program.
    pub ratio: Spread,
    /// Whether the rounds differ too much to tell small differences.
    pub unsteady: bool,
}

impl FrameRate {
    /// The whole packet path, with one flow; the fresh packet is part of it.
    pub(super) const OURS: &'static str = "nodeport, established";
    /// The least ratio to the empty program.
    pub(super) const GOAL: f64 = 0.88;

    /// Nanoseconds for each frame, in the middle round.
    pub(super) fn nanoseconds(&self) -> f64 {
        1e9 / self.value.median
    }
}

/// What all programs reached.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Frames {
    /// The packet path, beside an empty program.
    pub walk: Vec<FrameRate>,
    /// Ways to send a frame, beside `XDP_TX`.
    pub send: Vec<FrameRate>,
}

/// Has each program send so many frames in each round, in turn.
///
/// # Errors
/// If a program cannot be loaded, or a frame does not arrive.
pub(super) fn measure(rounds: u32, frames: u32, cpu: usize) -> Result<Frames> {
    // The thread ends up in a network namespace of its own.
    let measured = thread::spawn(move || {
        isolate(cpu)?;
        device::take_frames()?;
        let mut runner = Runner::new(1, frames)?;
        runner.leave_by_device()?;
        runner.offer_device()?;
        let walk = in_turn(&walk::PROGRAMS, rounds, |program| program.sample(&mut runner, frames))?;
        let send = in_turn(&send::WAYS, rounds, |way| way.sample(&mut runner, frames))?;
        Ok(Frames { walk, send })
    });
    measured.join().map_err(|_| anyhow!("the measuring thread has panicked"))?
}

/// What has a name in tables.
trait Named {
    /// The name.
    fn name(&self) -> &'static str;
}

/// Rounds of samples of each, as frames per second beside the first of them.
fn in_turn<T: Named>(
    all: &[T],
    rounds: u32,
    mut sample: impl FnMut(&T) -> Result<f64>,
) -> Result<Vec<FrameRate>> {
    let progress = ProgressBar::new(u64::from(rounds) * all.len() as u64);
    let mut rates = vec![Vec::new(); all.len()];
    for _ in 0..rounds {
        for (one, rates) in all.iter().zip(&mut rates) {
            progress.set_message(one.name());
            rates.push(sample(one).with_context(|| one.name())?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(figures(all, &rates))
}

fn figures<T: Named>(all: &[T], rates: &[Vec<f64>]) -> Vec<FrameRate> {
    let Some(first) = rates.first() else { return Vec::new() };
    let figure = |(one, rates): (&T, &Vec<f64>)| {
        let (value, ratio) = (Spread::of(rates)?, Spread::of_ratios(rates, first)?);
        Some(FrameRate { program: one.name(), value, ratio, unsteady: ratio.is_unsteady() })
    };
    all.iter().zip(rates).filter_map(figure).collect()
}

/// Frames per second of a run that a device must have dropped all frames of.
///
/// The program must be attached somewhere: to one that is not, the kernel gives a place among the
/// direct calls of XDP programs for the run, which takes as long as making 100,000 frames.
fn rate(
    runner: &Runner,
    (program, from): (&str, &str),
    dropped_by: &str,
    frames: u32,
) -> Result<f64> {
    let before = device::dropped(dropped_by)?;
    let took = runner.live(program, from, &super::super::frames::ack(4), frames)?;
    let arrived = device::dropped(dropped_by)?.saturating_sub(before);
    // The kernel's own discovery of IPv6 neighbours adds one now and then.
    ensure!(arrived >= u64::from(frames), "{arrived} of {frames} frames arrived");
    Ok(f64::from(frames) / took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for &'static str {
        fn name(&self) -> &'static str {
            self
        }
    }

    #[test]
    fn rates_are_held_against_the_first_program_of_the_same_round() {
        let rates = figures(&["a", "b", "c"], &[vec![4.0, 2.0], vec![3.6, 1.8], vec![3.0, 1.5]]);
        assert_eq!(rates.iter().map(|r| r.ratio.median).collect::<Vec<_>>(), [1.0, 0.9, 0.75]);
        assert_eq!(rates[2].program, "c");
    }

    #[test]
    fn each_has_its_turn_in_each_round() {
        let mut turns = Vec::new();
        let rates = in_turn(&["a", "b"], 2, |name| {
            turns.push(*name);
            Ok(turns.len() as f64)
        });
        assert_eq!(rates.unwrap()[1].value.high, 4.0);
        assert_eq!(turns, ["a", "b", "a", "b"]);
        let error = in_turn(&["a"], 1, |_| Err(anyhow!("lost"))).unwrap_err();
        assert_eq!(format!("{error:#}"), "a: lost");
    }

    #[test]
    fn a_rate_is_as_many_nanoseconds_for_each() {
        let value = Spread::of(&[4e6]).unwrap();
        let rate = FrameRate { program: "a", value, ratio: value, unsteady: false };
        assert_eq!(rate.nanoseconds(), 250.0);
    }
}
