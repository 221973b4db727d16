//! Connections, and requests on connections that stay.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::clock::{Spent, Stopwatch};
use super::{Ends, PATIENCE};

/// Clients at a time, and servers.
const THREADS: u64 = 8;
/// Bytes of a request and of an answer.
const MESSAGE: usize = 64;

/// Opens connections, has one request answered on each, and closes them.
pub(in super::super) fn connections(ends: &Ends, count: u64) -> Result<Spent> {
    let listener = listen(ends)?;
    let (opened, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Barrier::new(THREADS as usize + 1);
    let client = || {
        start.wait();
        tickets(&opened, count).try_for_each(|number| {
            let mut stream = open(ends.target(number))?;
            ask(&mut stream, number)
        })
    };
    thread::scope(|scope| {
        let servers = serve(scope, &listener, &accepted, count);
        let clients: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| ends.client.run(client).and_then(|result| result)))
            .collect();
        timed(&start, clients, servers)
    })
}

/// Has requests answered on connections that were opened before; a multiple of the connections.
pub(in super::super) fn requests(ends: &Ends, count: u64) -> Result<Spent> {
    let listener = listen(ends)?;
    let accepted = AtomicU64::new(0);
    let start = Barrier::new(THREADS as usize + 1);
    let client = |mut stream: TcpStream| {
        start.wait();
        (0..count / THREADS).try_for_each(|number| ask(&mut stream, number))
    };
    thread::scope(|scope| {
        let servers = serve(scope, &listener, &accepted, THREADS);
        let streams = ends.client.run(|| (0..THREADS).map(|number| met(ends, number)).collect())?;
        let streams: Vec<TcpStream> = Result::from_iter::<Vec<_>>(streams)?;
        let clients: Vec<_> =
            streams.into_iter().map(|stream| scope.spawn(|| client(stream))).collect();
        timed(&start, clients, servers)
    })
}

/// How many requests [`requests`] makes when it is asked for some.
pub(in super::super) const fn whole(count: u64) -> u64 {
    let each = count / THREADS;
    THREADS * if each == 0 { 1 } else { each }
}

fn listen(ends: &Ends) -> Result<TcpListener> {
    let sink = ends.sinks.first().context("the backend has no address")?;
    let any: IpAddr =
        if sink.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let here = SocketAddr::new(any, sink.port());
    let listen = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(here), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(here))?;
        // What it accepts has the same limits.
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_tcp_nodelay(true)?;
        socket.listen(1_024)?;
        Ok(socket.into())
    };
    ends.backend.run(listen)?.with_context(|| format!("listen on {here}"))
}

/// Threads that accept so many connections in all, and answer on each until it is closed.
fn serve<'scope>(
    scope: &'scope Scope<'scope, '_>,
    listener: &'scope TcpListener,
    accepted: &'scope AtomicU64,
    count: u64,
) -> Vec<ScopedJoinHandle<'scope, Result<()>>> {
    let server = move || {
        tickets(accepted, count).try_for_each(|number| {
            let (stream, _) = listener.accept().with_context(|| {
                format!("{} of {count} connections did not come", count - number)
            })?;
            answer(stream)
        })
    };
    (0..THREADS).map(|_| scope.spawn(server)).collect()
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let mut message = [0; MESSAGE];
    loop {
        let mut length = 0;
        while length < MESSAGE {
            match stream.read(&mut message[length..]).context("read a request")? {
                0 if length == 0 => return Ok(()),
                more => length += more,
            }
        }
        stream.write_all(&message).context("write an answer")?;
    }
}

/// A connection over which a request has been answered.
fn met(ends: &Ends, number: u64) -> Result<TcpStream> {
    let mut stream = open(ends.target(number))?;
    ask(&mut stream, number)?;
    Ok(stream)
}

fn open(target: SocketAddr) -> Result<TcpStream> {
    let connect = || -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(&SockAddr::from(target))?;
        Ok(socket.into())
    };
    connect().with_context(|| format!("connect to {target}"))
}

fn ask(stream: &mut TcpStream, number: u64) -> Result<()> {
    let mut message = [0; MESSAGE];
    message[..8].copy_from_slice(&number.to_ne_bytes());
    stream.write_all(&message).context("write a request")?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer).with_context(|| format!("read the answer to {number}"))?;
    ensure!(answer == message, "the answer to another request than {number} came");
    Ok(())
}

/// Numbers below `count`, each to one thread only.
fn tickets(next: &AtomicU64, count: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || Some(next.fetch_add(1, Ordering::Relaxed)))
        .take_while(move |number| *number < count)
}

/// The first error, after all have ended.
/// Lets the clients start, and takes the time until the last of them has ended.
fn timed(
    start: &Barrier,
    clients: Vec<ScopedJoinHandle<'_, Result<()>>>,
    servers: Vec<ScopedJoinHandle<'_, Result<()>>>,
) -> Result<Spent> {
    start.wait();
    let watch = Stopwatch::start()?;
    join(clients)?;
    let spent = watch.stop()?;
    join(servers)?;
    Ok(spent)
}

fn join(threads: Vec<ScopedJoinHandle<'_, Result<()>>>) -> Result<()> {
    let results: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        .collect();
    results.into_iter().collect()
}
