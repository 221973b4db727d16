//! One flood, and what happened meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::account::Counts;
use super::newcomers::Newcomers;
use super::scene::{Goal, Scene};
use crate::lab::client::{Exchange, Held};
use crate::lab::flood::Flood;

/// How long there is no flood where there is none.
const QUIET: Duration = Duration::from_secs(4);
/// What the flood has left under way may arrive before it is counted.
const SETTLES: Duration = Duration::from_millis(200);
/// The begin of a phase is not counted: the flood before it ends, queues run empty.
const WARM_UP: Duration = Duration::from_millis(200);

/// A flood that is over.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Where it went.
    pub goal: Goal,
    /// When it began and ended, from the instant from which exchanges are timed.
    pub span: (Duration, Duration),
    /// SYNs that were sent.
    pub sent: u64,
    /// What was counted meanwhile.
    pub counts: Counts,
    /// Who came meanwhile.
    pub newcomers: Newcomers,
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Number of SYNs.
    pub syns: u32,
    /// At most so many a second.
    pub rate: u32,
    /// Which of the amounts it is: each has sources of its own.
    pub number: u32,
}

/// Sends a flood to a goal, while the connections are used and newcomers come.
///
/// # Errors
/// If it cannot be sent, or SYNs to the NodePort are not accounted for.
pub fn measure(scene: &Scene, held: &Held, goal: Goal, amount: Amount) -> Result<Phase> {
    let before = scene.counts()?;
    let begin = Instant::now();
    let (sent, newcomers, end) = send(scene, held.target(), goal, amount)?;
    thread::sleep(SETTLES);
    let counts = scene.counts()?.since(&before);
    let to_us = if goal == Goal::NodePort { sent } else { 0 };
    counts.balance(to_us, newcomers.most_syns()).context("the node's counters")?;
    let span = (begin - held.started(), end - held.started());
    Ok(Phase { goal, span, sent, counts, newcomers })
}

/// SYNs that were sent, who came meanwhile, and when it was over.
fn send(
    scene: &Scene,
    target: SocketAddr,
    goal: Goal,
    amount: Amount,
) -> Result<(u64, Newcomers, Instant)> {
    let targets = scene.addresses(goal, target.is_ipv4());
    let flood = Flood { targets, count: amount.syns, rate: amount.rate, seed: amount.number };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let coming = scope.spawn(|| Newcomers::come(scene.client(), target, &stop));
        let sent = if flood.targets.is_empty() {
            thread::sleep(QUIET);
            Ok(0)
        } else {
            flood.run(scene.flooder()).map(|sent| u64::from(sent.count))
        };
        let end = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let newcomers = coming.join().map_err(|_| anyhow!("the newcomers' thread panicked"))??;
        Ok((sent?, newcomers, end))
    })
}

impl Phase {
    /// How long it took, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.span.1 - self.span.0).as_secs_f64()
    }

    /// The exchanges that ended in it, but for its begin; all exchanges are in order.
    #[must_use]
    pub fn exchanges<'a>(&self, all: &'a [Exchange]) -> &'a [Exchange] {
        let index =
            |at: Duration| all.partition_point(|exchange| u128::from(exchange.at) < at.as_micros());
        let (from, to) = (index(self.span.0 + WARM_UP), index(self.span.1));
        all.get(from..to).unwrap_or_default()
    }

    /// Exchanges a second.
    #[must_use]
    pub fn rate(&self, all: &[Exchange]) -> f64 {
        self.exchanges(all).len() as f64 / (self.seconds() - WARM_UP.as_secs_f64()).max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_counts_what_ended_in_it() {
        let all: Vec<Exchange> = (0..100).map(|n| Exchange { at: n * 100_000, took: n }).collect();
        let span = (Duration::from_secs(2), Duration::from_secs(4));
        let phase = Phase {
            goal: Goal::Nothing,
            span,
            sent: 0,
            counts: Counts::default(),
            newcomers: Newcomers::default(),
        };
        let inside = phase.exchanges(&all);
        assert_eq!((inside[0].at, inside.last().unwrap().at), (2_200_000, 3_900_000));
        assert!((phase.rate(&all) - 10.0).abs() < 1e-9);
        assert!(phase.exchanges(&[]).is_empty());
    }
}
