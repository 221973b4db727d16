//! The maps of one address family, and the routes that a script knows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::World;
use super::fragments::Sets;
use super::table::FlowTable;
use crate::abi::{
    Affinity, AffinityKey, Backend, Frontend, FrontendKey, Load, NextHop, SourceRange,
};
use crate::core::family::{Family, V4, V6};
use crate::core::work::Work;

/// What the script says about the way to a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer<A> {
    /// The address that the node uses on that path.
    pub from: A,
    /// Where to send it; epoch 0 says that the answer must not be kept.
    pub hop: NextHop,
    /// Whether answers come back through an interface that is watched.
    pub watched: bool,
    /// Whether it goes into the veth of a pod, whose answers are met there.
    pub to_pod: bool,
}

/// The maps of one family. Tests write to them as the agent would.
#[derive(Debug)]
pub struct Maps<A> {
    /// Halves of flows.
    pub flows: FlowTable<A>,
    /// What clients address.
    pub frontends: RefCell<BTreeMap<FrontendKey<A>, Frontend>>,
    /// Networks whose clients may use guarded frontends: whose, and how many bits of it count.
    pub ranges: RefCell<Vec<(SourceRange<A>, u32)>>,
    /// Which backends clients have.
    pub affinity: RefCell<BTreeMap<AffinityKey<A>, Affinity>>,
    /// Backends by index.
    pub backends: RefCell<Vec<Backend<A>>>,
    /// How busy they are; those that are not among them have no flows.
    pub loads: RefCell<BTreeMap<u32, Load>>,
    /// What is known of addresses: `ADDRESS_*` bits.
    pub addresses: RefCell<BTreeMap<A, u32>>,
    /// Ways to destinations; there is none to any other.
    pub routes: RefCell<BTreeMap<A, Answer<A>>>,
    /// Destinations that were asked for, in order.
    pub asked: RefCell<Vec<A>>,
    /// What is known of packets that come in fragments.
    pub datagrams: Sets<A>,
    /// The working area. As in the kernel, it holds what the last packet left.
    pub work: RefCell<Work<A>>,
}

impl<A: Copy + Ord + Default> Maps<A> {
    pub(super) fn new(flows: usize) -> Self {
        Self {
            flows: FlowTable::bounded(flows),
            frontends: RefCell::default(),
            ranges: RefCell::default(),
            affinity: RefCell::default(),
            backends: RefCell::default(),
            loads: RefCell::default(),
            addresses: RefCell::default(),
            routes: RefCell::default(),
            asked: RefCell::default(),
            datagrams: RefCell::default(),
            work: RefCell::default(),
        }
    }
}

/// A family whose maps a [`World`] has.
pub trait OnHost: Family {
    /// Its maps.
    fn maps(world: &World) -> &Maps<Self::Addr>;
    /// Its maps, to be changed.
    fn maps_mut(world: &mut World) -> &mut Maps<Self::Addr>;
    /// How many bits two addresses begin with are the same.
    fn common_bits(a: &Self::Addr, b: &Self::Addr) -> u32;
}

impl OnHost for V4 {
    fn maps(world: &World) -> &Maps<Self::Addr> {
        &world.v4
    }

    fn maps_mut(world: &mut World) -> &mut Maps<Self::Addr> {
        &mut world.v4
    }

    fn common_bits(a: &Self::Addr, b: &Self::Addr) -> u32 {
        (u32::from_be_bytes(*a) ^ u32::from_be_bytes(*b)).leading_zeros()
    }
}

impl OnHost for V6 {
    fn maps(world: &World) -> &Maps<Self::Addr> {
        &world.v6
    }

    fn maps_mut(world: &mut World) -> &mut Maps<Self::Addr> {
        &mut world.v6
    }

    fn common_bits(a: &Self::Addr, b: &Self::Addr) -> u32 {
        (u128::from_be_bytes(*a) ^ u128::from_be_bytes(*b)).leading_zeros()
    }
}
