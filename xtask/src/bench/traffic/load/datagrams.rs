//! Small UDP packets as quickly as they go, from one processor to another.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::clock::Stopwatch;
use super::flows::Flows;
use super::{Ends, PATIENCE};
use crate::processor;

/// Packets on their way at a time: few enough for the socket's default buffer.
const WINDOW: u64 = 128;
/// The processors of sender and receiver.
const SENDER: usize = 0;
const RECEIVER: usize = 1;

/// Packets per second of one flow, all of which arrive.
pub(in super::super) fn rate(ends: &Ends, flows: &mut Flows, count: u64) -> Result<f64> {
    let sinks: Vec<UdpSocket> = ends
        .backend
        .run(|| ends.sinks.iter().map(UdpSocket::bind).collect::<std::io::Result<_>>())??;
    let source = flows.next().context("the client has no address")?;
    let client = ends.client.run(|| UdpSocket::bind(source))??;
    client.connect(ends.target(0))?;
    let sink = meet(&client, &sinks)?;
    let (arrived, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let result = receive(sink, count, &arrived);
            failed.store(result.is_err(), Ordering::Relaxed);
            result
        });
        let sent = scope.spawn(|| send(&client, count, &arrived, &failed)).join();
        let received = receiver.join();
        let spent = received.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(spent)
    })
}

/// The sink that the flow leads to, after a packet there and back.
fn meet<'a>(client: &UdpSocket, sinks: &'a [UdpSocket]) -> Result<&'a UdpSocket> {
    let mut payload = [0; 16];
    client.send(&payload)?;
    let deadline = Instant::now() + PATIENCE;
    sinks.iter().try_for_each(|sink| sink.set_nonblocking(true))?;
    loop {
        for sink in sinks {
            if let Ok((_, peer)) = sink.recv_from(&mut payload) {
                sink.set_nonblocking(false)?;
                sink.set_read_timeout(Some(PATIENCE))?;
                client.set_read_timeout(Some(PATIENCE))?;
                sink.send_to(&payload, peer)?;
                client.recv(&mut payload).context("the first answer did not arrive")?;
                return Ok(sink);
            }
        }
        ensure!(Instant::now() < deadline, "the first packet did not arrive");
        thread::yield_now();
    }
}

fn receive(sink: &UdpSocket, count: u64, arrived: &AtomicU64) -> Result<f64> {
    processor::pin(RECEIVER)?;
    let mut payload = [0; 16];
    let watch = Stopwatch::start()?;
    for number in 1..=count {
        sink.recv(&mut payload)
            .with_context(|| format!("{} of {count} packets did not arrive", count - number + 1))?;
        arrived.store(number, Ordering::Release);
    }
    Ok(watch.stop()?.rate(count))
}

fn send(client: &UdpSocket, count: u64, arrived: &AtomicU64, failed: &AtomicBool) -> Result<()> {
    processor::pin(SENDER)?;
    for number in 0..count {
        while number >= arrived.load(Ordering::Acquire) + WINDOW {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        client.send(&[0; 16]).context("send a packet")?;
    }
    Ok(())
}
