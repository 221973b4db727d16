//! What the cases share: a lab that serves, what a client gets there, and a condition that must hold.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::thread;

use anyhow::{Result, bail};

pub(crate) use xtask::lab::site::{PORT, Site, wait};

/// Fails unless the condition holds.
pub(crate) fn check(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { bail!(what()) }
}

/// What a connection and a datagram came to: the kind of error, if they were not answered.
pub(crate) type Outcome = [Option<ErrorKind>; 2];

/// Neither is answered, and nothing says why.
pub(crate) fn is_silent(outcome: &Outcome) -> bool {
    let silent = |kind: &Option<ErrorKind>| {
        matches!(kind, Some(ErrorKind::TimedOut | ErrorKind::WouldBlock))
    };
    outcome.iter().all(silent)
}

/// Asks from an address of the first client, both at the same time: what is not answered takes seconds.
pub(crate) fn ask(site: &Site, source: IpAddr, target: SocketAddr) -> Outcome {
    let kind = |error: anyhow::Error| {
        let found = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
        // What has no kind is no answer either.
        found.map_or(ErrorKind::Other, std::io::Error::kind)
    };
    let client = site.lab.client();
    thread::scope(|scope| {
        let connection = scope.spawn(|| client.connect(source, target)?.ask_and_close());
        let datagram = client.datagrams(source, target).and_then(|socket| socket.ask(b""));
        let connection = connection.join().unwrap_or_else(|panic| resume_unwind(panic));
        [connection, datagram].map(|answer| answer.err().map(kind))
    })
}
