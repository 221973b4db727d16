//! Numbers that are given out and come back: indices of backends, ids of services.

use std::collections::{BTreeSet, VecDeque};

/// The numbers that are free. One that came back is given out again as late as possible, so that
/// what still names the old holder has the longest time to notice.
#[derive(Debug)]
pub(super) struct Indices {
    returned: VecDeque<u32>,
    next: u32,
    end: u32,
}

impl Indices {
    /// Number 0 is never given out: a slot or a flow that was never written names it.
    const FIRST: u32 = 1;

    /// Numbers below `capacity`, all free but those in use.
    pub(super) fn new(capacity: usize, used: &BTreeSet<u32>) -> Self {
        let next = used.last().map_or(Self::FIRST, |last| last.saturating_add(1));
        let returned = (Self::FIRST..next).filter(|index| !used.contains(index)).collect();
        let end = u32::try_from(capacity).unwrap_or(u32::MAX);
        Self { returned, next, end }
    }

    /// A free number, if there is one.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.next < self.end {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.returned.pop_front()
    }

    /// Gives a number back.
    pub(super) fn free(&mut self, index: u32) {
        self.returned.push_back(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_use_are_not_given_out() {
        let mut indices = Indices::new(6, &[2, 4].into());
        let given: Vec<_> = std::iter::from_fn(|| indices.take()).collect();
        assert_eq!(given, [5, 1, 3]);
        indices.free(5);
        indices.free(1);
        assert_eq!((indices.take(), indices.take(), indices.take()), (Some(5), Some(1), None));
    }

    #[test]
    fn an_empty_range_gives_nothing() {
        assert_eq!(Indices::new(1, &BTreeSet::new()).take(), None);
    }
}
