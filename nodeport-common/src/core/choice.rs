//! Which backend a new flow goes to: the one that the client had before, where the service knows its
//! clients again; else the one that the service's algorithm chooses. All of them choose among the slots
//! of one table, in which backends have their weights.

use super::env::World;
use super::expiry;
use super::family::Family;
use super::hash;
use super::work::Work;
use crate::abi::{
    Affinity, AffinityKey, BACKEND_USABLE, FRONTEND_AFFINITY, FRONTEND_INTERNAL, FRONTEND_LEAST,
    FRONTEND_RANDOM, FlowKey, Frontend,
};

/// Slots that are tried before a service counts as having no backend: a slot may name one that
/// went a moment ago.
const PICKS: u32 = 4;

/// Reads a usable backend of `work.frontend` into `work.backend`; false if there is none.
#[inline(always)]
pub fn choose<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    if work.frontend.slots_len == 0 {
        return false;
    }
    if work.frontend.affinity == 0 {
        return pick::<F, W>(world, work);
    }
    let is_found = recall::<F, W>(world, work) || pick::<F, W>(world, work);
    if is_found {
        remember::<F, W>(world, work);
    }
    is_found
}

/// Takes the backend that the service's algorithm chooses.
#[inline(always)]
fn pick<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    let (frontend, seed) = (work.frontend, work.control.hash_seed);
    let hash = if frontend.flags & (FRONTEND_RANDOM | FRONTEND_LEAST) != 0 {
        lot::<F>(&work.key, seed, world.now())
    } else if frontend.affinity == 0 {
        flow_hash::<F>(&work.key, seed)
    } else {
        // With affinity, all that a client opens goes to one, on every node.
        client_hash::<F>(&work.key.src, seed)
    };
    if !take_at::<F, W>(world, work, hash) {
        return false;
    }
    if frontend.flags & FRONTEND_LEAST != 0 {
        prefer_idler::<F, W>(world, work, hash);
    }
    true
}

/// Takes the backend of the slot that the hash names, or of another one if that takes no new flows.
#[inline(always)]
fn take_at<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, mut hash: u32) -> bool {
    let (frontend, seed) = (work.frontend, work.control.hash_seed);
    for _ in 0..PICKS {
        let slot = hash::index(hash, frontend.slots_len);
        let Some(index) = world.slot(frontend.slots_offset.wrapping_add(slot)) else {
            return false;
        };
        if take::<F, W>(world, work, index) {
            return true;
        }
        hash = hash::finish(hash::mix(hash, seed));
    }
    false
}

/// The lot of a packet that opens a flow: another one in each jiffy, for the same ports as well. It is
/// drawn from the packet and the clock, since TC meets what XDP could not send, and is to decide alike:
/// if each of them drew anew, backends that XDP sends to would get more than their share.
#[inline(always)]
fn lot<F: Family>(key: &FlowKey<F::Addr>, seed: u32, now: u32) -> u32 {
    hash::finish(hash::mix(flow_hash::<F>(key, seed), now))
}

/// Draws a second lot, and takes its backend if that has fewer flows for its weight than the one that
/// was taken. Where they are equal it was chance that decided.
#[inline(never)]
fn prefer_idler<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, lot: u32) {
    let lot = hash::finish(hash::mix(lot, !work.control.hash_seed));
    let slot = hash::index(lot, work.frontend.slots_len);
    let Some(index) = world.slot(work.frontend.slots_offset.wrapping_add(slot)) else { return };
    if index == work.backend_index {
        return;
    }
    let flows = world.load(work.backend_index).flows();
    let Some(other) = world.backend(index) else { return };
    if is_idler(world.load(index).flows(), other.weight, flows, work.backend.weight) {
        take::<F, W>(world, work, index);
    }
}

/// Whether so many flows are fewer for a weight than those others for theirs.
#[inline(always)]
const fn is_idler(flows: u32, weight: u32, others: u32, of: u32) -> bool {
    let (weight, of) = (if weight == 0 { 1 } else { weight }, if of == 0 { 1 } else { of });
    (flows as u64) * (of as u64) < (others as u64) * (weight as u64)
}

/// Takes the backend of that index, if it takes new flows.
#[inline(always)]
fn take<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, index: u32) -> bool {
    let backend = world.backend(index).filter(|backend| backend.state == BACKEND_USABLE);
    if let Some(backend) = backend {
        (work.backend, work.backend_index) = (backend, index);
    }
    backend.is_some()
}

/// The hash of a 5-tuple: the same on every node that has the seed.
#[inline(always)]
pub fn flow_hash<F: Family>(key: &FlowKey<F::Addr>, seed: u32) -> u32 {
    let hash = hash::mix(seed, F::fold_address(&key.src));
    let hash = hash::mix(hash, F::fold_address(&key.dst));
    let hash = hash::mix(hash, key.ports.word());
    hash::finish(hash::mix(hash, key.protocol as u32))
}

/// The hash of a client's address: the same on every node that has the seed.
#[inline(always)]
pub fn client_hash<F: Family>(client: &F::Addr, seed: u32) -> u32 {
    hash::finish(hash::mix(seed, F::fold_address(client)))
}

/// Takes the backend that the client had, if that is not too long ago, and it is the same one still and
/// takes new flows: one that ends takes none while others are there.
#[inline(never)]
fn recall<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    set_key(work);
    if !world.read_affinity(&work.affinity_key, &mut work.affinity) {
        return false;
    }
    let Affinity { backend, generation, last_use, .. } = work.affinity;
    let silence = expiry::age(last_use, world.now());
    silence <= limit(&work.frontend, work.control.hz)
        && take::<F, W>(world, work, backend)
        && work.backend.generation == generation
}

/// Notes the backend that the client has from now on.
#[inline(never)]
fn remember<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) {
    let (backend, generation) = (work.backend_index, work.backend.generation);
    work.affinity = Affinity { backend, generation, last_use: world.now(), pad: 0 };
    world.keep_affinity(&work.affinity_key, &work.affinity);
}

/// The client of a service port, whichever of its addresses it uses: as with kube-proxy. What goes to
/// ClusterIPs may have other endpoints, and who was known before affinity was switched off is not any more.
#[inline(always)]
fn set_key<A: Copy>(work: &mut Work<A>) {
    let Frontend { service, flags, .. } = work.frontend;
    let scope = flags & (FRONTEND_INTERNAL | FRONTEND_AFFINITY);
    work.affinity_key = AffinityKey { client: work.key.src, service, scope };
}

/// How long a client may open nothing, in jiffies; at most half of the clock's range.
#[inline(always)]
const fn limit(frontend: &Frontend, hz: u32) -> u32 {
    let jiffies = frontend.affinity as u64 * hz as u64;
    if jiffies > i32::MAX as u64 { i32::MAX as u32 } else { jiffies as u32 }
}
