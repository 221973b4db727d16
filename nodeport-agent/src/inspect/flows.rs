//! `nodeport-agent flows`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hash};
use std::net::{IpAddr, SocketAddr};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use nodeport_common::abi::{
    Addr4, Addr6, FLOW_FAST, FLOW_HOST, FLOW_LOCAL, FLOW_PROVED, FLOW_REPLY, Flow, FlowKey,
    FlowState, HOP_NEIGHBOUR, HOP_POD, HOP_SEND, HOP_STACK, HOP_TAGGED, Mac, NextHop, Port,
};
use nodeport_common::core::flow::{partner, partner_key};
use nodeport_common::core::rewrite::has_addresses;
use serde::{Serialize, Serializer};

use super::output::{
    self, Cells, Row, each, put_address, put_bytes, put_number, put_seconds, share,
};
use super::view::{Half, InFamily, View, protocol};
use crate::args::Output;

/// A flow: both halves, or the one that is there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FlowRow<'a> {
    service: Cow<'a, str>,
    protocol: Cow<'a, str>,
    client: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
    /// What the backend sees as the client.
    source: SocketAddr,
    state: &'static str,
    /// `established`, or `newcomer` while the flow has not proved itself.
    standing: &'static str,
    local: bool,
    /// Past the node's network stack; such as go to other nodes always do.
    fast: bool,
    packets_to_backend: u64,
    bytes_to_backend: u64,
    packets_to_client: u64,
    bytes_to_client: u64,
    age_seconds: f64,
    idle_seconds: f64,
    to_backend: Hop<'a>,
    /// None if that half is missing.
    to_client: Option<Hop<'a>>,
}

/// Where a half's packets go next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Hop<'a> {
    /// `send`, `send_tagged`, `neighbour`, `pod`, `stack` or `unresolved`.
    mode: &'static str,
    interface: Option<Cow<'a, str>>,
    mac: Option<HardwareAddress>,
    mtu: u16,
    /// A change on the network since makes the flow look again.
    current: bool,
}

/// An Ethernet address, as text once it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HardwareAddress(Mac);

impl Serialize for HardwareAddress {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let [a, b, c, d, e, f] = self.0;
        to.collect_str(&format_args!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"))
    }
}

impl Row for FlowRow<'_> {
    const TITLES: &'static [&'static str] = &[
        "PROTO",
        "CLIENT",
        "FRONTEND",
        "BACKEND",
        "SOURCE",
        "STATE",
        "TO-BACKEND",
        "TO-CLIENT",
        "AGE",
        "IDLE",
        "NEXT-HOP",
    ];

    fn add_to(&self, cells: &mut Cells) {
        cells.add_by(|text| text.push_str(&self.protocol));
        for address in [self.client, self.frontend, self.backend, self.source] {
            cells.add_by(|text| put_address(text, address));
        }
        cells.add_by(|text| text.push_str(self.state));
        for (packets, count) in [
            (self.packets_to_backend, self.bytes_to_backend),
            (self.packets_to_client, self.bytes_to_client),
        ] {
            cells.add_by(|text| {
                put_number(text, packets);
                text.push_str("p ");
                put_bytes(text, count);
            });
        }
        cells.add_by(|text| put_seconds(text, self.age_seconds));
        cells.add_by(|text| put_seconds(text, self.idle_seconds));
        let Hop { mode, interface, .. } = &self.to_backend;
        cells.add_by(|text| {
            text.push_str(mode);
            if let Some(interface) = interface {
                text.push(' ');
                text.push_str(interface);
            }
        });
    }
}

/// Prints all of them, sorted by service and client.
pub(super) fn list(view: &View, output: Output) -> anyhow::Result<()> {
    let now = view.now()?;
    let (halves4, halves6) = (view.flows::<Addr4>()?, view.flows::<Addr6>()?);
    let (mut pairs4, mut pairs6) = (pairs(&halves4), pairs(&halves6));
    let ranks = ranks(view, services(&pairs4).chain(services(&pairs6)).collect());
    let (pairs4, pairs6) = (sorted(&mut pairs4, &ranks), sorted(&mut pairs6, &ranks));
    let mut all: Vec<Listed<'_>> = Vec::with_capacity(pairs4.len() + pairs6.len());
    all.extend(pairs4.into_iter().map(Listed::V4));
    all.extend(pairs6.into_iter().map(Listed::V6));
    // Those of each family are sorted already.
    all.sort_by_key(Listed::place);
    let row = |one: &Listed<'_>| match one {
        Listed::V4(pair) => of_pair(view, now, pair),
        Listed::V6(pair) => of_pair(view, now, pair),
    };
    output::list(&all, row, output)
}

/// A flow of one of the families.
enum Listed<'a> {
    V4(Pair<'a, Addr4>),
    V6(Pair<'a, Addr6>),
}

impl Listed<'_> {
    fn place(&self) -> (u32, IpAddr, u16, IpAddr, u16) {
        fn of<A: Copy + Into<IpAddr>>(place: &Place<A>) -> (u32, IpAddr, u16, IpAddr, u16) {
            let (rank, client, port, to, to_port) = *place;
            (rank, client.into(), port, to.into(), to_port)
        }
        match self {
            Self::V4(pair) => of(&pair.place),
            Self::V6(pair) => of(&pair.place),
        }
    }
}

/// By what flows are sorted: the service (at first by id, then by the rank of its name), the client's
/// address and port, those that it asked.
type Place<A> = (u32, A, u16, A, u16);

/// The place of a client's half.
fn place_of<A: Copy>(service: u32, key: &FlowKey<A>) -> Place<A> {
    let port = u16::from_be_bytes;
    (service, key.src, port(key.ports.src), key.dst, port(key.ports.dst))
}

/// A flow by its halves.
struct Pair<'a, A> {
    place: Place<A>,
    halves: Halves<'a, A>,
}

/// What there is of a flow.
enum Halves<'a, A> {
    /// The client's half, and the reply's if it is not lost.
    Forward(&'a Half<A>, Option<&'a Half<A>>),
    /// The reply's half alone.
    Reply(&'a Half<A>),
}

/// Halves of which the partners are looked for by one thread, at least.
const SHARE: usize = 4_096;

/// Puts the halves together, each with its partner. Each thread has the flows that a hash gives it.
fn pairs<A: InFamily + Hash>(halves: &[Vec<Half<A>>]) -> Vec<Vec<Pair<'_, A>>> {
    // Keys come from the network: the hash has a seed.
    let hasher = RandomState::default();
    let all: usize = halves.iter().map(Vec::len).sum();
    let shares = all.div_ceil(share(all, SHARE)).max(1) as u64;
    each(0..shares, &|number| {
        // The upper bits: a hash map that is in the same thread goes by others.
        let is_mine =
            |key: &FlowKey<A>| (u128::from(hasher.hash_one(key)) * u128::from(shares)) >> 64;
        pairs_of(halves, all / shares as usize, |key| is_mine(key) == u128::from(number))
    })
}

/// The flows whose reply has such a key; there may be about so many halves of them.
fn pairs_of<'a, A: InFamily + Hash>(
    halves: &'a [Vec<Half<A>>],
    about: usize,
    is_mine: impl Fn(&FlowKey<A>) -> bool,
) -> Vec<Pair<'a, A>> {
    let all = || halves.iter().flatten();
    let is_reply = |(_, flow): &Half<A>| flow.flags & FLOW_REPLY != 0;
    let mut replies = HashMap::with_capacity_and_hasher(about / 2, RandomState::default());
    replies
        .extend(all().filter(|half| is_reply(half) && is_mine(&half.0)).map(|half| (half.0, half)));
    let mut pairs = Vec::with_capacity(replies.len());
    for half in all().filter(|half| !is_reply(half)) {
        let (key, flow) = half;
        let partner = partner_key(key, flow);
        if is_mine(&partner) {
            let place = place_of(flow.service, key);
            let reply = replies.remove(&partner);
            pairs.push(Pair { place, halves: Halves::Forward(half, reply) });
        }
    }
    pairs.extend(replies.into_values().map(|half| {
        let (key, flow) = half;
        let lost = partner_key(key, flow);
        let place = place_of(flow.service, &lost);
        Pair { place, halves: Halves::Reply(half) }
    }));
    pairs
}

/// The ids of the services of some flows, each at least once.
fn services<A>(pairs: &[Vec<Pair<'_, A>>]) -> impl Iterator<Item = u32> {
    let mut last = None;
    let ids = pairs.iter().flatten().map(|pair| pair.place.0);
    ids.filter(move |id| last.replace(*id) != Some(*id))
}

/// Where each service's name stands among all: names are few, so that they are compared once.
fn ranks(view: &View, ids: BTreeSet<u32>) -> HashMap<u32, u32> {
    let mut named: Vec<_> = ids.into_iter().map(|id| (view.names.service(id), id)).collect();
    named.sort();
    named.iter().map(|(_, id)| *id).zip(0..).collect()
}

/// All pairs, sorted by the rank of their service and by their client.
fn sorted<'a, A: InFamily>(
    parts: &mut [Vec<Pair<'a, A>>],
    ranks: &HashMap<u32, u32>,
) -> Vec<Pair<'a, A>> {
    let sort = |part: &mut Vec<Pair<'a, A>>| {
        for pair in &mut *part {
            pair.place.0 = ranks.get(&pair.place.0).copied().unwrap_or_default();
        }
        part.sort_unstable_by_key(|pair| pair.place);
    };
    each(parts.iter_mut(), &sort);
    let mut all: Vec<_> = parts.iter_mut().flat_map(std::mem::take).collect();
    // A stable sort joins what is sorted already.
    all.sort_by_key(|pair| pair.place);
    all
}

fn of_pair<'a, A: InFamily>(view: &'a View, now: u32, pair: &Pair<'_, A>) -> FlowRow<'a> {
    match pair.halves {
        Halves::Forward((key, flow), reply) => {
            row(view, now, key, flow, reply.map(|(_, flow)| flow))
        }
        // The client's half is lost: what it was follows from the other one.
        Halves::Reply((key, flow)) => {
            row(view, now, &partner_key(key, flow), &partner(key, flow), Some(flow))
        }
    }
}

fn row<'a, A: InFamily>(
    view: &'a View,
    now: u32,
    key: &FlowKey<A>,
    flow: &Flow<A>,
    reply: Option<&Flow<A>>,
) -> FlowRow<'a> {
    // A packet may have come since the clock was read.
    let since = |seen: u32| (now.wrapping_sub(seen) as i32).max(0) as u32;
    let idle = reply.map_or(u32::MAX, |reply| since(reply.last_seen)).min(since(flow.last_seen));
    FlowRow {
        service: view.names.service(flow.service),
        protocol: protocol(key.protocol),
        client: at(key.src, key.ports.src),
        frontend: at(key.dst, key.ports.dst),
        backend: at(flow.new_dst, flow.new_ports.dst),
        source: at(flow.new_src, flow.new_ports.src),
        state: state(flow.state),
        standing: if flow.flags & FLOW_PROVED != 0 { "established" } else { "newcomer" },
        local: flow.flags & (FLOW_LOCAL | FLOW_HOST) == FLOW_LOCAL,
        fast: flow.flags & (FLOW_LOCAL | FLOW_FAST) != FLOW_LOCAL,
        packets_to_backend: flow.packets,
        bytes_to_backend: flow.bytes,
        packets_to_client: reply.map_or(0, |reply| reply.packets),
        bytes_to_client: reply.map_or(0, |reply| reply.bytes),
        age_seconds: view.seconds(since(flow.created)),
        idle_seconds: view.seconds(idle),
        to_backend: hop(view, &flow.hop),
        to_client: reply.map(|reply| hop(view, &reply.hop)),
    }
}

fn at<A: Into<IpAddr>>(address: A, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be_bytes(port))
}

fn state(number: u8) -> &'static str {
    match FlowState::from_u8(number) {
        FlowState::Opening => "opening",
        FlowState::Answered => "answered",
        FlowState::Established => "established",
        FlowState::ClientClosed => "client_closed",
        FlowState::BackendClosed => "backend_closed",
        FlowState::Closed => "closed",
        FlowState::Reset => "reset",
        FlowState::Doubted => "doubted",
    }
}

fn hop<'a>(view: &'a View, hop: &NextHop) -> Hop<'a> {
    let mode = match hop.kind {
        HOP_SEND => "send",
        HOP_NEIGHBOUR => "neighbour",
        HOP_TAGGED => "send_tagged",
        HOP_POD => "pod",
        HOP_STACK => "stack",
        _ => "unresolved",
    };
    Hop {
        mode,
        interface: (hop.ifindex != 0).then(|| view.interface(hop.ifindex)),
        mac: has_addresses(hop.kind).then_some(HardwareAddress(hop.dst_mac)),
        mtu: hop.mtu,
        current: hop.epoch == view.control.hop_epoch(),
    }
}
