//! Between the agent's types, which know of both families at once, and the maps', of which each
//! family has its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodeport_common::abi::{
    BACKEND_GONE, BACKEND_LOCAL, Backend, Frontend, FrontendKey, IPPROTO_TCP, IPPROTO_UDP,
};

use crate::dataplane::Op;
use crate::model::{Family, Protocol};
use crate::plan::FrontendAt;

/// A backend as it lies in a map, for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BackendValue {
    /// Unspecified if it is gone.
    pub(super) at: SocketAddr,
    pub(super) local: bool,
    /// One of `BACKEND_USABLE`, `BACKEND_DRAINING`, `BACKEND_GONE`.
    pub(super) state: u8,
    pub(super) generation: u32,
    /// How much it takes beside the others; 0 if it takes no new flows.
    pub(super) weight: u32,
}

impl BackendValue {
    /// What an index holds between two backends.
    pub(super) const fn gone(family: Family, generation: u32) -> Self {
        let address = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let at = SocketAddr::new(address, 0);
        Self { at, local: false, state: BACKEND_GONE, generation, weight: 0 }
    }

    /// Whether its replies may leave by an interface of this node.
    pub(super) const fn may_answer_here(&self) -> bool {
        self.state != BACKEND_GONE
    }

    fn read<A: Into<IpAddr>>(backend: &Backend<A>, address: A) -> Self {
        let Backend { address: _, port, flags, state, generation, weight } = *backend;
        let at = SocketAddr::new(address.into(), port);
        Self { at, local: flags & BACKEND_LOCAL != 0, state, generation, weight }
    }

    pub(super) fn from4(backend: &Backend<[u8; 4]>) -> Self {
        Self::read(backend, backend.address)
    }

    pub(super) fn from6(backend: &Backend<[u8; 16]>) -> Self {
        Self::read(backend, backend.address)
    }

    fn write<A>(&self, address: A) -> Backend<A> {
        let flags = if self.local { BACKEND_LOCAL } else { 0 };
        let Self { at, local: _, state, generation, weight } = *self;
        Backend { address, port: at.port(), flags, state, generation, weight }
    }
}

pub(super) fn put_backend(index: u32, value: &BackendValue) -> Op {
    match value.at.ip() {
        IpAddr::V4(address) => Op::PutBackend4(index, value.write(address.octets())),
        IpAddr::V6(address) => Op::PutBackend6(index, value.write(address.octets())),
    }
}

pub(super) fn put_frontend(at: &FrontendAt, value: Frontend) -> Op {
    match at.address {
        IpAddr::V4(address) => Op::PutFrontend4(key(at, address.octets()), value),
        IpAddr::V6(address) => Op::PutFrontend6(key(at, address.octets()), value),
    }
}

pub(super) fn remove_frontend(at: &FrontendAt) -> Op {
    match at.address {
        IpAddr::V4(address) => Op::RemoveFrontend4(key(at, address.octets())),
        IpAddr::V6(address) => Op::RemoveFrontend6(key(at, address.octets())),
    }
}

/// Sets what is known of an address; one of which nothing is known is forgotten.
pub(super) const fn put_address(address: IpAddr, bits: u32) -> Op {
    match (address, bits) {
        (IpAddr::V4(address), 0) => Op::RemoveAddress4(address.octets()),
        (IpAddr::V6(address), 0) => Op::RemoveAddress6(address.octets()),
        (IpAddr::V4(address), bits) => Op::PutAddress4(address.octets(), bits),
        (IpAddr::V6(address), bits) => Op::PutAddress6(address.octets(), bits),
    }
}

fn key<A>(at: &FrontendAt, address: A) -> FrontendKey<A> {
    FrontendKey { address, port: at.port, protocol: at.protocol.number(), pad: 0 }
}

/// Reads a frontend's key; none if it is of a protocol that we never write.
pub(super) fn frontend_at<A: Into<IpAddr>>(key: FrontendKey<A>) -> Option<FrontendAt> {
    let FrontendKey { address, port, protocol, pad: _ } = key;
    let protocol = match protocol {
        IPPROTO_TCP => Protocol::Tcp,
        IPPROTO_UDP => Protocol::Udp,
        _ => return None,
    };
    Some(FrontendAt { address: address.into(), port, protocol })
}
