//! Who takes part in a lab.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::address::Pair;
use super::namespace::Namespace;
use super::process::Process;

/// A machine outside the cluster, with several addresses.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) namespace: Namespace,
    pub(super) addresses: Vec<Pair>,
}

impl Client {
    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> &[Pair] {
        &self.addresses
    }

    /// Its addresses of the family of `target`.
    #[must_use]
    pub fn sources(&self, target: IpAddr) -> Vec<IpAddr> {
        let pick = |pair: &Pair| if target.is_ipv4() { pair.v4.into() } else { pair.v6.into() };
        self.addresses.iter().map(pick).collect()
    }
}

/// A node of the cluster. Its NIC is `eth0`.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) number: u8,
    pub(super) namespace: Namespace,
    pub(super) address: Pair,
    pub(super) folder: PathBuf,
    pub(super) bpffs: PathBuf,
    pub(super) cgroup: PathBuf,
    /// Pods that ever were on it: numbers are not used twice.
    pub(super) pods: u8,
}

impl Node {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The address that nodes and clients reach it at.
    #[must_use]
    pub fn address(&self) -> Pair {
        self.address
    }

    /// Where its logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its BPF file system.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Its control group (cgroup2).
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }
}

/// A pod with a server in it that answers on port 80, TCP and UDP.
#[derive(Debug)]
pub struct Pod {
    pub(super) node: String,
    /// Its end of the link, seen from the node.
    pub(super) device: String,
    pub(super) namespace: Namespace,
    pub(super) address: Pair,
    pub(super) server: Process,
}

impl Pod {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// The name of its node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Pair {
        self.address
    }

    /// The name of the interface on the node behind which it is.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }
}
