//! The node's network, as rtnetlink shows it: what is there, and what changes.

mod changes;
mod filter;
mod interface;
mod socket;

pub(super) use changes::{Change, Changes};
pub(super) use filter::{Side, filters};
#[cfg(test)]
pub(super) use interface::testing;
pub(super) use interface::{Interface, Kind, Vlan, interfaces, names};
pub(super) use socket::{Heard, Listener};
