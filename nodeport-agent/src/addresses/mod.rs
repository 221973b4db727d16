//! The addresses that this node's own interfaces have, and on which of them nodePorts are served, as
//! `--nodeport-addresses` says.
//!
//! A thread of its own ([`Watch`]) hears of addresses that come and go, and looks every two seconds
//! besides. What follows from them is [`select`]'s, as pure functions.

pub mod select;
mod watch;

use std::net::IpAddr;

pub use select::Served;
pub use watch::Watch;

/// An address of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Own {
    /// The address; no loopback address, nor one that counts on a link alone.
    pub address: IpAddr,
    /// Name of an interface that has it.
    pub interface: String,
}
