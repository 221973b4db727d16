//! Who has a port that the agent itself wants.

use std::collections::HashSet;

use super::diag::Listing;
use super::{Owner, cgroup_paths, holders};
use crate::model::Protocol;

/// Who listens at this TCP port of the agent's network namespace, in words; none if that cannot be told.
#[must_use]
pub fn holder(port: u16) -> Option<String> {
    let mut listing = Listing::default();
    if let Err(error) = listing.renew() {
        tracing::debug!("looking for who listens at port {port}: {error:#}");
    }
    let is_it =
        |socket: &&super::Socket| (socket.protocol, socket.at.port()) == (Protocol::Tcp, port);
    let socket = listing.sockets().find(is_it)?;
    let groups = cgroup_paths(&socket.cgroup.into_iter().collect());
    let owner = Owner {
        process: holders(&HashSet::from([socket.inode])).remove(&socket.inode),
        cgroup: socket.cgroup.and_then(|id| groups.get(&id).cloned()),
        uid: socket.uid,
        is_beside_kube_proxy: false,
    };
    Some(owner.to_string())
}
