//! Which ports packets of ours may have, and for how long.
//!
//! A port whose last service or endpoint went keeps its bits for as long as flows to it may live: the
//! client of a connection whose backend is gone is told so at its next packet, and what that backend still
//! sends reaches nobody under its own address. All that a bit without a service costs is a look into the
//! table of flows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use foldhash::HashMap;
use nodeport_common::abi::{PORT_BACKEND, PORT_FRONTEND};

use super::maps::{hold, release};

/// Bits of ports, and how many hold each up.
#[derive(Debug, Default)]
pub(super) struct Ports {
    bits: HashMap<u16, u8>,
    frontends: HashMap<u16, u32>,
    backends: HashMap<u16, u32>,
    /// Ports that may have bits which nothing holds up any more.
    doubtful: BTreeSet<u16>,
    /// Those that have, and until when they keep them.
    lingering: BTreeMap<u16, Instant>,
}

impl Ports {
    pub(super) fn bits(&self, port: u16) -> u8 {
        self.bits.get(&port).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, port: u16, bits: u8) {
        match bits {
            0 => self.bits.remove(&port),
            bits => self.bits.insert(port, bits),
        };
    }

    pub(super) fn hold_frontend(&mut self, port: u16) {
        hold(&mut self.frontends, port);
    }

    pub(super) fn hold_backend(&mut self, port: u16) {
        hold(&mut self.backends, port);
    }

    pub(super) fn release_frontend(&mut self, port: u16) {
        if release(&mut self.frontends, port) {
            self.doubtful.insert(port);
        }
    }

    pub(super) fn release_backend(&mut self, port: u16) {
        if release(&mut self.backends, port) {
            self.doubtful.insert(port);
        }
    }

    /// The bits that something holds up.
    pub(super) fn held(&self, port: u16) -> u8 {
        let frontend = if self.frontends.contains_key(&port) { PORT_FRONTEND } else { 0 };
        let backend = if self.backends.contains_key(&port) { PORT_BACKEND } else { 0 };
        frontend | backend
    }

    /// Doubts that something holds up the bits of these ports.
    pub(super) fn doubt(&mut self, ports: impl IntoIterator<Item = u16>) {
        self.doubtful.extend(ports);
    }

    /// Doubts all ports whose bits are not held up.
    pub(super) fn doubt_all(&mut self) {
        let wrong = self.bits.iter().filter(|(port, bits)| self.held(**port) != **bits);
        self.doubtful = wrong.map(|(port, _)| *port).collect();
    }

    /// Whether some are in doubt.
    pub(super) fn has_doubtful(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// What is in doubt and not held up stays until then. Time begins when the last holder went: a port
    /// that waits already waits anew.
    pub(super) fn linger(&mut self, until: Instant) {
        for port in std::mem::take(&mut self.doubtful) {
            if self.bits(port) != self.held(port) {
                self.lingering.insert(port, until);
            }
        }
    }

    /// Those whose time is over, and the bits that they are to have.
    pub(super) fn over(&mut self, now: Instant) -> Vec<(u16, u8)> {
        let over = self.lingering.iter().filter(|(_, until)| **until <= now);
        let (right, wrong): (Vec<_>, Vec<_>) = over
            .map(|(port, _)| (*port, self.held(*port)))
            .partition(|(port, held)| self.bits(*port) == *held);
        right.into_iter().for_each(|(port, _)| self.forget(port));
        wrong
    }

    /// Its bits are right.
    pub(super) fn forget(&mut self, port: u16) {
        self.lingering.remove(&port);
    }

    /// When the next one's time is over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lingering.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_port_stays_until_its_time_is_over_and_longer_if_it_is_held_again() {
        let (mut ports, now) = (Ports::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        ports.hold_frontend(80);
        ports.hold_backend(80);
        ports.set(80, PORT_FRONTEND | PORT_BACKEND);
        ports.release_frontend(80);
        assert!(ports.has_doubtful());
        ports.linger(later(10));
        assert!(!ports.has_doubtful());
        assert_eq!((ports.next(), ports.over(later(9))), (Some(later(10)), vec![]));
        // The other one goes as well, and time begins again.
        ports.release_backend(80);
        ports.linger(later(15));
        assert_eq!((ports.next(), ports.over(later(14))), (Some(later(15)), vec![]));
        ports.hold_backend(80);
        for _ in 0..2 {
            assert_eq!(ports.over(later(15)), [(80, PORT_BACKEND)], "until that is written");
        }
        ports.hold_frontend(80);
        assert_eq!(ports.over(later(15)), [], "all that it has is held up");
        assert_eq!(ports.next(), None);
    }
}
