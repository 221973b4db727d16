//! What the kernel side offers to the rest of the agent: read back what is there, write what
//! shall be.

pub(crate) mod attach;
mod bpf;
mod census;
mod cleanup;
pub(crate) mod control;
pub(crate) mod counters;
mod devices;
mod exits;
mod expiry;
mod filters;
mod follow;
pub(crate) mod fragments;
mod least;
pub(crate) mod levels;
mod load;
pub(crate) mod maps;
pub(crate) mod net;
mod object;
mod open;
mod others;
mod overload;
pub(crate) mod pins;
mod pods;
mod preflight;
mod ranges;
mod reserve;
pub(crate) mod snat_ports;
pub mod status;
#[expect(unsafe_code, reason = "system calls, and memory shared with the kernel")]
pub(crate) mod sys;
mod traffic;
pub(crate) mod worker;

pub use bpf::Bpf;
pub use cleanup::cleanup;
pub use object::is_built_in;
pub use open::{Opening, begin, open, open_on};
pub use preflight::Kernel;
pub use snat_ports::{PortReport, Scarce};
pub use sys::give_back_large_blocks;
pub(crate) use sys::{give_back_pages, wire};
pub use traffic::{Carried, DIRECTIONS, Opened, Traffic, TrafficBoard};

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use nodeport_common::abi::{Addr4, Addr6, Backend, Frontend, FrontendKey};

/// Names of the interfaces of this thread's network namespace, by their numbers; none if the
/// kernel does not tell.
pub(crate) fn interface_names() -> BTreeMap<u32, String> {
    net::names().unwrap_or_default()
}

/// One write to the maps. A sequence of them is ordered such that after each one every packet
/// meets a consistent state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Let packets choose their slots by this seed.
    SetSeed(u32),
    /// Make or replace an IPv4 frontend.
    PutFrontend4(FrontendKey<Addr4>, Frontend),
    /// Make or replace an IPv6 frontend.
    PutFrontend6(FrontendKey<Addr6>, Frontend),
    /// Remove an IPv4 frontend; that it is not there is no failure.
    RemoveFrontend4(FrontendKey<Addr4>),
    /// Remove an IPv6 frontend.
    RemoveFrontend6(FrontendKey<Addr6>),
    /// Let clients in that network use the guarded frontends of the service port of that id.
    AddRange(u32, IpNet),
    /// Let them no more; that the network is not there is no failure.
    RemoveRange(u32, IpNet),
    /// Write the IPv4 backend of that index.
    PutBackend4(u32, Backend<Addr4>),
    /// Write the IPv6 backend of that index.
    PutBackend6(u32, Backend<Addr6>),
    /// Write slots (indices of backends) from `offset` on, in a region that no frontend points to.
    WriteSlots {
        /// First slot.
        offset: u32,
        /// The slots.
        slots: Vec<u32>,
    },
    /// Forget what was counted for the service port of that id.
    ClearService(u32),
    /// Set the `PORT_*` bits of a port.
    SetPort(u16, u8),
    /// Set the `ADDRESS_*` bits of an IPv4 address.
    PutAddress4(Addr4, u32),
    /// Set the `ADDRESS_*` bits of an IPv6 address.
    PutAddress6(Addr6, u32),
    /// Forget an IPv4 address.
    RemoveAddress4(Addr4),
    /// Forget an IPv6 address.
    RemoveAddress6(Addr6),
    /// Wait until every CPU has left programs that may have read what was replaced before: after
    /// it, regions of slots that were freed before it may be written.
    Barrier,
}

/// What the maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The seed by which packets choose their slots.
    pub seed: u32,
    /// IPv4 frontends.
    pub frontends4: Vec<(FrontendKey<Addr4>, Frontend)>,
    /// IPv6 frontends.
    pub frontends6: Vec<(FrontendKey<Addr6>, Frontend)>,
    /// Networks whose clients may use guarded frontends, by the id of the service port.
    pub ranges: Vec<(u32, IpNet)>,
    /// IPv4 backends that are not all zero, by index.
    pub backends4: Vec<(u32, Backend<Addr4>)>,
    /// IPv6 backends that are not all zero, by index.
    pub backends6: Vec<(u32, Backend<Addr6>)>,
    /// IPv4 addresses with `ADDRESS_*` bits.
    pub addresses4: Vec<(Addr4, u32)>,
    /// IPv6 addresses with `ADDRESS_*` bits.
    pub addresses6: Vec<(Addr6, u32)>,
    /// Ports with `PORT_*` bits.
    pub ports: Vec<(u16, u8)>,
}

/// A write that failed, by its position in the sequence, and why.
#[derive(Debug)]
pub struct Failure {
    /// Index into the operations given.
    pub index: usize,
    /// Names the map and the key, and says what to do.
    pub error: anyhow::Error,
}

/// The kernel side, as the rest of the agent sees it.
pub trait Dataplane: Send {
    /// Reads what the maps hold.
    ///
    /// # Errors
    /// If a map cannot be read.
    fn observe(&mut self) -> anyhow::Result<Observed>;

    /// Reads `len` slots from `offset` on.
    ///
    /// # Errors
    /// If the range is outside the map.
    fn read_slots(&mut self, offset: u32, len: u32) -> anyhow::Result<Vec<u32>>;

    /// Number of slots in the map.
    fn slot_capacity(&self) -> u32;

    /// Looks whether all that works beside the maps still does.
    ///
    /// # Errors
    /// If a part of it has ended, which none should: only a new start helps.
    fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// What is known of SNAT ports; of none, if nobody watches over them.
    fn port_report(&self) -> Arc<PortReport> {
        Arc::default()
    }

    /// Where it is told what flows carry; nothing, if nobody counts it.
    fn traffic(&self) -> Arc<TrafficBoard> {
        Arc::default()
    }

    /// Begins what [`Op::Barrier`] does, without waiting for it: after its end, what was replaced
    /// before this call is used by no program. There is one at a time.
    fn begin_barrier(&mut self);

    /// How what [`Dataplane::begin_barrier`] began has ended; none while it goes on, or if there is
    /// none.
    fn barrier_ended(&mut self) -> Option<anyhow::Result<()>>;

    /// Writes, in order, and goes on after a failure with the operations behind it.
    fn apply(&mut self, ops: &[Op]) -> Vec<Failure>;
}
