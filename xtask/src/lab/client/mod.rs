//! What clients do: connect from an address of theirs, ask, and say who answered.
//!
//! A socket belongs to the namespace that it was made in, for as long as it lives: it is made on a
//! thread inside, and can be used by any.

mod connection;
mod datagram;
mod held;
mod load;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use connection::{Connection, Download};
pub use datagram::Datagrams;
pub use held::{Exchange, Held, Kept};
pub use load::{Close, Load, Outcome, Transport};

use super::member::Client;
use super::namespace::Namespace;

/// How long to wait for a peer before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Who answered, and whom it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's name.
    pub by: String,
    /// The client as the server saw it.
    pub saw: SocketAddr,
    /// The client as it sees itself.
    pub local: SocketAddr,
    /// From the beginning to the end of the answer.
    pub took: Duration,
}

impl Answer {
    /// Whether the server saw the client's own address and port.
    #[must_use]
    pub fn source_kept(&self) -> bool {
        self.saw == self.local
    }

    fn parse(text: &str, local: SocketAddr, started: Instant) -> Result<Self> {
        let line = text.lines().next().unwrap_or_default();
        let (by, saw) = line.split_once(" saw ").with_context(|| format!("answer {line:?}"))?;
        let saw = saw.parse().with_context(|| format!("address in the answer {line:?}"))?;
        Ok(Self { by: by.to_owned(), saw, local, took: started.elapsed() })
    }
}

/// A tag of IEEE 802.1Q.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A priority alone: the frame is of no VLAN.
    Priority,
    /// A VLAN that nobody has a device for.
    Vlan,
}

impl Client {
    /// From now on, what it sends over TCP and UDP has a tag.
    ///
    /// # Errors
    /// If the program that `cargo xtask build` makes cannot be attached.
    pub fn tag_frames(&self, tag: Tag) -> Result<()> {
        let section = match tag {
            Tag::Priority => "priority",
            Tag::Vlan => "vlan",
        };
        self.namespace().run(|| super::ip::tags_frames(super::fabric::NIC, section))?
    }

    /// Asks over a new TCP connection from its first address.
    ///
    /// # Errors
    /// If it is not answered.
    pub fn get(&self, target: SocketAddr) -> Result<Answer> {
        get(self.namespace(), Some(self.first(target)), target)
    }

    /// Asks with one UDP packet from its first address.
    ///
    /// # Errors
    /// If it is not answered.
    pub fn get_udp(&self, target: SocketAddr) -> Result<Answer> {
        self.datagrams(self.first(target), target)?.ask(b"")
    }

    /// Opens a TCP connection from one of its addresses.
    ///
    /// # Errors
    /// If it is not accepted.
    pub fn connect(&self, source: IpAddr, target: SocketAddr) -> Result<Connection> {
        self.namespace().run(|| Connection::open(Some(SocketAddr::new(source, 0)), target))?
    }

    /// Opens a UDP socket at one of its addresses.
    ///
    /// # Errors
    /// If it has no such address.
    pub fn datagrams(&self, source: IpAddr, target: SocketAddr) -> Result<Datagrams> {
        self.namespace().run(|| Datagrams::open(Some(SocketAddr::new(source, 0)), target))?
    }

    /// Downloads `count` bytes and hashes them.
    ///
    /// # Errors
    /// If they do not all come.
    pub fn download(&self, target: SocketAddr, count: u64) -> Result<Download> {
        self.connect(self.first(target), target)?.download(count)
    }

    /// Asks many times, and counts who answered.
    ///
    /// # Errors
    /// If the client cannot be entered; what is not answered is counted.
    pub fn load(&self, load: &Load) -> Result<Outcome> {
        load.run(self)
    }

    fn first(&self, target: SocketAddr) -> IpAddr {
        self.sources(target.ip())[0]
    }
}

/// Asks over a new TCP connection from anywhere in the lab.
///
/// # Errors
/// If it is not answered.
pub fn get(from: &Namespace, source: Option<IpAddr>, target: SocketAddr) -> Result<Answer> {
    let source = source.map(|address| SocketAddr::new(address, 0));
    from.run(|| Connection::open(source, target))??.ask()
}
