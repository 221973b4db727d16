//! Honest clients that come while the flood runs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::lab::Client;
use crate::lab::client::Connection;

/// Pause between two.
const PAUSE: Duration = Duration::from_millis(20);
/// A SYN that is lost is sent again after a second.
const FIRST_TRY: Duration = Duration::from_millis(900);

/// How they fared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Newcomers {
    /// Connections that were answered.
    pub served: u64,
    /// Those of them whose first SYN opened the connection.
    pub at_once: u64,
    /// Connections that were not answered.
    pub failed: u64,
    /// From the SYN to the answer, in microseconds, sorted.
    #[serde(skip)]
    pub times: Vec<u64>,
}

impl Newcomers {
    /// Opens one connection after the other until told to stop; each asks once and is reset, so
    /// that it leaves no port taken on the client or the backend.
    ///
    /// # Errors
    /// If the client's namespace cannot be entered.
    pub fn come(client: &Client, target: SocketAddr, stop: &AtomicBool) -> Result<Self> {
        let source = SocketAddr::new(client.sources(target.ip())[0], 0);
        client.namespace().run(|| {
            let mut newcomers = Self::default();
            while !stop.load(Ordering::Relaxed) {
                newcomers.add(source, target);
                sleep(PAUSE);
            }
            newcomers.times.sort_unstable();
            newcomers
        })
    }

    fn add(&mut self, source: SocketAddr, target: SocketAddr) {
        let began = Instant::now();
        let answer = Connection::open(Some(source), target).and_then(Connection::ask_and_reset);
        match answer {
            Ok(_) => {
                let took = began.elapsed();
                self.served += 1;
                self.at_once += u64::from(took < FIRST_TRY);
                self.times.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
            Err(_) => self.failed += 1,
        }
    }

    /// All of several phases.
    #[must_use]
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for part in parts {
            sum.served += part.served;
            sum.at_once += part.at_once;
            sum.failed += part.failed;
            sum.times.extend(&part.times);
        }
        sum.times.sort_unstable();
        sum
    }

    /// SYNs that they can have sent at most: each is sent again a few times.
    #[must_use]
    pub fn most_syns(&self) -> u64 {
        (self.served + self.failed) * 4
    }

    /// The time that half of those served did not exceed, in microseconds.
    #[must_use]
    pub fn median(&self) -> u64 {
        self.times.get(self.times.len() / 2).copied().unwrap_or_default()
    }
}
