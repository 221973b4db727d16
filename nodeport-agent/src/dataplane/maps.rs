//! Opens pinned maps, checked to be of the types that are read from and written to them.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use nodeport_common::abi::Plain;

use super::pins::Pins;
use super::sys::SharedArray;
use super::wire::Wire;

/// A hash of `K` to `V`.
pub(crate) type Hash<K, V> = HashMap<MapData, Wire<K>, Wire<V>>;

/// Opens a pinned map.
pub(crate) fn open(pins: &Pins, name: &str) -> anyhow::Result<MapData> {
    let path = pins.map(name);
    MapData::from_pin(&path).with_context(|| format!("opening the map {}", path.display()))
}

/// Opens a pinned hash.
pub(crate) fn hash<K: Plain, V: Plain>(pins: &Pins, name: &str) -> anyhow::Result<Hash<K, V>> {
    let map = Map::from_map_data(open(pins, name)?).with_context(|| name.to_owned())?;
    HashMap::try_from(map).with_context(|| format!("the map {name} is not what was expected"))
}

/// Opens a pinned array of which each CPU has its own.
pub(crate) fn per_cpu<T: aya::Pod>(
    pins: &Pins,
    name: &str,
) -> anyhow::Result<PerCpuArray<MapData, T>> {
    let map = Map::from_map_data(open(pins, name)?).with_context(|| name.to_owned())?;
    PerCpuArray::try_from(map).with_context(|| format!("the map {name} is not what was expected"))
}

/// Maps a pinned array into memory.
pub(crate) fn shared<T: Plain>(pins: &Pins, name: &str) -> anyhow::Result<SharedArray<T>> {
    let map = open(pins, name)?;
    let info = map.info().with_context(|| name.to_owned())?;
    ensure!(
        info.value_size() as usize == size_of::<T>(),
        "the elements of the map {name} have {} bytes, expected {}",
        info.value_size(),
        size_of::<T>()
    );
    SharedArray::map(map.fd().as_fd(), info.max_entries())
        .with_context(|| format!("mapping {name} into memory"))
}
