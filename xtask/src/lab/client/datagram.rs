//! UDP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::{Answer, PATIENCE};

/// A socket that talks to one target, and hears nobody else.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    local: SocketAddr,
    target: SocketAddr,
}

impl Datagrams {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// If there is no such address there.
    pub fn open(source: Option<SocketAddr>, target: SocketAddr) -> Result<Self> {
        let any = match target {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let source = source.unwrap_or(any);
        let socket = UdpSocket::bind(source).with_context(|| format!("bind to {source}"))?;
        socket.connect(target).with_context(|| format!("connect to {target}"))?;
        socket.set_read_timeout(Some(PATIENCE)).context("set a time-out")?;
        let local = socket.local_addr().context("own address")?;
        Ok(Self { socket, local, target })
    }

    /// Sends one packet and waits for the answer, which must bring the payload back.
    ///
    /// # Errors
    /// If none comes in time, or it has another payload.
    pub fn ask(&self, payload: &[u8]) -> Result<Answer> {
        let started = Instant::now();
        self.socket.send(payload).with_context(|| format!("send to {}", self.target))?;
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer);
        let length = length.with_context(|| format!("wait for {}", self.target))?;
        let mut parts = buffer[..length].splitn(2, |byte| *byte == b'\n');
        let greeting = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let echo = parts.next().unwrap_or_default();
        ensure!(echo == payload, "{} sent another payload back", self.target);
        Answer::parse(&greeting, self.local, started)
    }
}
