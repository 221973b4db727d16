//! `nodeport-agent flows`.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use nodeport_common::abi::{
    Addr4, Addr6, FLOW_LOCAL, FLOW_PROVED, FLOW_REPLY, Flow, FlowEntry, FlowKey, FlowState,
    HOP_NEIGHBOUR, HOP_SEND, HOP_STACK, HOP_TAGGED, Mac, NextHop, Plain, Port,
};
use nodeport_common::core::flow::{partner, partner_key};
use nodeport_common::core::rewrite::has_addresses;
use serde::Serialize;

use super::output::{Row, bytes, seconds};
use super::view::{InFamily, View, protocol};

/// A flow: both halves, or the one that is there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FlowRow {
    service: String,
    protocol: String,
    client: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
    /// What the backend sees as the client.
    source: SocketAddr,
    state: &'static str,
    /// `established`, or `newcomer` while the flow has not proved itself.
    standing: &'static str,
    local: bool,
    packets_to_backend: u64,
    bytes_to_backend: u64,
    packets_to_client: u64,
    bytes_to_client: u64,
    age_seconds: f64,
    idle_seconds: f64,
    to_backend: Hop,
    /// None if that half is missing.
    to_client: Option<Hop>,
}

/// Where a half's packets go next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Hop {
    /// `send`, `send_tagged`, `neighbour`, `stack` or `unresolved`.
    mode: &'static str,
    interface: Option<String>,
    mac: Option<String>,
    mtu: u16,
    /// A change on the network since makes the flow look again.
    current: bool,
}

impl Row for FlowRow {
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

    fn cells(&self) -> Vec<String> {
        let load = |packets: u64, count: u64| format!("{packets}p {}", bytes(count));
        vec![
            self.protocol.clone(),
            self.client.to_string(),
            self.frontend.to_string(),
            self.backend.to_string(),
            self.source.to_string(),
            self.state.to_owned(),
            load(self.packets_to_backend, self.bytes_to_backend),
            load(self.packets_to_client, self.bytes_to_client),
            seconds(self.age_seconds),
            seconds(self.idle_seconds),
            self.to_backend.shown(),
        ]
    }
}

impl Hop {
    fn shown(&self) -> String {
        match &self.interface {
            Some(interface) => format!("{} {interface}", self.mode),
            None => self.mode.to_owned(),
        }
    }
}

/// All of them, sorted by service and client.
pub(super) fn rows(view: &View) -> anyhow::Result<Vec<FlowRow>> {
    let mut rows = in_family::<Addr4>(view)?;
    rows.extend(in_family::<Addr6>(view)?);
    rows.sort_by(|a, b| (&a.service, a.client).cmp(&(&b.service, b.client)));
    Ok(rows)
}

fn in_family<A: InFamily + Hash>(view: &View) -> anyhow::Result<Vec<FlowRow>>
where
    FlowEntry<A, A::Pad>: Plain,
{
    let now = view.now()?;
    let halves: HashMap<FlowKey<A>, Flow<A>> = view.flows::<A>()?.into_iter().collect();
    let mut rows = Vec::new();
    for (key, flow) in &halves {
        let other_key = partner_key(key, flow);
        let other = halves.get(&other_key);
        if flow.flags & FLOW_REPLY == 0 {
            rows.push(row(view, now, key, flow, other));
        } else if other.is_none() {
            // The client's half is lost: what it was follows from this one.
            let lost = partner(key, flow);
            rows.push(row(view, now, &other_key, &lost, Some(flow)));
        }
    }
    Ok(rows)
}

fn row<A: InFamily>(
    view: &View,
    now: u32,
    key: &FlowKey<A>,
    flow: &Flow<A>,
    reply: Option<&Flow<A>>,
) -> FlowRow {
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

fn shown([a, b, c, d, e, f]: Mac) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn hop(view: &View, hop: &NextHop) -> Hop {
    let mode = match hop.kind {
        HOP_SEND => "send",
        HOP_NEIGHBOUR => "neighbour",
        HOP_TAGGED => "send_tagged",
        HOP_STACK => "stack",
        _ => "unresolved",
    };
    Hop {
        mode,
        interface: (hop.ifindex != 0).then(|| view.interface(hop.ifindex)),
        mac: has_addresses(hop.kind).then(|| shown(hop.dst_mac)),
        mtu: hop.mtu,
        current: hop.epoch == view.control.hop_epoch(),
    }
}
