//! How full the maps are, but for those of flows, which are counted elsewhere.

use std::collections::BTreeSet;

use anyhow::Context as _;
use nodeport_common::abi::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, Device, Frontend, FrontendKey, Heap, Plain,
    SLOTS_PER_LINE, maps,
};

use super::fragments::{self, Level};
use super::maps::{open, read_all, read_only, shared};
use super::pins::Pins;
use super::sys::Jiffies;

/// All of them. It takes some milliseconds where there are ten thousand services.
pub(crate) fn levels(pins: &Pins) -> anyhow::Result<Vec<Level>> {
    let frontends4 = read_all::<FrontendKey<Addr4>, Frontend>(pins, maps::FRONTENDS4)?;
    let frontends6 = read_all::<FrontendKey<Addr6>, Frontend>(pins, maps::FRONTENDS6)?;
    let mut levels = vec![
        level(pins, maps::FRONTENDS4, frontends4.len())?,
        level(pins, maps::FRONTENDS6, frontends6.len())?,
        level(pins, maps::BACKENDS4, backends::<Addr4>(pins, maps::BACKENDS4)?)?,
        level(pins, maps::BACKENDS6, backends::<Addr6>(pins, maps::BACKENDS6)?)?,
        level(pins, maps::NODE_ADDRS4, count::<Addr4, u32>(pins, maps::NODE_ADDRS4)?)?,
        level(pins, maps::NODE_ADDRS6, count::<Addr6, u32>(pins, maps::NODE_ADDRS6)?)?,
        level(pins, maps::DEVICES, count::<u32, Device>(pins, maps::DEVICES)?)?,
        level(pins, maps::AFFINITY4, clients::<Addr4>(pins, maps::AFFINITY4)?)?,
        level(pins, maps::AFFINITY6, clients::<Addr6>(pins, maps::AFFINITY6)?)?,
    ];
    let all = frontends4.iter().map(|(_, one)| one).chain(frontends6.iter().map(|(_, one)| one));
    let mut slots = level(pins, maps::SLOTS, used_slots(all))?;
    slots.size *= SLOTS_PER_LINE as u64;
    levels.push(slots);
    let now =
        Jiffies::load().and_then(|clock| clock.now()).context("reading the kernel's clock")?;
    levels.extend(fragments::levels(pins, now)?);
    Ok(levels)
}

/// Entries of the tables of flows, IPv4 and IPv6.
pub(crate) fn flow_capacities(pins: &Pins) -> anyhow::Result<[(&'static str, u64); 2]> {
    let heaps = read_only::<Heap>(pins, maps::HEAP)?;
    let size = |index| heaps.read(index).map_or(0, |heap| heap.entries.into());
    Ok([(maps::FLOWS4, size(0)), (maps::FLOWS6, size(1))])
}

fn level(pins: &Pins, map: &'static str, used: usize) -> anyhow::Result<Level> {
    let info = open(pins, map)?.info().with_context(|| map.to_owned())?;
    Ok(Level { map, used: used as u64, size: info.max_entries().into() })
}

fn count<K, V>(pins: &Pins, map: &str) -> anyhow::Result<usize>
where
    K: Plain + Default,
    V: Plain + Default,
{
    Ok(read_all::<K, V>(pins, map)?.len())
}

fn clients<A>(pins: &Pins, map: &str) -> anyhow::Result<usize>
where
    AffinityKey<A>: Plain + Default,
{
    count::<AffinityKey<A>, Affinity>(pins, map)
}

/// Those that have ever been used.
fn backends<A>(pins: &Pins, map: &str) -> anyhow::Result<usize>
where
    Backend<A>: Plain,
{
    let array = shared::<Backend<A>>(pins, map)?;
    Ok((0..array.len()).filter(|index| !array.is_zero(*index)).count())
}

/// Slots in the tables that frontends point to; several frontends may share one.
fn used_slots<'a>(frontends: impl Iterator<Item = &'a Frontend>) -> usize {
    let regions: BTreeSet<(u32, u32)> =
        frontends.map(|one| (one.slots_offset, one.slots_len)).collect();
    regions.into_iter().map(|(_, len)| len as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_frontends_share_is_counted_once() {
        let at =
            |slots_offset, slots_len| Frontend { slots_offset, slots_len, ..Frontend::default() };
        let frontends = [at(0, 251), at(0, 251), at(251, 1_021), at(0, 0)];
        assert_eq!(used_slots(frontends.iter()), 251 + 1_021);
    }
}
