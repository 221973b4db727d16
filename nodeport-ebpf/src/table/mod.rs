//! The table of flows in its maps.

mod global;
mod half;
mod memory;

use nodeport_common::abi::FlowKey;
use nodeport_common::core::table;
use nodeport_common::core::table::half::key_hash;
use nodeport_common::core::table::slot::Place;

pub(crate) use half::MapFlow;
pub(crate) use memory::InMaps;

/// The table of one family. Its operations that are long are functions that the kernel verifies by
/// themselves: see `global`.
pub(crate) struct Table<F>(core::marker::PhantomData<F>);

impl<F> Clone for Table<F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<F> Copy for Table<F> {}

impl<F> Table<F> {
    pub(crate) const THIS: Self = Self(core::marker::PhantomData);
}

impl<F: InMaps> Table<F> {
    /// Where a key may be.
    #[inline(always)]
    fn place(key: &FlowKey<F::Addr>) -> Option<Place> {
        let heap = F::heap()?;
        // SAFETY: the agent has written both before any program ran, and changes neither.
        let (seed, lines) = unsafe { ((*heap).seed, (*heap).lines) };
        Some(Place::new(key_hash::<F>(key, seed), lines))
    }

    /// Looks a half up where it is likely.
    #[inline(always)]
    pub(crate) fn flow(key: &FlowKey<F::Addr>) -> Option<MapFlow<F>> {
        MapFlow::of_key(table::likely(F::TABLE, Self::place(key)?)?, key)
    }

    /// Whether there is surely no half with this key.
    #[inline(always)]
    pub(crate) fn lacks(key: &FlowKey<F::Addr>) -> bool {
        Self::place(key).is_some_and(|place| table::lacks(F::TABLE, place))
    }
}
