//! Many requests, counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::connection::Connection;
use super::datagram::Datagrams;
use super::{Answer, Client};

/// What to ask over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// A new connection for each request.
    #[default]
    Tcp,
    /// A new socket for each request.
    Udp,
}

/// Who ends a TCP connection, which decides who keeps its port in TIME_WAIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Close {
    /// The server; the client's port is free at once.
    #[default]
    ByServer,
    /// The client; its port is taken for a minute.
    ByClient,
    /// The client, by a reset; the port is free on both sides.
    Reset,
}

/// Requests from all addresses of a client, in turn.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub target: SocketAddr,
    /// How many.
    pub requests: u64,
    /// How many at a time.
    pub workers: u16,
    /// Over what.
    pub transport: Transport,
    /// How they end.
    pub close: Close,
    /// Only from the client's first address.
    pub one_source: bool,
    /// Only from these ports, each used again as soon as its connection is closed.
    pub ports: Option<RangeInclusive<u16>>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How often each server answered.
    pub answers: BTreeMap<String, u64>,
    /// How often the server saw the client's own address and port.
    pub sources_kept: u64,
    /// The addresses that servers saw, and how often.
    pub seen: BTreeMap<IpAddr, u64>,
    /// Errors, and how often each.
    pub failures: BTreeMap<String, u64>,
    /// Times of the answers, sorted.
    pub latencies: Vec<Duration>,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl Load {
    /// TCP, closed by the server, 16 at a time, from all addresses.
    #[must_use]
    pub fn new(target: SocketAddr, requests: u64) -> Self {
        Self {
            target,
            requests,
            workers: 16,
            transport: Transport::default(),
            close: Close::default(),
            one_source: false,
            ports: None,
        }
    }

    pub(super) fn run(&self, client: &Client) -> Result<Outcome> {
        ensure!(self.workers > 0, "a load needs at least one worker");
        let mut sources = client.sources(self.target.ip());
        sources.truncate(if self.one_source { 1 } else { usize::MAX });
        let next = AtomicU64::new(0);
        let started = Instant::now();
        let work = &|number: u16| client.namespace().run(|| self.work(number, &sources, &next));
        let parts = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.workers).map(|number| scope.spawn(move || work(number))).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, Result<Outcome>>| {
                worker.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            workers.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        Ok(Outcome::sum(parts, started.elapsed()))
    }

    fn work(&self, number: u16, sources: &[IpAddr], next: &AtomicU64) -> Outcome {
        let mut outcome = Outcome::default();
        let mut ports = self.ports_of(number).into_iter().cycle();
        loop {
            let request = next.fetch_add(1, Ordering::Relaxed);
            if request >= self.requests {
                return outcome;
            }
            let source = sources[(request % sources.len() as u64) as usize];
            outcome.add(self.ask(SocketAddr::new(source, ports.next().unwrap_or(0))));
        }
    }

    /// Workers share no port, so that none is in use twice at a time.
    fn ports_of(&self, worker: u16) -> Vec<u16> {
        let all = self.ports.clone().into_iter().flatten();
        all.skip(worker.into()).step_by(self.workers.into()).collect()
    }

    fn ask(&self, source: SocketAddr) -> Result<Answer> {
        if self.transport == Transport::Udp {
            return Datagrams::open(Some(source), self.target)?.ask(b"load");
        }
        let mut connection = Connection::open(Some(source), self.target)?;
        match self.close {
            Close::ByServer => connection.ask_and_close(),
            Close::ByClient => connection.ask(),
            Close::Reset => connection.ask_and_reset(),
        }
    }
}

impl Outcome {
    /// Number of answers.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Number of requests without an answer.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The latency that a share of the answers did not exceed: 0.5 for the median.
    #[must_use]
    pub fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share.clamp(0.0, 1.0)).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }

    /// # Errors
    /// If a request failed; says how often and why.
    pub fn all_answered(&self) -> Result<()> {
        let total = self.answered() + self.failed();
        let worst = self.failures.iter().max_by_key(|(_, count)| **count);
        worst.map_or(Ok(()), |(error, count)| {
            Err(anyhow::anyhow!("{count} times: {error}"))
                .with_context(|| format!("{} of {total} requests failed", self.failed()))
        })
    }

    /// # Errors
    /// If a server's share is off by more than `tolerance` of the fair one, or one of `servers`
    /// never answered.
    pub fn fair(&self, servers: &[&str], tolerance: f64) -> Result<()> {
        let fair = self.answered() as f64 / servers.len() as f64;
        for server in servers {
            let count = self.answers.get(*server).copied().unwrap_or_default();
            let off = (count as f64 - fair).abs() / fair;
            ensure!(off <= tolerance, "{server} answered {count} times, fair is {fair:.0}: {self}");
        }
        ensure!(self.answers.len() == servers.len(), "others answered too: {self}");
        Ok(())
    }

    fn add(&mut self, answer: Result<Answer>) {
        match answer {
            Ok(answer) => {
                self.sources_kept += u64::from(answer.source_kept());
                *self.seen.entry(answer.saw.ip()).or_default() += 1;
                *self.answers.entry(answer.by).or_default() += 1;
                self.latencies.push(answer.took);
            }
            Err(error) => *self.failures.entry(format!("{error:#}")).or_default() += 1,
        }
    }

    fn sum(parts: Vec<Self>, took: Duration) -> Self {
        let mut total = Self { took, ..Self::default() };
        for part in parts {
            let Self { answers, sources_kept, seen, failures, latencies, took: _ } = part;
            total.sources_kept += sources_kept;
            total.latencies.extend(latencies);
            add_counts(&mut total.answers, answers);
            add_counts(&mut total.failures, failures);
            add_counts(&mut total.seen, seen);
        }
        total.latencies.sort_unstable();
        total
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answers in {:.1?}", self.answered(), self.took)?;
        for (server, count) in &self.answers {
            write!(f, ", {server} {count}")?;
        }
        for (error, count) in &self.failures {
            write!(f, ", {count} × {error}")?;
        }
        Ok(())
    }
}

fn add_counts<K: Ord>(total: &mut BTreeMap<K, u64>, part: BTreeMap<K, u64>) {
    for (key, count) in part {
        *total.entry(key).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(counts: &[(&str, u64)]) -> Outcome {
        let answers = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Outcome { answers, ..Outcome::default() }
    }

    #[test]
    fn workers_share_no_port() {
        let target = "10.0.0.1:80".parse().unwrap();
        let load = Load { ports: Some(100..=109), workers: 4, ..Load::new(target, 1) };
        let mut all: Vec<u16> = (0..4).flat_map(|worker| load.ports_of(worker)).collect();
        all.sort_unstable();
        assert_eq!(all, (100..=109).collect::<Vec<_>>());
    }

    #[test]
    fn an_unfair_share_or_a_silent_server_is_noticed() {
        assert!(outcome(&[("a", 52), ("b", 48)]).fair(&["a", "b"], 0.1).is_ok());
        assert!(outcome(&[("a", 70), ("b", 30)]).fair(&["a", "b"], 0.1).is_err());
        assert!(outcome(&[("a", 100)]).fair(&["a", "b"], 0.1).is_err());
        assert!(outcome(&[("a", 50), ("b", 50), ("c", 1)]).fair(&["a", "b"], 0.1).is_err());
    }
}
