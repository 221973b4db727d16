//! The source port by which a backend knows a flow, and which no other flow to it has.

use super::checksum;
use super::env::{Inserted, World};
use super::expiry;
use super::family::Family;
use super::flow::partner_key;
use super::hash;
use super::table::handle::Handle;
use super::track::{self, Partner};
use super::work::Work;
use crate::abi::{Control, FLOW_LOCAL, FLOW_PROVED, Flow, FlowKey, FlowState, Port, Reason};

/// Ports that are tried before we give up. With `n` of `m` ports taken by flows that live, all tries
/// fail with probability `(n/m)^16`: less than one in ten million while a third is taken.
const TRIES: u32 = 32;

/// The tries after which a flow that is over gives its port away: before, each port is likely to be
/// free, and under a flood, which has taken all, each try costs a look-up.
const UNTIL_CLOSED: u32 = 2;

/// The tries after which a newcomer gives its port away. Not before: its handshake ends in a reset, and
/// among the closed flows of busy clients it would be met by chance.
const UNTIL_NEWCOMERS: u32 = 5;

/// The part of a second for which a newcomer's client may be answering: so long after its last packet it
/// keeps its port, and its handshake ends well. Under a flood of `n` SYNs a second whoever gets a port has
/// it for that long; without it, nobody whose answer takes longer than `ports / n` would ever get through.
const HANDSHAKES_PER_SECOND: u32 = 8;

/// Steps between two candidates, one of which a flow draws: with one for all, taken ports would lie in
/// a row along it, and tries would seldom leave that. Primes above all ports, so that no range is a
/// multiple of one, and all tries are of different ports.
const STRIDES: [u32; 8] = [65_537, 72_019, 79_031, 85_009, 91_009, 98_009, 104_729, 112_019];

/// Claims the key of the backend's answers for the flow `work.flow`, and gives it the source port in
/// that key.
#[inline(never)]
pub fn claim<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> Result<(), Reason> {
    work.candidates = Candidates::draw(world.random(), ports(work));
    let mut keeps_port = takes_own_port(work);
    let mut attempt = if keeps_port { 0 } else { 1 };
    while attempt <= TRIES {
        if !keeps_port {
            take_candidate(work);
        }
        match claim_answers::<F, W>(world, work) {
            Inserted::Done => return Ok(()),
            Inserted::Taken => {}
            Inserted::Full => return Err(Reason::TableFull),
        }
        // One that was taken away is tried again.
        let may_oust = UNTIL_CLOSED < attempt && attempt < TRIES;
        keeps_port = may_oust && oust::<F, W>(world, work, UNTIL_NEWCOMERS < attempt);
        attempt += 1;
    }
    Err(Reason::NoPort)
}

/// Numbers of SNAT ports, in an order of a flow's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates {
    last: u32,
    stride: u32,
}

impl Candidates {
    #[inline(always)]
    const fn draw(random: u32, ports: u32) -> Self {
        let stride = STRIDES[random as usize % STRIDES.len()];
        Self { last: hash::index(random, ports), stride }
    }
}

/// Gives the flow the next candidate.
#[inline(always)]
fn take_candidate<A>(work: &mut Work<A>) {
    let Candidates { last, stride } = work.candidates;
    let candidate = (last + stride) % ports(work);
    work.candidates.last = candidate;
    let port = work.control.snat_first.wrapping_add(candidate as u16);
    set_source_port(&work.key, &mut work.flow, port.to_be_bytes());
}

/// Gives the flow the port that is to be tried first, if there is one: the client's own, if the backend
/// may see it (of the node's own connections, too), or the one by which the backend knows the client.
#[inline(always)]
fn takes_own_port<A: Copy>(work: &mut Work<A>) -> bool {
    if work.flow.flags & FLOW_LOCAL != 0 {
        return true;
    }
    let Control { snat_first, snat_count, .. } = work.control;
    match work.former.port(&work.flow, snat_first, snat_count) {
        Some(port) => {
            set_source_port(&work.key, &mut work.flow, port);
            true
        }
        None => false,
    }
}

/// How many SNAT ports there are.
#[inline(always)]
fn ports<A>(work: &Work<A>) -> u32 {
    (work.control.snat_count as u32).max(1)
}

#[inline(always)]
fn set_source_port<A>(key: &FlowKey<A>, flow: &mut Flow<A>, port: Port) {
    flow.new_ports.src = port;
    let (old, new) = (key.ports.word(), flow.new_ports.word());
    flow.port_diff = checksum::difference(&[old], &[new]);
}

/// Puts the reply half into the table.
#[inline(always)]
fn claim_answers<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> Inserted {
    work.other_key = partner_key(&work.key, &work.flow);
    track::make_partner(work);
    world.claim_flow(&work.other_key, &mut work.other)
}

/// Takes the last candidate from a flow that is over; from a newcomer as well, if `newcomers` may be
/// asked: a flood of such holds all ports, and must not keep everybody else out. Whether the backend
/// has answered says nothing: it answers a forged SYN as well, and only the client's next packet would
/// tell. Whoever the port was taken from begins anew with its next SYN. False if it is nobody's to be
/// taken from.
#[inline(always)]
fn oust<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, newcomers: bool) -> bool {
    if !world.read_flow(&work.other_key, &mut work.other) {
        return false;
    }
    work.rival_key = partner_key(&work.other_key, &work.other);
    work.holder = Handle::of(&work.other);
    let is_over = has_closed::<F, W>(world, work);
    let (key, rival_key) = (&work.other_key, &work.rival_key);
    let rival = track::read_partner::<F, W>(world, key, rival_key, &mut work.other);
    let is_whole = rival == Partner::There;
    if is_over && (!is_whole || has_closed::<F, W>(world, work)) {
        if is_whole {
            world.remove_flow(&work.rival_key, Handle::of(&work.other));
        }
        world.remove_flow(&work.other_key, work.holder);
        return true;
    }
    // A client proves itself by that half; the news reaches this one a moment later.
    if !newcomers || is_whole && work.other.flags & FLOW_PROVED != 0 {
        return false;
    }
    if expiry::age(work.other.last_seen, world.now()) < work.control.hz / HANDSHAKES_PER_SECOND {
        return false;
    }
    // The backend's half first: its SYN-ACK may be on another CPU in this instant. It finds this
    // half and no other, and would make that anew.
    if !world.remove_newcomer(&work.other_key, work.holder) {
        return false;
    }
    if is_whole {
        world.remove_newcomer(&work.rival_key, Handle::of(&work.other));
    }
    true
}

/// Whether the half `work.other` is of a flow that is over, and was silent for a second: what is still
/// on its way has come by then. One whose backend is gone is over as well: it only waits to tell its client.
#[inline(always)]
fn has_closed<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>) -> bool {
    let half = &work.other;
    if world.generation(half.backend) != Some(half.generation) {
        return true;
    }
    matches!(FlowState::from_u8(half.state), FlowState::Closed | FlowState::Reset)
        && expiry::age(half.last_seen, world.now()) > work.control.hz
}
