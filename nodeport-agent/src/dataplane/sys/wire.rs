//! The bridge between the types in maps and aya, which reads and writes them as bytes.

use nodeport_common::abi::Plain;

/// A value as it lies in a map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Wire<T>(pub(crate) T);

// SAFETY: a `Plain` type has no padding and takes every bit pattern, and `Wire` has its layout.
unsafe impl<T: Plain> aya::Pod for Wire<T> {}
