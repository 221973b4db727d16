//! `nodeport-agent flows`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use nodeport_common::abi::{
    Addr4, Addr6, FLOW_FAST, FLOW_LOCAL, FLOW_PROVED, FLOW_REPLY, Flow, FlowEntry, FlowKey,
    FlowState, HOP_NEIGHBOUR, HOP_POD, HOP_SEND, HOP_STACK, HOP_TAGGED, Mac, NextHop, Plain, Port,
};
use nodeport_common::core::flow::{partner, partner_key};
use nodeport_common::core::rewrite::has_addresses;
use serde::{Serialize, Serializer};

use super::output::{Cells, Row, bytes, each, seconds, share};
use super::view::{InFamily, View, protocol};

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
        cells.add(&self.protocol);
        cells.texts([self.client, self.frontend, self.backend, self.source]);
        cells.add(self.state);
        for (packets, count) in [
            (self.packets_to_backend, self.bytes_to_backend),
            (self.packets_to_client, self.bytes_to_client),
        ] {
            cells.add(format_args!("{packets}p {}", bytes(count)));
        }
        cells.add(seconds(self.age_seconds));
        cells.add(seconds(self.idle_seconds));
        let Hop { mode, interface, .. } = &self.to_backend;
        match interface {
            Some(interface) => cells.add(format_args!("{mode} {interface}")),
            None => cells.add(mode),
        }
    }
}

/// All of them, sorted by service and client.
pub(super) fn rows(view: &View) -> anyhow::Result<Vec<FlowRow<'_>>> {
    let mut rows = in_family::<Addr4>(view)?;
    rows.extend(in_family::<Addr6>(view)?);
    // Those of each family are sorted already.
    rows.sort_by(|a, b| (&a.service, a.client).cmp(&(&b.service, b.client)));
    Ok(rows)
}

/// A flow by its halves: the client's, or the reply's of which that is lost.
struct Pair<'a, A> {
    service: u32,
    client: (A, u16),
    forward: Option<&'a Half<A>>,
    reply: Option<&'a Half<A>>,
}

type Half<A> = (FlowKey<A>, Flow<A>);

/// Flows that one thread makes rows of, at least.
const SHARE: usize = 4_096;

fn in_family<A: InFamily + Hash>(view: &View) -> anyhow::Result<Vec<FlowRow<'_>>>
where
    FlowEntry<A, A::Pad>: Plain,
{
    let now = view.now()?;
    let halves = view.flows::<A>()?;
    let mut pairs = pairs(&halves);
    // Names are few, so that they are compared once for each two of them.
    let ids: BTreeSet<u32> = pairs.iter().map(|pair| pair.service).collect();
    let mut named: Vec<_> = ids.into_iter().map(|id| (view.names.service(id), id)).collect();
    named.sort();
    let ranks: HashMap<u32, usize> = named.iter().map(|(_, id)| *id).zip(0..).collect();
    pairs.sort_unstable_by_key(|pair| (ranks.get(&pair.service), pair.client));
    let share = share(pairs.len(), SHARE);
    let rows = |pairs: &[Pair<'_, A>]| -> Vec<_> {
        pairs.iter().filter_map(|pair| of_pair(view, now, pair)).collect()
    };
    Ok(each(pairs.chunks(share), &rows).into_iter().flatten().collect())
}

/// Puts the halves together, each with its partner.
fn pairs<A: InFamily + Hash>(halves: &[Half<A>]) -> Vec<Pair<'_, A>> {
    let (replies, forwards): (Vec<&Half<A>>, Vec<&Half<A>>) =
        halves.iter().partition(|(_, flow)| flow.flags & FLOW_REPLY != 0);
    // Keys come from the network: the hash has a seed.
    let mut by_key = HashMap::with_capacity_and_hasher(replies.len(), RandomState::default());
    by_key.extend(replies.into_iter().map(|half| (half.0, half)));
    let mut pairs = Vec::with_capacity(forwards.len());
    for half in forwards {
        let (key, flow) = half;
        let reply = by_key.remove(&partner_key(key, flow));
        let client = (key.src, u16::from_be_bytes(key.ports.src));
        pairs.push(Pair { service: flow.service, client, forward: Some(half), reply });
    }
    pairs.extend(by_key.into_values().map(|half| {
        let (key, flow) = half;
        let lost = partner_key(key, flow);
        let client = (lost.src, u16::from_be_bytes(lost.ports.src));
        Pair { service: flow.service, client, forward: None, reply: Some(half) }
    }));
    pairs
}

fn of_pair<'a, A: InFamily>(view: &'a View, now: u32, pair: &Pair<'_, A>) -> Option<FlowRow<'a>> {
    let reply = pair.reply.map(|(_, flow)| flow);
    if let Some((key, flow)) = pair.forward {
        return Some(row(view, now, key, flow, reply));
    }
    // The client's half is lost: what it was follows from the other one.
    let (key, flow) = pair.reply?;
    Some(row(view, now, &partner_key(key, flow), &partner(key, flow), reply))
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
        local: flow.flags & FLOW_LOCAL != 0,
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
