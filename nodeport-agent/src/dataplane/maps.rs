//! Opens pinned maps, checked to be of the types that are read from and written to them.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail, ensure};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use nodeport_common::abi::Plain;

use super::pins::Pins;
use super::sys::{self, Batch, Cursor, ReadOnlyArray, SharedArray};
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

/// Whether a write failed because the map has no room.
pub(crate) fn is_full(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(libc::E2BIG))
}

/// Maps a pinned array into memory.
pub(crate) fn shared<T: Plain>(pins: &Pins, name: &str) -> anyhow::Result<SharedArray<T>> {
    let (map, len) = array::<T>(pins, name)?;
    SharedArray::map(map.fd().as_fd(), len).with_context(|| format!("mapping {name} into memory"))
}

/// Maps a pinned array into memory, to look at it.
pub(crate) fn read_only<T: Plain>(pins: &Pins, name: &str) -> anyhow::Result<ReadOnlyArray<T>> {
    let (map, len) = array::<T>(pins, name)?;
    ReadOnlyArray::map(map.fd().as_fd(), len).with_context(|| format!("mapping {name} into memory"))
}

/// Opens a pinned array; and its length.
fn array<T>(pins: &Pins, name: &str) -> anyhow::Result<(MapData, u32)> {
    let map = open(pins, name)?;
    let info = map.info().with_context(|| name.to_owned())?;
    ensure!(
        info.value_size() as usize == size_of::<T>(),
        "the elements of the map {name} have {} bytes, expected {}",
        info.value_size(),
        size_of::<T>()
    );
    let len = info.max_entries();
    Ok((map, len))
}

/// Entries that are read at once.
const AT_ONCE: usize = 4_096;
/// Most entries that one bucket of a hash can be believed to have.
const LARGEST_BUCKET: usize = 1 << 20;

/// Reads all entries of a pinned hash. Those that come or go meanwhile may be among them or not.
pub(crate) fn read_all<K, V>(pins: &Pins, name: &str) -> anyhow::Result<Vec<(K, V)>>
where
    K: Plain + Default,
    V: Plain + Default,
{
    hash::<K, V>(pins, name)?;
    let map = open(pins, name)?;
    let (mut keys, mut values) =
        (vec![Wire(K::default()); AT_ONCE], vec![Wire(V::default()); AT_ONCE]);
    let (mut cursor, mut all) = (Cursor::default(), Vec::new());
    loop {
        let batch = sys::look_up_batch(map.fd().as_fd(), &mut cursor, &mut keys, &mut values)
            .with_context(|| format!("reading the map {name}"))?;
        let count = match batch {
            Batch::More(count) | Batch::Last(count) => count,
            Batch::TooSmall if keys.len() < LARGEST_BUCKET => {
                keys.resize(keys.len() * 2, Wire(K::default()));
                values.resize(keys.len(), Wire(V::default()));
                continue;
            }
            Batch::TooSmall => bail!("the entries of {name} are all in one place of its hash"),
        };
        all.extend(keys.iter().zip(&values).take(count).map(|(key, value)| (key.0, value.0)));
        if matches!(batch, Batch::Last(_)) {
            return Ok(all);
        }
    }
}
