//! The settings of the data path, which programs read from memory.

use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::ensure;
use nodeport_common::abi::{
    self, NO_BACKEND_DROPS, NO_BACKEND_REFUSES, NO_BACKEND_RESETS, PORT_SNAT, PORTS_PER_LINE,
    PortLine, maps,
};

use super::maps::shared;
use super::pins::Pins;
use super::sys::{Jiffies, SharedArray};
use crate::config::{Config, LocalMode, NoBackend, PortRange};

/// ICMP errors that one CPU may send per second.
const ERRORS_PER_SECOND: u32 = 1_000;
/// What is wrong with a map in which nothing can be set.
const NO_ELEMENT: &str = "the map control has no element";
/// Ports that the kernel gives to the node's own connections.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Ports among them that it keeps free.
const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The settings.
#[derive(Debug)]
pub(crate) struct Control {
    memory: SharedArray<abi::Control>,
    /// Held for a change: it is read, made and written, and two threads make them.
    changing: Mutex<()>,
}

impl Control {
    pub(crate) fn open(pins: &Pins) -> anyhow::Result<Self> {
        Ok(Self { memory: shared(pins, maps::CONTROL)?, changing: Mutex::new(()) })
    }

    /// The settings as they are.
    pub(crate) fn read(&self) -> abi::Control {
        self.memory.read(0).unwrap_or_default()
    }

    /// Writes the settings of this run. Programs do nothing before the epoch is there, so it
    /// comes last. The seed stays as it is: what it shall be is known once all is listed.
    pub(super) fn prepare(
        &self,
        config: &Config,
        clock: &Jiffies,
        fib_source: bool,
    ) -> anyhow::Result<()> {
        let count = u16::try_from(config.snat_ports.count()).unwrap_or(u16::MAX);
        let settings = abi::Control {
            hz: clock.frequency()?,
            snat_first: config.snat_ports.first(),
            snat_count: count,
            errors_per_second: ERRORS_PER_SECOND,
            draining: 0,
            fib_source: fib_source.into(),
            fast_local: (config.local_mode == LocalMode::Auto).into(),
            no_backend: match config.no_backend {
                NoBackend::Refuse => NO_BACKEND_REFUSES,
                NoBackend::Reset => NO_BACKEND_RESETS,
                NoBackend::Drop => NO_BACKEND_DROPS,
            },
            ..abi::Control::default()
        };
        let keep = |control: &mut abi::Control| {
            let abi::Control { epoch, hash_seed, .. } = *control;
            *control = abi::Control { epoch, hash_seed, ..settings };
        };
        ensure!(self.change(keep), "{NO_ELEMENT}");
        self.raise_epoch();
        Ok(())
    }

    /// Makes every flow look its next hop up again.
    pub(super) fn raise_epoch(&self) {
        self.change(|control| control.epoch = following(control.epoch));
    }

    /// Lets packets choose their slots by this seed.
    pub(super) fn set_seed(&self, seed: u32) -> anyhow::Result<()> {
        ensure!(self.change(|control| control.hash_seed = seed), "{NO_ELEMENT}");
        Ok(())
    }

    /// False if the map has no element.
    fn change(&self, change: impl FnOnce(&mut abi::Control)) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.memory.update(0, change)
    }
}

/// The epoch after this one. The part of it that flows keep is never 0, which is none's.
fn following(epoch: u32) -> u32 {
    let next = epoch.wrapping_add(1);
    if next & u32::from(u16::MAX) == 0 { next + 1 } else { next }
}

/// Marks the ports of the SNAT range. Ports of an earlier run's range keep their mark, for the
/// flows that have them: all that it costs is a look-up.
pub(super) fn mark_snat_ports(ports: &SharedArray<PortLine>, range: PortRange) {
    for line in 0..ports.len() {
        let first = line as usize * PORTS_PER_LINE;
        let is_marked =
            |place: usize| u16::try_from(first + place).is_ok_and(|port| range.contains(port));
        if (0..PORTS_PER_LINE).any(is_marked) {
            ports.update(line, |bits| {
                for (place, bits) in bits.iter_mut().enumerate() {
                    *bits |= if is_marked(place) { PORT_SNAT } else { 0 };
                }
            });
        }
    }
}

/// Warns if the kernel may give SNAT ports to the node's own connections.
pub(super) fn check_local_ports(range: PortRange) {
    // Where these files are hidden, there is nothing to compare with.
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (local, reserved) = (read(LOCAL_PORTS), read(RESERVED_PORTS));
    if let Some(port) = shared_port(range, &local, &reserved) {
        tracing::warn!(
            "--snat-ports {range}: the kernel may give port {port} to connections of the node's \
             own, whose answers would be taken for ours; choose a range outside {LOCAL_PORTS} \
             ({}), or keep it free with `sysctl net.ipv4.ip_local_reserved_ports={range}`",
            local.split_whitespace().collect::<Vec<_>>().join("-")
        );
    }
}

/// A port in the range that the kernel may give away.
fn shared_port(range: PortRange, local: &str, reserved: &str) -> Option<u16> {
    let mut bounds = local.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    let local = bounds.next()?..=bounds.next()?;
    let reserved: Vec<_> = reserved.trim().split(',').filter_map(port_or_range).collect();
    let is_free = |port: &u16| !reserved.iter().any(|range| range.contains(port));
    range.ports().find(|port| local.contains(port) && is_free(port))
}

fn port_or_range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_never_zero() {
        assert_eq!(following(0), 1);
        assert_eq!(following(7), 8);
        assert_eq!(following(u32::MAX), 1);
        assert_eq!(following(0xffff), 0x1_0001);
    }

    #[test]
    fn ports_that_the_kernel_gives_away_are_found() {
        let range = PortRange::new(10_000, 29_999).unwrap();
        for (local, reserved, shared) in [
            ("32768\t60999\n", "\n", None),
            ("20000 60999", "", Some(20_000)),
            ("1024 65535", "10000-29999", None),
            ("1024 65535", "80,10000-20000,20002", Some(20_001)),
            ("", "", None),
        ] {
            assert_eq!(shared_port(range, local, reserved), shared, "{local:?} {reserved:?}");
        }
    }
}
