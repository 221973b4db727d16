//! Client, node and backend on one processor, on one thread: a packet that is sent is carried to
//! the backend's socket before the call returns. No other thread has to wake up, so this is the
//! steadiest of all measures.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::flows::Flows;
use super::{Ends, PATIENCE};
use crate::processor;

/// Packets that wait in a socket at a time: few enough for its default buffer.
const BURST: usize = 64;
/// Sockets that are open at a time.
const SOCKETS: usize = 256;
/// Bytes of a packet's payload: its number.
const PAYLOAD: usize = 16;

/// Time for first packets of flows, and for later ones, in all.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Packets {
    /// Nanoseconds for each packet that is the first of its flow.
    pub first: f64,
    /// Nanoseconds for each packet of a flow that has seen packets in both directions.
    pub later: f64,
}

/// Sends the first packets of `firsts` flows, then `laters` packets of one flow, and receives all.
pub(in super::super) fn packets(
    ends: &Ends,
    flows: &mut Flows,
    cpu: usize,
    firsts: usize,
    laters: usize,
) -> Result<Packets> {
    on_cpu(ends, cpu, || {
        let mut exchange = Exchange::open(ends)?;
        let mut spent = Duration::ZERO;
        let mut left = firsts;
        while left > 0 {
            let sockets = exchange.clients(ends, flows, left.min(SOCKETS))?;
            left -= sockets.len();
            for burst in sockets.chunks(BURST) {
                spent += exchange.one_way(burst.iter())?;
            }
        }
        let first = spent.as_nanos() as f64 / firsts as f64;
        let socket = exchange.clients(ends, flows, 1)?.remove(0);
        for _ in 0..3 {
            exchange.round_trip(&socket)?;
        }
        let mut spent = Duration::ZERO;
        let mut left = laters;
        while left > 0 {
            let burst = left.min(BURST);
            left -= burst;
            spent += exchange.one_way(std::iter::repeat_n(&socket, burst))?;
        }
        Ok(Packets { first, later: spent.as_nanos() as f64 / laters as f64 })
    })
}

/// How long packets took there and back, in nanoseconds, sorted.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct RoundTrips {
    /// Of flows' first packets.
    pub first: Vec<u64>,
    /// Of the packets after them.
    pub later: Vec<u64>,
}

/// On each of `flows` flows, sends one packet and has it answered, then `laters` more.
pub(in super::super) fn round_trips(
    ends: &Ends,
    flows: &mut Flows,
    cpu: usize,
    count: usize,
    laters: usize,
) -> Result<RoundTrips> {
    on_cpu(ends, cpu, || {
        let mut exchange = Exchange::open(ends)?;
        let mut times = RoundTrips::default();
        for _ in 0..count {
            let socket = exchange.clients(ends, flows, 1)?.remove(0);
            times.first.push(exchange.round_trip(&socket)?);
            for _ in 0..laters {
                times.later.push(exchange.round_trip(&socket)?);
            }
        }
        times.first.sort_unstable();
        times.later.sort_unstable();
        Ok(times)
    })
}

/// Runs code on a thread of its own, with the way's name: `perf report --sort comm,symbol` tells
/// ways apart by it.
fn on_cpu<T: Send>(ends: &Ends, cpu: usize, code: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || processor::pin(cpu).and_then(|()| code());
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(ends.name.clone());
        let thread = thread.spawn_scoped(scope, pinned).context("start a thread")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The backend's sockets, and the numbers of the packets between them and the client.
struct Exchange {
    sinks: Vec<UdpSocket>,
    /// The sink that the last packet came to: the next one of a flow comes there too.
    last: usize,
    sent: u64,
    opened: u64,
}

impl Exchange {
    fn open(ends: &Ends) -> Result<Self> {
        let bind = |address: &SocketAddr| {
            let socket = UdpSocket::bind(address).with_context(|| format!("bind to {address}"))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let sinks = ends.backend.run(|| ends.sinks.iter().map(bind).collect::<Result<_>>())??;
        Ok(Self { sinks, last: 0, sent: 0, opened: 0 })
    }

    /// Sockets of new flows, each connected to its target.
    fn clients(&mut self, ends: &Ends, flows: &mut Flows, count: usize) -> Result<Vec<UdpSocket>> {
        let first = self.opened;
        self.opened += count as u64;
        ends.client.run(|| {
            let open = |(number, source): (u64, SocketAddr)| {
                let target = ends.target(number);
                let socket =
                    UdpSocket::bind(source).with_context(|| format!("bind to {source}"))?;
                socket.connect(target).with_context(|| format!("connect to {target}"))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            (first..).zip(flows.take(count)).map(open).collect()
        })?
    }

    /// The time to send a packet from each and to receive all of them.
    fn one_way<'a>(&mut self, from: impl Iterator<Item = &'a UdpSocket>) -> Result<Duration> {
        let before = self.sent;
        let started = Instant::now();
        for socket in from {
            self.send(socket)?;
        }
        let sum = (before..self.sent).sum();
        self.drain(self.sent - before, sum)?;
        Ok(started.elapsed())
    }

    fn send(&mut self, socket: &UdpSocket) -> Result<()> {
        let mut payload = [0; PAYLOAD];
        payload[..8].copy_from_slice(&self.sent.to_ne_bytes());
        self.sent += 1;
        socket.send(&payload).context("send a packet").map(|_| ())
    }

    /// Receives so many packets whose numbers have that sum.
    fn drain(&mut self, mut left: u64, mut sum: u64) -> Result<()> {
        let mut deadline = None;
        while left > 0 {
            let before = left;
            for sink in &self.sinks {
                let mut payload = [0; PAYLOAD];
                while left > 0 && received(sink, &mut payload)?.is_some() {
                    left -= 1;
                    sum = sum.wrapping_sub(number(&payload));
                }
            }
            if left == before {
                wait(&mut deadline).with_context(|| format!("{left} packets did not arrive"))?;
            }
        }
        ensure!(sum == 0, "other packets arrived than were sent");
        Ok(())
    }

    /// Nanoseconds for a packet to the backend and its answer.
    fn round_trip(&mut self, socket: &UdpSocket) -> Result<u64> {
        let started = Instant::now();
        self.send(socket)?;
        let mut payload = [0; PAYLOAD];
        let mut deadline = None;
        let peer = loop {
            if let Some(peer) = received(&self.sinks[self.last], &mut payload)? {
                break peer;
            }
            self.last = (self.last + 1) % self.sinks.len();
            if self.last == 0 {
                wait(&mut deadline).context("a packet did not arrive")?;
            }
        };
        self.sinks[self.last].send_to(&payload, peer).context("answer")?;
        while received(socket, &mut payload)?.is_none() {
            wait(&mut deadline).context("an answer did not arrive")?;
        }
        let nanoseconds = started.elapsed().as_nanos() as u64;
        ensure!(number(&payload) + 1 == self.sent, "the answer to another packet came");
        Ok(nanoseconds)
    }
}

fn number(payload: &[u8; PAYLOAD]) -> u64 {
    payload.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// The sender of a packet that is there already.
fn received(socket: &UdpSocket, payload: &mut [u8; PAYLOAD]) -> Result<Option<SocketAddr>> {
    match socket.recv_from(payload) {
        Ok((PAYLOAD, peer)) => Ok(Some(peer)),
        Ok((length, peer)) => bail!("a packet of {length} bytes from {peer}"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("receive a packet"),
    }
}

/// Lets the kernel's threads run, until it has been too long.
fn wait(deadline: &mut Option<Instant>) -> Result<()> {
    let now = Instant::now();
    ensure!(now < *deadline.get_or_insert(now + PATIENCE), "waited for {PATIENCE:?}");
    thread::yield_now();
    Ok(())
}
