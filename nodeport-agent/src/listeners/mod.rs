//! Processes on the node that listen where services of ours are: found, named, and dealt with as
//! `--host-listeners` says.
//!
//! A thread of its own ([`Watch`]) lists the listening sockets of the agent's network namespace every
//! two seconds, four requests to the kernel whatever the number of services ([`diag`]), and finds out
//! whose those are that matter ([`owner`], [`processes`], [`cgroups`]). What follows from it is
//! [`decide`]'s, as pure functions.

mod cgroups;
pub(crate) mod decide;
pub mod diag;
mod holder;
pub mod owner;
mod processes;
mod watch;

use std::net::SocketAddr;

pub use cgroups::paths as cgroup_paths;
pub use decide::{HostListener, Outcome};
pub use holder::holder;
pub use owner::{Owner, Process};
pub use processes::holders;
pub use watch::{Found, Watch};

use crate::model::{Family, Protocol};

/// Number of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// A socket at which packets from anyone arrive: a listening one of TCP, or an unconnected one of UDP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it is bound; the unspecified address for all of the family. An IPv4 address that it is
    /// bound to as an IPv6 one stands here as what it is.
    pub at: SocketAddr,
    /// It takes IPv4 too: an IPv6 socket for all addresses, and not for those of IPv6 alone.
    pub takes_ipv4: bool,
    /// Number of the interface that it is bound to; 0 for none.
    pub interface: u32,
    /// Its inode, which processes have it open by; 0 for one of the kernel's own.
    pub inode: u32,
    /// The user who made it.
    pub uid: u32,
    /// Id of the control group (cgroup2) that it was made in, from Linux 5.8 on.
    pub cgroup: Option<u64>,
}

impl Socket {
    /// Whether it is bound to no address of its own, and takes packets of this family.
    #[must_use]
    pub fn takes_all(&self, family: Family) -> bool {
        self.at.ip().is_unspecified()
            && (Family::of(self.at.ip()) == family || (family == Family::V4 && self.takes_ipv4))
    }
}
