//! Which backend a new flow goes to: that of its slot, or the one that the client had before.

use super::env::World;
use super::expiry;
use super::family::Family;
use super::hash;
use super::work::Work;
use crate::abi::{Affinity, AffinityKey, BACKEND_USABLE, FRONTEND_INTERNAL, FlowKey, Frontend};

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

/// Takes the backend that the flow's hash names.
#[inline(always)]
fn pick<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    let (frontend, seed) = (work.frontend, work.control.hash_seed);
    // With affinity, all that a client opens goes to one, on every node.
    let mut hash = match frontend.affinity {
        0 => flow_hash::<F>(&work.key, seed),
        _ => client_hash::<F>(&work.key.src, seed),
    };
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
/// ClusterIPs may have other endpoints.
#[inline(always)]
fn set_key<A: Copy>(work: &mut Work<A>) {
    let Frontend { service, flags, .. } = work.frontend;
    work.affinity_key =
        AffinityKey { client: work.key.src, service, scope: flags & FRONTEND_INTERNAL };
}

/// How long a client may open nothing, in jiffies; at most half of the clock's range.
#[inline(always)]
const fn limit(frontend: &Frontend, hz: u32) -> u32 {
    let jiffies = frontend.affinity as u64 * hz as u64;
    if jiffies > i32::MAX as u64 { i32::MAX as u32 } else { jiffies as u32 }
}
