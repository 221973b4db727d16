//! Fragments: only the first one of a packet has ports, and the others follow it.
//!
//! The first one takes the walk of any packet. What becomes of it is noted under what all fragments
//! of a packet share (addresses, identification, protocol), and the others do as it did: they go
//! along its flow, to the stack, or nowhere. Those that come before it wait: they are kept in a ring
//! of frames, and sent on, once it has come, to where they came from, so that they are met again.
//!
//! Nothing here can be exhausted by fragments that never become a packet but what such fragments use:
//! who waits is pushed out by newer ones, and takes the place of others that wait before that of
//! packets whose first fragment is known. While frames are pushed out before their time, fragments
//! that would wait are passed on as well, so that traffic of others does not suffer.
//!
//! XDP hands all fragments up to TC, which sits behind it. Fragments that overlap are left to the
//! receiver, which sees what it would without us.

use super::env::{Hook, Packet, Step, World};
use super::family::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Family, V4, V6};
use super::flow::is_met_at;
use super::hash::{self, share64};
use super::parse;
use super::rewrite;
use super::table::handle::Handle;
use super::track::{find, refresh_hop};
use super::verdict::{Action, Verdict};
use super::walk::{count_passed, exit};
use super::work::Work;
use crate::abi::{
    ADDRESS_OWN, ADDRESS_SERVED, DATAGRAMS_OF_SET, Datagram, DatagramKey, FATE_AWAITED, FATE_DROPS,
    FATE_FOLLOWS, FATE_NONE, FATE_PASSES, FlowKey, HOP_STACK, HOP_UNRESOLVED, IPPROTO_TCP,
    IPPROTO_UDP, Ports, Reason,
};

/// Fragments of one packet that can wait: as many as 64 KiB make with 576 bytes each, and some more.
pub const MOST_WAITING: u16 = 128;

/// Protocol number of IPv6 destination options, which may stand between a fragment header and the
/// transport header.
const DESTINATION: u8 = 60;

/// The packets of one set.
pub type Set<A> = [Datagram<A>; DATAGRAMS_OF_SET];

/// A packet as a fragment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part<A> {
    /// Which packet it is of.
    pub key: DatagramKey<A>,
    /// Of a first fragment: the newest of those that wait for it, or 0.
    pub head: u64,
    /// Of a first fragment: what the walk has decided on it.
    pub verdict: Option<Verdict>,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Key of the hash that picks sets.
    pub seed: u64,
    /// Number of sets.
    pub sets: u32,
    /// Number of frames that can wait.
    pub waiting: u32,
    /// Jiffies after which a packet is forgotten.
    pub timeout: u32,
}

/// A frame that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which one it is, never 0.
    pub ticket: u64,
    /// Whether it took the place of one whose time was not over.
    pub ousted: bool,
}

/// Where packets are noted, and frames wait.
pub trait Fragments<F: Family, P: Packet>: World<F> {
    /// The limits; `None` before the agent has written them.
    fn limits(&self) -> Option<Limits>;
    /// Lends a set, which nobody else has meanwhile. `None` if others had it for too long.
    fn with_set<R>(&self, set: u32, body: impl FnOnce(&mut Set<F::Addr>) -> R) -> Option<R>;
    /// Keeps a copy of the frame. `None` if it is too long, or its place is being written.
    fn keep(&self, packet: &mut P, limits: &Limits) -> Option<Kept>;
    /// Notes which frame waited before this one for the same packet.
    fn link(&self, ticket: u64, previous: u64);
    /// Gives the place of a frame back.
    fn let_go(&self, ticket: u64);
    /// Sends the frames from `head` on to where they came from, at most [`MOST_WAITING`]; the frame
    /// at hand stays as it is. False if it did not.
    fn send_on(&self, packet: &mut P, head: u64, limits: &Limits) -> bool;
}

/// Decides on a frame of which [`walk`](super::walk::walk) says that it is a fragment, right after it.
#[inline(always)]
pub fn walk<P: Packet, W: Fragments<V4, P> + Fragments<V6, P>>(
    packet: &mut P,
    world: &W,
) -> Verdict {
    match parse::ethernet(packet) {
        Some((ETHERTYPE_IPV4, l3)) => any::<V4, P, W>(packet, world, l3),
        Some((ETHERTYPE_IPV6, l3)) => any::<V6, P, W>(packet, world, l3),
        _ => Verdict::PASS,
    }
}

#[inline(never)]
fn any<F: Family, P: Packet, W: Fragments<F, P>>(packet: &mut P, world: &W, l3: usize) -> Verdict {
    let limits = <W as Fragments<F, P>>::limits(world);
    let decided = world.with_work(|work| {
        work.part.head = 0;
        let Some(limits) = limits else {
            return if is_first(work) { work.part.verdict } else { None };
        };
        name::<F, W>(work);
        Some(if is_first(work) {
            first::<F, P, W>(world, work, &limits)
        } else {
            later::<F, P, W>(packet, world, work, l3, &limits)
        })
    });
    let head = world.with_work(|work| work.part.head).unwrap_or(0);
    if let (Some(limits), true) = (limits, head != 0) {
        // What is sent on may be met again at once, by the same programs: nothing is lent any more.
        if !world.send_on(packet, head, &limits) {
            world.count(Reason::Failed);
            return Verdict::DROP;
        }
    }
    decided.flatten().unwrap_or(Verdict::PASS)
}

#[inline(always)]
fn is_first<A>(work: &Work<A>) -> bool {
    work.outer.fragment.is_first()
}

/// Writes which packet the fragment is of into `work.part`.
#[inline(always)]
fn name<F: Family, W: World<F>>(work: &mut Work<F::Addr>) {
    let (outer, key) = (&work.outer, &mut work.part.key);
    key.src = outer.src;
    key.dst = outer.dst;
    key.id = outer.fragment.id;
    key.protocol = if F::VERSION == 4 { outer.protocol } else { 0 };
    key.hook = W::HOOK as u8;
    key.pad = 0;
}

#[inline(always)]
fn set_of<F: Family>(key: &DatagramKey<F::Addr>, limits: &Limits) -> u32 {
    let rest = key.id as u64 | (key.protocol as u64) << 32 | (key.hook as u64) << 40;
    let pair = F::fold_pair(&key.src, &key.dst, limits.seed);
    let hash = hash::finish64(pair.wrapping_add(share64(rest, limits.seed, 4)));
    hash::index(hash as u32, limits.sets)
}

/// Notes what has become of a first fragment, and takes those that wait for it.
#[inline(never)]
fn first<F: Family, P: Packet, W: Fragments<F, P>>(
    world: &W,
    work: &mut Work<F::Addr>,
    limits: &Limits,
) -> Verdict {
    let verdict = work.part.verdict.unwrap_or(Verdict::PASS);
    let fate = fate_after(verdict);
    if fate == FATE_PASSES {
        if !is_awaited::<F, W>(world, work) {
            return verdict;
        }
        count_passed::<F, W>(world, Reason::Fragment);
    }
    let since = world.now();
    let (key, ports) = (&work.part.key, work.parsed.key.ports);
    let known = Known { fate, protocol: work.outer.protocol, ports };
    let head = world.with_set(set_of::<F>(key, limits), |set| {
        let found = find_in(set, key, since, limits.timeout);
        let head = found.and_then(|at| set.get(at)).map_or(0, |one| one.head);
        let at = found.unwrap_or_else(|| victim_in(set, since, limits.timeout));
        note(set, at, key, since, known);
        head
    });
    match head {
        Some(head) => work.part.head = head,
        // The others wait for nothing.
        None => world.count(Reason::Raced),
    }
    verdict
}

/// What becomes of the others after a first fragment.
#[inline(always)]
const fn fate_after(verdict: Verdict) -> u8 {
    match verdict.action() {
        Action::Pass => FATE_PASSES,
        Action::Drop | Action::Back(_) => FATE_DROPS,
        _ => FATE_FOLLOWS,
    }
}

/// What is known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    fate: u8,
    protocol: u8,
    ports: Ports,
}

/// Where in its set a packet is.
#[inline(always)]
fn find_in<A: Copy + PartialEq>(
    set: &Set<A>,
    key: &DatagramKey<A>,
    now: u32,
    timeout: u32,
) -> Option<usize> {
    let is_it = |one: &Datagram<A>| !is_over(one, now, timeout) && one.key == *key;
    let mut found = None;
    for (at, one) in set.iter().enumerate() {
        if is_it(one) {
            found = Some(at);
        }
    }
    found
}

/// Whose place a packet takes that is not in its set: a free one, else of those that wait for their
/// first fragment the oldest, else the oldest.
#[inline(always)]
fn victim_in<A>(set: &Set<A>, now: u32, timeout: u32) -> usize {
    const AWAITED: u64 = 1 << 32;
    let (mut victim, mut most) = (0, 0);
    for (at, one) in set.iter().enumerate() {
        let worth = match one.fate {
            _ if is_over(one, now, timeout) => u64::MAX,
            FATE_AWAITED => AWAITED + now.wrapping_sub(one.since) as u64,
            _ => now.wrapping_sub(one.since) as u64,
        };
        if worth > most {
            (victim, most) = (at, worth);
        }
    }
    victim
}

/// Whether nothing is known in that place any more.
#[inline(always)]
const fn is_over<A>(one: &Datagram<A>, now: u32, timeout: u32) -> bool {
    one.fate == FATE_NONE || now.wrapping_sub(one.since) >= timeout
}

/// Writes what is known of a packet into a place.
#[inline(always)]
fn note<A: Copy>(set: &mut Set<A>, at: usize, key: &DatagramKey<A>, since: u32, known: Known) {
    let Some(one) = set.get_mut(at) else { return };
    one.key = *key;
    one.ports = known.ports;
    one.since = since;
    one.head = 0;
    one.fate = known.fate;
    one.protocol = known.protocol;
    one.waiting = 0;
}

/// Decides on a fragment that is not the first.
#[inline(never)]
fn later<F: Family, P: Packet, W: Fragments<F, P>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
    l3: usize,
    limits: &Limits,
) -> Verdict {
    let (now, key) = (world.now(), &work.part.key);
    let known = world.with_set(set_of::<F>(key, limits), |set| known_in(set, key, now, limits));
    let known = match known {
        None => None,
        Some(known) if known.fate == FATE_NONE || known.fate == FATE_AWAITED => {
            match wait::<F, P, W>(packet, world, work, limits) {
                Ok(known) => known,
                Err(verdict) => return verdict,
            }
        }
        known => known,
    };
    match known {
        None => {
            world.count(Reason::Raced);
            Verdict::DROP
        }
        Some(Known { fate: FATE_FOLLOWS, protocol, ports }) => {
            work.key = FlowKey::new(work.outer.src, work.outer.dst, ports, protocol);
            follow::<F, P, W>(packet, world, work, l3)
        }
        Some(Known { fate: FATE_PASSES, .. }) => {
            count_passed::<F, W>(world, Reason::Fragment);
            Verdict::PASS
        }
        Some(_) => drop_it::<F, W>(world),
    }
}

#[inline(always)]
fn drop_it<F: Family, W: World<F>>(world: &W) -> Verdict {
    world.count(Reason::FragmentDropped);
    Verdict::DROP
}

#[inline(always)]
fn known_in<A: Copy + PartialEq>(
    set: &Set<A>,
    key: &DatagramKey<A>,
    now: u32,
    limits: &Limits,
) -> Known {
    let at = find_in(set, key, now, limits.timeout);
    match at.and_then(|at| set.get(at)) {
        Some(one) => Known { fate: one.fate, protocol: one.protocol, ports: one.ports },
        None => Known { fate: FATE_NONE, protocol: 0, ports: Ports::default() },
    }
}

/// What came of it that a fragment should wait.
enum Joined {
    /// It waits.
    Waits,
    /// Too many wait for this packet.
    TooMany,
    /// The first fragment came meanwhile, on another CPU.
    Known(Known),
}

/// Lets a fragment wait. `Ok` if the first one has come meanwhile, and what is known then; `Ok(None)`
/// if it could not be seen; the verdict if it waits or is not to wait.
#[inline(never)]
fn wait<F: Family, P: Packet, W: Fragments<F, P>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
    limits: &Limits,
) -> Result<Option<Known>, Verdict> {
    let is_awaited = may_be_ours::<F>(work.outer.protocol) && is_awaited::<F, W>(world, work);
    if !is_awaited {
        return Err(Verdict::PASS);
    }
    let Some(kept) = world.keep(packet, limits) else {
        count_passed::<F, W>(world, Reason::Fragment);
        return Err(Verdict::PASS);
    };
    let (now, key) = (world.now(), &work.part.key);
    let joined = world.with_set(set_of::<F>(key, limits), |set| {
        join(set, key, now, limits.timeout, |previous| {
            <W as Fragments<F, P>>::link(world, kept.ticket, previous);
            kept.ticket
        })
    });
    if !matches!(joined, Some(Joined::Waits)) {
        <W as Fragments<F, P>>::let_go(world, kept.ticket);
    }
    match joined {
        None => Ok(None),
        Some(Joined::Known(known)) => Ok(Some(known)),
        Some(Joined::TooMany) => Err(drop_it::<F, W>(world)),
        Some(Joined::Waits) => {
            world.count(Reason::FragmentKept);
            Err(if kept.ousted { Verdict::PASS } else { Verdict::DROP })
        }
    }
}

/// Puts a fragment before those that wait for the same packet. `link` is told the newest of them, and
/// says who is it from now on.
#[inline(always)]
fn join<A: Copy + PartialEq>(
    set: &mut Set<A>,
    key: &DatagramKey<A>,
    now: u32,
    timeout: u32,
    link: impl FnOnce(u64) -> u64,
) -> Joined {
    const AWAITED: Known =
        Known { fate: FATE_AWAITED, protocol: 0, ports: Ports { src: [0; 2], dst: [0; 2] } };
    let found = find_in(set, key, now, timeout);
    let at = found.unwrap_or_else(|| victim_in(set, now, timeout));
    if found.is_none() {
        note(set, at, key, now, AWAITED);
    }
    let Some(one) = set.get_mut(at) else { return Joined::TooMany };
    if one.fate != FATE_AWAITED {
        let Datagram { fate, protocol, ports, .. } = *one;
        return Joined::Known(Known { fate, protocol, ports });
    }
    if one.waiting >= MOST_WAITING {
        return Joined::TooMany;
    }
    one.head = link(one.head);
    one.waiting += 1;
    Joined::Waits
}

/// Whether what stands behind the IP header, or behind an IPv6 fragment header, may lead to a
/// transport header that we look at.
#[inline(always)]
const fn may_be_ours<F: Family>(protocol: u8) -> bool {
    matches!(protocol, IPPROTO_TCP | IPPROTO_UDP) || F::VERSION == 6 && protocol == DESTINATION
}

/// Whether a fragment at this hook of which nothing is known may be of a packet of ours: where
/// packets arrive, if it is for this node; where they leave, if it is not from this node.
#[inline(always)]
fn is_awaited<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) -> bool {
    match W::HOOK {
        Hook::Xdp => false,
        Hook::Pod => true,
        Hook::Ingress => is_own::<F, W>(world, work, true),
        Hook::Egress => !is_own::<F, W>(world, work, false),
    }
}

/// Whether the destination, or the source, is an address of the node, or the destination one that a
/// frontend names: a load balancer's need not be the node's. An address that has just come is known to
/// the kernel alone, to which one without a route is the same.
#[inline(never)]
fn is_own<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>, destination: bool) -> bool {
    let (src, dst) = (work.outer.src, work.outer.dst);
    (work.way.from, work.way.to) = if destination { (src, dst) } else { (dst, src) };
    let wanted = if destination { u32::MAX } else { ADDRESS_OWN | ADDRESS_SERVED };
    if world.address_bits(&work.way.to) & wanted != 0 {
        return true;
    }
    world.route(&mut work.way, work.outer.protocol);
    work.way.hop.kind == HOP_STACK
}

/// Sends a fragment along the flow `work.key` that the first one went along.
#[inline(never)]
fn follow<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
    l3: usize,
) -> Verdict {
    let Some(control) = world.control() else { return Verdict::PASS };
    work.control = control;
    if !find::<F, W>(world, work)
        || !is_met_at(&work.flow, W::HOOK)
        || world.generation(work.flow.backend) != Some(work.flow.generation)
    {
        return drop_it::<F, W>(world);
    }
    let hop_changed = refresh_hop::<F, W>(world, work);
    let hop = &work.flow.hop;
    let Some(verdict) = exit::<F, P, W>(packet, world, l3 as u16, hop) else {
        return Verdict::PASS;
    };
    // Errors are sent about first fragments alone (RFC 1122, 3.2.2).
    let obstacle = match hop.kind {
        HOP_UNRESOLVED => Some(Reason::HopUnresolved),
        HOP_STACK => None,
        _ if work.outer.ttl <= 1 => Some(Reason::TtlExceeded),
        _ if work.outer.total > hop.mtu => Some(Reason::TooBig),
        _ => None,
    };
    if let Some(reason) = obstacle {
        world.count(reason);
        return Verdict::DROP;
    }
    let step = Step {
        now: world.now(),
        bytes: work.outer.total as u32,
        hop: hop_changed.then_some(hop),
        state: None,
    };
    // Should another CPU have ended the flow in this instant, it goes where the first one went.
    let _ = world.step_flow(Handle::of(&work.flow), step);
    if !packet.mark_done() {
        return Verdict::PASS;
    }
    if !rewrite::fragment::<F, P>(packet, l3, &work.flow) {
        world.count(Reason::Failed);
        return Verdict::DROP;
    }
    verdict
}
