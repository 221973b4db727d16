//! The settings of the data path, which programs read from memory.

use std::sync::atomic::{AtomicBool, Ordering};
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

/// The settings.
#[derive(Debug)]
pub(crate) struct Control {
    memory: SharedArray<abi::Control>,
    /// Held for a change: it is read, made and written, and two threads make them.
    changing: Mutex<()>,
    /// Some frontend in the maps wants its backends' loads to be known.
    counts_loads: AtomicBool,
}

impl Control {
    pub(crate) fn open(pins: &Pins) -> anyhow::Result<Self> {
        Ok(Self {
            memory: shared(pins, maps::CONTROL)?,
            changing: Mutex::new(()),
            counts_loads: AtomicBool::new(false),
        })
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

    /// Says whether some frontend wants its backends' loads to be known.
    pub(super) fn want_loads(&self, wants: bool) {
        self.counts_loads.store(wants, Ordering::Relaxed);
    }

    /// Whether some frontend wants its backends' loads to be known.
    pub(super) fn counts_loads(&self) -> bool {
        self.counts_loads.load(Ordering::Relaxed)
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
}
