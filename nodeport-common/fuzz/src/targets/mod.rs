//! What each fuzzer does with its input.

mod flow_state;
mod icmp_error;
mod rewrite_roundtrip;
mod walk;

pub(crate) use flow_state::flow_state;
pub(crate) use icmp_error::icmp_error;
pub(crate) use rewrite_roundtrip::rewrite_roundtrip;
pub(crate) use walk::walk;

/// An input, taken byte by byte; zeros when it has ended.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.byte())
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
