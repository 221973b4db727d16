//! What the programs need to know to keep fragments together, and how many they keep.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nodeport_common::abi::{
    self, Addr4, Addr6, DATAGRAMS_OF_SET, Datagram, DatagramSet, FATE_NONE, Plain, WAITING_BUSY,
    Waiting, maps,
};

use super::maps::{open, read_only, shared};
use super::pins::Pins;
use super::sys::SharedArray;

/// Writes sizes and limits. From then on fragments are kept together.
pub(super) fn prepare(pins: &Pins, timeout: Duration, hz: u32) -> anyhow::Result<()> {
    let settings: SharedArray<abi::Fragments> = shared(pins, maps::FRAGMENTS)?;
    let size = |name: &str| -> anyhow::Result<u32> {
        Ok(open(pins, name)?.info().with_context(|| name.to_owned())?.max_entries())
    };
    let (sets, waiting) = (size(maps::DATAGRAMS4)?, size(maps::WAITING)?);
    let written = settings.update(0, |settings| {
        if settings.seed == 0 {
            // A key that std draws from the kernel's randomness.
            settings.seed = RandomState::new().build_hasher().finish();
        }
        settings.waiting = waiting;
        settings.timeout = jiffies(timeout, hz);
        settings.sets = sets;
    });
    ensure!(written, "the map {} has no element", maps::FRAGMENTS);
    Ok(())
}

/// A time in jiffies, at least one.
fn jiffies(time: Duration, hz: u32) -> u32 {
    let jiffies = time.as_millis().saturating_mul(hz.into()) / 1_000;
    u32::try_from(jiffies).unwrap_or(u32::MAX).max(1)
}

/// How many of a map's places are in use, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) map: &'static str,
    pub(crate) used: u64,
    pub(crate) size: u64,
}

/// How full the maps for fragments are at `now` (jiffies).
pub(crate) fn levels(pins: &Pins, now: u32) -> anyhow::Result<[Level; 3]> {
    let timeout = read_only::<abi::Fragments>(pins, maps::FRAGMENTS)?
        .read(0)
        .map_or(0, |settings| settings.timeout);
    let is_recent = |since: u32| now.wrapping_sub(since) < timeout;
    Ok([
        datagrams::<Addr4>(pins, maps::DATAGRAMS4, is_recent)?,
        datagrams::<Addr6>(pins, maps::DATAGRAMS6, is_recent)?,
        waiting(pins, is_recent)?,
    ])
}

fn datagrams<A: Plain>(
    pins: &Pins,
    map: &'static str,
    is_recent: impl Fn(u32) -> bool,
) -> anyhow::Result<Level>
where
    DatagramSet<A>: Plain,
{
    let sets = read_only::<DatagramSet<A>>(pins, map)?;
    let is_used = |one: &Datagram<A>| one.fate != FATE_NONE && is_recent(one.since);
    let read = (0..sets.len()).filter_map(|set| sets.read(set));
    let used = read.map(|set| set.datagrams.iter().filter(|one| is_used(one)).count() as u64);
    Ok(Level { map, used: used.sum(), size: u64::from(sets.len()) * DATAGRAMS_OF_SET as u64 })
}

fn waiting(pins: &Pins, is_recent: impl Fn(u32) -> bool) -> anyhow::Result<Level> {
    let frames = read_only::<Waiting>(pins, maps::WAITING)?;
    let is_used = |one: &Waiting| one.ticket & !WAITING_BUSY != 0 && is_recent(one.since);
    let used = (0..frames.len()).filter_map(|at| frames.read(at)).filter(is_used).count();
    Ok(Level { map: maps::WAITING, used: used as u64, size: frames.len().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_at_least_a_tick() {
        assert_eq!(jiffies(Duration::from_secs(5), 250), 1_250);
        assert_eq!(jiffies(Duration::from_millis(1), 250), 1);
        assert_eq!(jiffies(Duration::MAX, 1_000), u32::MAX);
    }
}
