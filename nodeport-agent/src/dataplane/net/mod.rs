//! The node's network, as rtnetlink shows it: what is there, and what changes.

mod addresses;
mod changes;
mod filter;
mod interface;
mod socket;

pub(crate) use addresses::{Assigned, assigned};
pub(super) use changes::{Change, Changes};
pub(super) use filter::{Side, filters};
pub(crate) use interface::names;
#[cfg(test)]
pub(super) use interface::testing;
pub(super) use interface::{Interface, Kind, Vlan, interfaces};
pub(crate) use socket::{ADDRESSES, Heard, Listener};
