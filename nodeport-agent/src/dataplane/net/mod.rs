//! The node's network, as rtnetlink shows it: what is there, and what changes.

mod changes;
mod interface;
mod socket;

pub(super) use changes::{Change, Changes};
pub(super) use interface::{Interface, Kind, interfaces, names};
pub(super) use socket::{Heard, Listener};

#[cfg(test)]
pub(super) use interface::testing;
