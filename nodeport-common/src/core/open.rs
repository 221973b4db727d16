//! A packet that belongs to no flow: does it open one?

use super::choice;
use super::env::{Hook, Inserted, Packet, World};
use super::family::Family;
use super::flow::{self, Opening};
use super::no_backend;
use super::own;
use super::snat;
use super::state::may_open;
use super::table::half::kept;
use super::table::handle::Handle;
use super::track::{self, count_full, find_way, refresh_hop};
use super::verdict::Verdict;
use super::walk;
use super::work::Work;
use crate::abi::{
    BACKEND_LOCAL, FLOW_FAST, FLOW_LOCAL, FRONTEND_GUARDED, FRONTEND_LEAST, FRONTEND_YIELDS,
    FlowKey, Frontend, FrontendKey, HOP_NEIGHBOUR, HOP_POD, HOP_STACK, HOP_UNRESOLVED, Ports,
    Reason,
};

/// Opens a flow if the packet is for a frontend and may.
#[inline(never)]
pub fn open<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
) -> Verdict {
    if W::HOOK == Hook::Egress {
        return own::open::<F, P, W>(packet, world, work);
    }
    if W::HOOK == Hook::Pod || !find_frontend::<F, W>(world, work) {
        return Verdict::PASS;
    }
    if let Err(reason) = prepare::<F, W>(world, work) {
        return turn_away::<F, P, W>(packet, world, work, reason);
    }
    let verdict = match track::way_on::<F, P, W>(packet, world, work) {
        Ok(verdict) => verdict,
        Err(verdict) => return verdict,
    };
    match snat::claim::<F, W>(world, work).and_then(|()| insert_forward::<F, W>(world, work)) {
        Ok(()) => walk::deliver::<F, P, W>(packet, world, &work.parsed, &work.flow, verdict),
        Err(reason) => refuse::<F, W>(world, work.frontend.service, reason),
    }
}

/// What a packet gets that opens no flow at a frontend.
#[inline(always)]
fn turn_away<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
    reason: Reason,
) -> Verdict {
    match reason {
        Reason::NoBackend => no_backend::answer::<F, P, W>(packet, world, work),
        Reason::SourceRange => {
            world.service_stats(work.frontend.service, |stats| stats.denied += 1);
            world.count(reason);
            Verdict::DROP
        }
        _ => {
            walk::count_passed::<F, W>(world, reason);
            Verdict::PASS
        }
    }
}

/// The key of the frontend at exactly the address of a packet with that key.
#[inline(always)]
pub fn exact<A: Copy>(key: &FlowKey<A>) -> FrontendKey<A> {
    let port = u16::from_be_bytes(key.ports.dst);
    FrontendKey { address: key.dst, port, protocol: key.protocol, pad: 0 }
}

/// Finds the frontend that the packet addresses: its exact address, or any that serves nodePorts. None
/// where it is left to a process that listens there.
#[inline(never)]
fn find_frontend<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    let key = &work.key;
    let mut wanted = exact(key);
    let mut found = world.frontend(&wanted);
    if found.is_none() && world.serves_node_ports(&key.dst) {
        wanted.address = F::Addr::default();
        found = world.frontend(&wanted);
    }
    match found {
        Some(frontend) if frontend.flags & FRONTEND_YIELDS == 0 => {
            work.frontend = frontend;
            true
        }
        _ => false,
    }
}

/// Picks a backend, if the packet may open a flow; the reason if it may not.
#[inline(never)]
fn admit<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> Result<(), Reason> {
    if !may_open(work.key.protocol, work.parsed.tcp_flags) {
        return Err(Reason::NoFlow);
    }
    if work.control.draining != 0 {
        return Err(Reason::Draining);
    }
    if F::is_martian(&work.key.src) || world.is_node_address(&work.key.src) {
        return Err(Reason::MartianSource);
    }
    let Frontend { flags, service, .. } = work.frontend;
    if flags & FRONTEND_GUARDED != 0 && !world.admits(service, &work.key.src) {
        return Err(Reason::SourceRange);
    }
    if choice::choose::<F, W>(world, work) { Ok(()) } else { Err(Reason::NoBackend) }
}

/// Picks the backend and makes the forward half with its next hop; the reason if it cannot be.
///
/// A backend on this node sees the client's address, and so does one that is reached through an
/// interface that we do not watch: its answers would come back to the node unseen. Where it has a
/// veth of its own and we see what comes out of that, the flow is opened in fast mode.
#[inline(always)]
fn prepare<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> Result<(), Reason> {
    admit::<F, W>(world, work)?;
    let remote = work.backend.flags & BACKEND_LOCAL == 0;
    let hides_client = remote && find_source::<F, W>(world, work)?;
    let is_fast = !hides_client && finds_pod::<F, W>(world, work, remote);
    make_forward::<F, W>(world, work, hides_client);
    if is_fast {
        work.flow.flags |= FLOW_FAST;
    }
    if hides_client || is_fast {
        work.flow.hop = work.way.hop;
    } else {
        refresh_hop::<F, W>(world, work);
    }
    Ok(())
}

/// Whether the way to the backend, which sees the client's address, leads into a pod's veth at which
/// its answers are met. The way is known already if it `is_known`.
#[inline(always)]
fn finds_pod<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, is_known: bool) -> bool {
    if work.control.fast_local == 0 {
        return false;
    }
    if !is_known {
        (work.way.from, work.way.to) = (work.key.src, work.backend.address);
        find_way::<F, W>(world, work);
    }
    work.way.to_pod && matches!(work.way.hop.kind, HOP_POD | HOP_NEIGHBOUR)
}

#[inline(never)]
fn make_forward<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, hides_client: bool) {
    let opening = Opening {
        new_src: if hides_client { work.way.from } else { work.key.src },
        new_dst: work.backend.address,
        new_ports: Ports { src: work.key.ports.src, dst: work.backend.port.to_be_bytes() },
        backend: (work.backend_index, kept(work.backend.generation)),
        service: work.frontend.service,
        flags: if hides_client { 0 } else { FLOW_LOCAL },
    };
    flow::open::<F>(&work.key, &opening, world.now(), &mut work.flow);
    work.flow.bytes = work.parsed.total as u64;
}

/// Finds the way to the backend and the node's own address on it; false if the backend has an
/// address of the node, or answers would come back through an interface that we do not watch.
#[inline(always)]
fn find_source<F: Family, W: World<F>>(
    world: &W,
    work: &mut Work<F::Addr>,
) -> Result<bool, Reason> {
    (work.way.from, work.way.to) = (F::Addr::default(), work.backend.address);
    find_way::<F, W>(world, work);
    match work.way.hop.kind {
        HOP_UNRESOLVED => Err(Reason::HopUnresolved),
        HOP_STACK => Ok(false),
        // An interface without an address, on a kernel that does not name the source.
        _ if work.way.watched && work.way.from == F::Addr::default() => Err(Reason::HopUnresolved),
        _ => Ok(work.way.watched),
    }
}

/// Stores the client's half, once the answers' key is the flow's.
#[inline(always)]
pub fn insert_forward<F: Family, W: World<F>>(
    world: &W,
    work: &mut Work<F::Addr>,
) -> Result<(), Reason> {
    let reason = match world.claim_flow(&work.key, &mut work.flow) {
        Inserted::Done => {
            world.service_stats(work.flow.service, |stats| stats.opened += 1);
            if work.frontend.flags & FRONTEND_LEAST != 0 {
                world.note_opened(work.flow.backend);
            }
            return Ok(());
        }
        Inserted::Taken => Reason::Raced,
        Inserted::Full => Reason::TableFull,
    };
    world.remove_flow(&work.other_key, Handle::of(&work.other));
    Err(reason)
}

/// Counts a flow that was not opened for this reason, and drops its packet.
#[inline(always)]
pub fn refuse<F: Family, W: World<F>>(world: &W, service: u32, reason: Reason) -> Verdict {
    match reason {
        Reason::TableFull => count_full::<F, W>(world, service),
        Reason::NoPort => {
            world.count(reason);
            world.service_stats(service, |stats| stats.no_port += 1);
        }
        _ => world.count(reason),
    }
    Verdict::DROP
}
