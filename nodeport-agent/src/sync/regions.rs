//! Which parts of the `slots` map are free.

use std::collections::{BTreeMap, BTreeSet};

/// A part of the `slots` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Region {
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// The free parts, by place and by size. Tables come in few sizes, so the smallest part that
/// fits is mostly one that a table of the same size left.
#[derive(Debug)]
pub(super) struct Regions {
    by_offset: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
}

impl Regions {
    /// All free, up to the map's capacity.
    pub(super) fn new(capacity: u32) -> Self {
        let mut regions = Self { by_offset: BTreeMap::new(), by_len: BTreeSet::new() };
        if capacity > 0 {
            regions.insert(Region { offset: 0, len: capacity });
        }
        regions
    }

    /// Takes a free part of that length, if there is one.
    pub(super) fn take(&mut self, len: u32) -> Option<Region> {
        let (_, offset) = *self.by_len.range((len, 0)..).next()?;
        let region = Region { offset, len };
        self.reserve(region).then_some(region)
    }

    /// Takes this very part; false if not all of it is free.
    pub(super) fn reserve(&mut self, region: Region) -> bool {
        let Region { offset, len } = region;
        let Some((&start, &free)) = self.by_offset.range(..=offset).next_back() else {
            return false;
        };
        let (end, free_end) = (u64::from(offset) + u64::from(len), u64::from(start + free));
        if end > free_end {
            return false;
        }
        self.remove(start, free);
        if start < offset {
            self.insert(Region { offset: start, len: offset - start });
        }
        if end < free_end {
            self.insert(Region { offset: offset + len, len: start + free - offset - len });
        }
        true
    }

    /// Gives a part back; it joins its free neighbours.
    pub(super) fn free(&mut self, region: Region) {
        let Region { mut offset, mut len } = region;
        if let Some((&start, &free)) = self.by_offset.range(..offset).next_back()
            && start + free == offset
        {
            self.remove(start, free);
            (offset, len) = (start, free + len);
        }
        if let Some(&free) = self.by_offset.get(&(offset + len)) {
            self.remove(offset + len, free);
            len += free;
        }
        self.insert(Region { offset, len });
    }

    fn insert(&mut self, region: Region) {
        self.by_offset.insert(region.offset, region.len);
        self.by_len.insert((region.len, region.offset));
    }

    fn remove(&mut self, offset: u32, len: u32) {
        self.by_offset.remove(&offset);
        self.by_len.remove(&(len, offset));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_map_gives_nothing() {
        let mut regions = Regions::new(512);
        assert_eq!(regions.take(251), Some(Region { offset: 0, len: 251 }));
        assert_eq!(regions.take(261), Some(Region { offset: 251, len: 261 }));
        assert_eq!(regions.take(1), None);
        assert_eq!(Regions::new(0).take(1), None);
    }

    #[test]
    fn what_is_taken_cannot_be_reserved() {
        let mut regions = Regions::new(100);
        assert!(regions.reserve(Region { offset: 10, len: 20 }));
        assert!(!regions.reserve(Region { offset: 0, len: 11 }));
        assert!(!regions.reserve(Region { offset: 29, len: 1 }));
        assert!(!regions.reserve(Region { offset: 99, len: 2 }));
        assert!(!regions.reserve(Region { offset: u32::MAX, len: 2 }));
        assert!(regions.reserve(Region { offset: 30, len: 70 }));
    }

    proptest! {
        #[test]
        fn parts_never_overlap_and_nothing_is_lost(
            steps in prop::collection::vec((any::<bool>(), 1u32..60, any::<prop::sample::Index>()), 1..80)
        ) {
            let mut regions = Regions::new(1000);
            let mut taken: Vec<Region> = Vec::new();
            for (take, len, which) in steps {
                if take {
                    taken.extend(regions.take(len));
                } else if !taken.is_empty() {
                    regions.free(taken.swap_remove(which.index(taken.len())));
                }
                let mut sorted = taken.clone();
                sorted.sort();
                for pair in sorted.windows(2) {
                    prop_assert!(pair[0].offset + pair[0].len <= pair[1].offset);
                }
                let free: u32 = regions.by_offset.values().sum();
                prop_assert_eq!(free + taken.iter().map(|region| region.len).sum::<u32>(), 1000);
            }
            taken.into_iter().for_each(|region| regions.free(region));
            prop_assert_eq!(regions.take(1000), Some(Region { offset: 0, len: 1000 }));
        }
    }
}
