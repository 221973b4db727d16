//! Connections that are open all the time, and in use.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use super::super::files;
use super::super::member::Client;

/// Exchanges that are under way at a time: enough to keep the machine busy, and too few to fill
/// any queue on the way.
const AT_A_TIME: usize = 64;
/// How long an exchange may take: several times the longest pause before a packet is sent again
/// for the third time.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer that is expected.
const LONGEST: usize = 4_096;

/// How long all connections may take to have their turn.
const ALL_WITHIN: Duration = Duration::from_secs(60);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// Many connections that ask all the time, each in its turn, until they are told to stop.
#[derive(Debug)]
pub struct Held {
    stop: Arc<AtomicBool>,
    rounds: Rounds,
    thread: JoinHandle<Result<Result<Kept>>>,
    locals: Vec<SocketAddr>,
    target: SocketAddr,
    started: Instant,
}

/// How often each share's connections have all had their turn; [`OVER`] if none is left.
type Rounds = Arc<[AtomicU64; AT_A_TIME]>;
const OVER: u64 = u64::MAX;

/// A request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the answer had come, in microseconds from [`Held::started`].
    pub at: u32,
    /// How long it took, in microseconds.
    pub took: u32,
}

/// What came of connections that were held.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// All exchanges, in the order in which they ended.
    pub exchanges: Vec<Exchange>,
    /// Errors, and how many connections ended with each.
    pub broken: BTreeMap<String, u64>,
}

impl Kept {
    /// # Errors
    /// If a connection broke, or got another answer than before; says how many and why.
    pub fn all_kept(&self) -> Result<()> {
        let Some((error, count)) = self.broken.iter().max_by_key(|(_, count)| **count) else {
            return Ok(());
        };
        let all: u64 = self.broken.values().sum();
        bail!("{all} held connections broke, {count} of them with: {error}")
    }
}

impl Held {
    /// Opens `count` connections from all addresses of a client, and begins to use them.
    ///
    /// # Errors
    /// If one is not accepted, or not answered.
    pub fn open(client: &Client, target: SocketAddr, count: usize) -> Result<Self> {
        files::allow(files::MANY)?;
        let sources = client.sources(target.ip());
        let stop = Arc::new(AtomicBool::new(false));
        let (opened, wait) = mpsc::channel();
        let rounds: Rounds = Arc::new([const { AtomicU64::new(0) }; AT_A_TIME]);
        let (started, ended, counted) = (Instant::now(), Arc::clone(&stop), Arc::clone(&rounds));
        let thread = client.namespace().spawn(move || {
            let work = Work { target, started, stop: ended, rounds: counted, opened };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(LocalSet::new().run_until(work.run(&sources, count)))
        });
        match wait.recv() {
            Ok(locals) => Ok(Self { stop, rounds, thread, locals, target, started }),
            Err(_) => Err(join(thread).err().unwrap_or_else(|| anyhow!("no connection is held"))),
        }
    }

    /// The clients' ends.
    #[must_use]
    pub fn locals(&self) -> &[SocketAddr] {
        &self.locals
    }

    /// Where they go.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// The instant from which exchanges are timed.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Waits until every connection that is still there has been used once more.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn use_all(&self) -> Result<()> {
        let deadline = Instant::now() + ALL_WITHIN;
        for round in self.rounds.iter() {
            let now = round.load(Ordering::Relaxed);
            // The round that is under way may have begun before.
            while round.load(Ordering::Relaxed) < now.saturating_add(2) {
                ensure!(
                    Instant::now() < deadline,
                    "connections are not used within {ALL_WITHIN:?}"
                );
                sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Closes all.
    ///
    /// # Errors
    /// If the thread that used them failed as a whole; a connection that broke is no error here.
    pub fn close(self) -> Result<Kept> {
        self.stop.store(true, Ordering::Relaxed);
        join(self.thread)
    }
}

fn join(thread: JoinHandle<Result<Result<Kept>>>) -> Result<Kept> {
    thread.join().map_err(|_| anyhow!("the thread that holds connections panicked"))??
}

/// What the thread does.
struct Work {
    target: SocketAddr,
    started: Instant,
    stop: Arc<AtomicBool>,
    rounds: Rounds,
    opened: Sender<Vec<SocketAddr>>,
}

/// A connection, and the answer that it got first and must get each time.
struct Line {
    stream: TcpStream,
    local: SocketAddr,
    answer: Vec<u8>,
}

impl Work {
    async fn run(self, sources: &[IpAddr], count: usize) -> Result<Kept> {
        let Self { target, started, stop, rounds, opened } = self;
        let shares = open_all(sources, target, count).await?;
        let locals = shares.iter().flatten().map(|line| line.local).collect();
        opened.send(locals).context("nobody waits for the connections")?;
        let stop: Rc<dyn Fn() -> bool> = Rc::new(move || stop.load(Ordering::Relaxed));
        let mut users = JoinSet::new();
        for (number, lines) in shares.into_iter().enumerate() {
            let (stop, rounds) = (Rc::clone(&stop), Arc::clone(&rounds));
            users.spawn_local(async move {
                let kept = exchange_all(lines, stop, &rounds[number], started).await;
                rounds[number].store(OVER, Ordering::Relaxed);
                kept
            });
        }
        let mut kept = Kept::default();
        while let Some(part) = users.join_next().await {
            let part = part.context("a task that holds connections")?;
            kept.exchanges.extend(part.exchanges);
            for (error, count) in part.broken {
                *kept.broken.entry(error).or_default() += count;
            }
        }
        kept.exchanges.sort_unstable_by_key(|exchange| exchange.at);
        Ok(kept)
    }
}

/// Opens all connections; in shares of which each has one exchange under way.
async fn open_all(sources: &[IpAddr], target: SocketAddr, count: usize) -> Result<Vec<Vec<Line>>> {
    ensure!(!sources.is_empty(), "the client has no address of the family of {target}");
    let mut openers = JoinSet::new();
    for share in 0..AT_A_TIME {
        let sources: Vec<IpAddr> =
            (share..count).step_by(AT_A_TIME).map(|n| sources[n % sources.len()]).collect();
        openers.spawn_local(async move {
            let mut lines = Vec::with_capacity(sources.len());
            for source in sources {
                let line = timeout(PATIENCE, Line::open(source, target)).await;
                lines.push(line.with_context(|| format!("{target} did not answer {source}"))??);
            }
            anyhow::Ok(lines)
        });
    }
    let mut shares = Vec::new();
    while let Some(share) = openers.join_next().await {
        shares.push(share.context("a task that opens connections")??);
    }
    Ok(shares)
}

/// Uses connections in turn until told to stop.
async fn exchange_all(
    mut lines: Vec<Line>,
    stop: Rc<dyn Fn() -> bool>,
    round: &AtomicU64,
    started: Instant,
) -> Kept {
    let mut kept = Kept::default();
    while !lines.is_empty() {
        let mut index = 0;
        while index < lines.len() {
            if stop() {
                return kept;
            }
            let begin = Instant::now();
            match lines[index].exchange().await {
                Ok(()) => {
                    kept.exchanges.push(Exchange {
                        at: micros(started.elapsed()),
                        took: micros(begin.elapsed()),
                    });
                    index += 1;
                }
                Err(error) => {
                    *kept.broken.entry(format!("{error:#}")).or_default() += 1;
                    lines.swap_remove(index);
                }
            }
        }
        round.fetch_add(1, Ordering::Relaxed);
    }
    kept
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

impl Line {
    async fn open(source: IpAddr, target: SocketAddr) -> Result<Self> {
        let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.context("open a socket")?;
        socket.bind(SocketAddr::new(source, 0)).with_context(|| format!("bind to {source}"))?;
        let stream = socket.connect(target).await;
        let stream = stream.with_context(|| format!("connect from {source} to {target}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let local = stream.local_addr().context("own address")?;
        let mut line = Self { stream, local, answer: Vec::new() };
        line.stream.write_all(REQUEST).await.context("ask")?;
        line.answer = line.read_answer().await?;
        Ok(line)
    }

    /// Asks again: the same backend must answer, and must see the same source.
    async fn exchange(&mut self) -> Result<()> {
        match timeout(PATIENCE, self.ask()).await {
            Ok(result) => result,
            Err(_) => bail!("no answer within {PATIENCE:?}"),
        }
    }

    async fn ask(&mut self) -> Result<()> {
        self.stream.write_all(REQUEST).await.context("ask")?;
        let mut buffer = [0; LONGEST];
        let answer = &mut buffer[..self.answer.len()];
        self.stream.read_exact(answer).await.context("read the answer")?;
        ensure!(answer == self.answer, "the answer is not the one that the connection got first");
        Ok(())
    }

    /// Reads an answer of unknown length.
    async fn read_answer(&mut self) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            ensure!(answer.len() < LONGEST, "an answer without an end");
            let read = self.stream.read_buf(&mut answer).await.context("read the first answer")?;
            ensure!(read > 0, "closed without an answer");
        }
        Ok(answer)
    }
}

/// Whether an answer has come to its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    length.and_then(|length| length.trim().parse().ok()) == Some(body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert!(is_whole(whole));
        for length in 0..whole.len() {
            assert!(!is_whole(&whole[..length]), "{length}");
        }
    }

    #[test]
    fn what_broke_most_often_is_told() {
        let mut kept = Kept::default();
        assert!(kept.all_kept().is_ok());
        kept.broken.insert("reset".to_owned(), 7);
        kept.broken.insert("late".to_owned(), 1);
        let text = kept.all_kept().unwrap_err().to_string();
        assert!(text.contains("8 held") && text.contains("7 of them with: reset"), "{text}");
    }
}
