//! bpf(2): many entries of a hash in one call, and a way to wait for programs.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_map_type};
use nodeport_common::abi::Plain;

use super::bpf::{address, call, call_for_fd, number};
use super::wire::Wire;

/// Where a walk through a hash goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor(Option<u32>);

/// What one call of [`look_up_batch`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    /// So many entries, and there may be more.
    More(usize),
    /// So many entries, and these were the last.
    Last(usize),
    /// One bucket of the hash has more entries than there is room for: give more.
    TooSmall,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct BatchAttributes {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}
impl Plain for BatchAttributes {}

/// Reads entries from where `cursor` stands on, and moves it. Entries that come or go meanwhile
/// may be missed; none is seen twice.
pub(crate) fn look_up_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [Wire<K>],
    values: &mut [Wire<V>],
) -> io::Result<Batch> {
    let (from, mut next) = (cursor.0, 0u32);
    let mut attributes = BatchAttributes {
        // All four outlive the call; the kernel writes at most `count` keys and values, whose
        // every bit pattern is a value. Its positions in hashes are of four bytes.
        from: from.as_ref().map_or(0, |from| address(std::ptr::from_ref(from))),
        next: address(std::ptr::from_mut(&mut next).cast_const()),
        keys: address(keys.as_mut_ptr().cast_const()),
        values: address(values.as_mut_ptr().cast_const()),
        count: keys.len().min(values.len()) as u32,
        map: number(map),
        ..BatchAttributes::default()
    };
    let result = call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes);
    let count = attributes.count as usize;
    match result {
        Ok(_) => {
            *cursor = Cursor(Some(next));
            Ok(Batch::More(count))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            *cursor = Cursor::default();
            Ok(Batch::Last(count))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(Batch::TooSmall),
        Err(error) => Err(error),
    }
}

/// The head of `bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
}
impl Plain for MapCreate {}

fn one_element_array(kind: bpf_map_type, inner: u32) -> io::Result<OwnedFd> {
    let mut attributes = MapCreate {
        kind: kind as u32,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
        inner,
    };
    call_for_fd(bpf_cmd::BPF_MAP_CREATE, &mut attributes)
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}
impl Plain for Element {}

/// The id of the first program in an array of programs; none if there is none.
pub(crate) fn program_in(map: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let (key, mut id) = (0u32, 0u32);
    let mut attributes = Element {
        map: number(map),
        pad: 0,
        // Both outlive the call, which writes four bytes to `id`: such arrays take no other size.
        key: address(&raw const key),
        value: address((&raw mut id).cast_const()),
        flags: 0,
    };
    match call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes) {
        Ok(_) => Ok(Some(id)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Changes an element of a map of maps: the kernel then waits for the programs that may hold the
/// map which was in it.
pub(super) fn wait_by_map_of_maps() -> io::Result<()> {
    let inner = one_element_array(bpf_map_type::BPF_MAP_TYPE_ARRAY, 0)?;
    let outer = one_element_array(bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS, number(inner.as_fd()))?;
    let (key, value) = (0u32, number(inner.as_fd()));
    let mut attributes = Element {
        map: number(outer.as_fd()),
        pad: 0,
        // Both outlive the call, which only reads them.
        key: address(&raw const key),
        value: address(&raw const value),
        flags: 0,
    };
    call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes).map(|_| ())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_map_of_maps_can_be_waited_by() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        super::wait_by_map_of_maps().unwrap();
    }
}
