//! What there is to tell of service ports and their backends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use nodeport_common::abi::{Reason, ServiceStats};
use nodeport_common::core::table::half::backend_word;

use super::sheet::Sheet;
use super::{Detail, catalog};
use crate::dataplane::{Carried, DIRECTIONS, Opened, Traffic};
use crate::reconcile::Listed;
use crate::state_file::Service;

/// Backends that have series of their own, at most: beyond, there would be more than a server of metrics
/// likes to take from one node.
const MOST_BACKENDS: usize = 20_000;

/// A service port, of both families and policies.
struct Port<'a> {
    names: [String; 5],
    parts: Vec<&'a Arc<Service>>,
    stats: Option<ServiceStats>,
    carried: Carried,
}

/// Writes all of them; `stats` has what programs count by the id of a service port.
pub(super) fn encode(
    sheet: &mut Sheet<'_>,
    listed: &[Listed],
    traffic: &Traffic,
    stats: impl Fn(u32) -> Option<ServiceStats>,
    detail: Detail,
) -> fmt::Result {
    let ports = ports(listed, traffic, stats);
    counted(sheet, &ports)?;
    carried(sheet, &ports)?;
    backends_by_state(sheet, &ports)?;
    if detail >= Detail::Backends {
        backends(sheet, &ports, traffic)?;
    }
    sheet.one(&catalog::FLOWS_COUNTED, super::collect::seconds(traffic.at))
}

fn ports<'a>(
    listed: &'a [Listed],
    traffic: &Traffic,
    stats: impl Fn(u32) -> Option<ServiceStats>,
) -> Vec<Port<'a>> {
    let mut ports: BTreeMap<u32, Port<'a>> = BTreeMap::new();
    for Listed { service, .. } in listed {
        let port = ports.entry(service.id).or_insert_with(|| Port {
            names: names(service),
            parts: Vec::new(),
            stats: stats(service.id),
            carried: traffic.ports.get(&service.id).copied().unwrap_or_default(),
        });
        port.parts.push(service);
    }
    ports.into_values().collect()
}

fn names(service: &Service) -> [String; 5] {
    let Service { service: name, port_name, port, protocol, .. } = service;
    [
        name.namespace.to_string(),
        name.name.to_string(),
        port_name.clone(),
        port.to_string(),
        protocol.to_string(),
    ]
}

/// The labels of a service port, and one more.
fn with<'a>(port: &'a Port<'_>, more: &'a str) -> [&'a str; 6] {
    let [namespace, name, port_name, number, protocol] = port.names.each_ref().map(|name| &**name);
    [namespace, name, port_name, number, protocol, more]
}

fn all<'a>(port: &'a Port<'_>) -> [&'a str; 5] {
    port.names.each_ref().map(|name| &**name)
}

/// What programs count by service port.
fn counted(sheet: &mut Sheet<'_>, ports: &[Port<'_>]) -> fmt::Result {
    let known = || ports.iter().filter_map(|port| Some((port, port.stats?)));
    let rows = known().map(|(port, stats)| (all(port), stats.opened));
    sheet.rows(&catalog::SERVICE_CONNECTIONS, rows)?;
    let rows = known().flat_map(|(port, stats)| {
        let ServiceStats { opened: _, no_backend, no_port, table_full, denied } = stats;
        let of = move |reason: Reason, count| (with(port, reason.label()), count);
        [
            of(Reason::NoBackend, no_backend),
            of(Reason::NoPort, no_port),
            of(Reason::TableFull, table_full),
            of(Reason::SourceRange, denied),
        ]
    });
    sheet.rows(&catalog::SERVICE_DROPS, rows)
}

/// What the table of flows tells of them.
fn carried(sheet: &mut Sheet<'_>, ports: &[Port<'_>]) -> fmt::Result {
    let rows = ports.iter().map(|port| (all(port), port.carried.live));
    sheet.rows(&catalog::SERVICE_LIVE, rows)?;
    for (metric, numbers) in [
        (&catalog::SERVICE_PACKETS, (|carried| carried.packets) as fn(Carried) -> [u64; 2]),
        (&catalog::SERVICE_BYTES, |carried| carried.bytes),
    ] {
        let rows = ports.iter().flat_map(|port| {
            let numbers = numbers(port.carried);
            [0, 1].map(|place| (with(port, DIRECTIONS[place]), numbers[place]))
        });
        sheet.rows(metric, rows)?;
    }
    Ok(())
}

fn backends_by_state(sheet: &mut Sheet<'_>, ports: &[Port<'_>]) -> fmt::Result {
    let rows = ports.iter().flat_map(|port| {
        let all: BTreeSet<_> = port.backends().map(|(at, draining, _)| (at, draining)).collect();
        let draining = all.iter().filter(|(_, draining)| *draining).count();
        [(with(port, "usable"), all.len() - draining), (with(port, "draining"), draining)]
    });
    sheet.rows(&catalog::SERVICE_BACKENDS, rows)
}

fn backends(sheet: &mut Sheet<'_>, ports: &[Port<'_>], traffic: &Traffic) -> fmt::Result {
    let mut rows: Vec<(&Port<'_>, String, Opened)> = Vec::new();
    let mut left_out = 0_u64;
    for port in ports {
        // Traffic from inside and from outside may go to the same endpoint, by two places in the maps.
        let mut of_port: BTreeMap<SocketAddr, Opened> = BTreeMap::new();
        for (at, _, key) in port.backends() {
            let one = traffic.backends.get(&key).copied().unwrap_or_default();
            let sum = of_port.entry(at).or_default();
            (sum.live, sum.opened) = (sum.live + one.live, sum.opened + one.opened);
        }
        let room = MOST_BACKENDS.saturating_sub(rows.len());
        left_out += of_port.len().saturating_sub(room) as u64;
        let shown = of_port.into_iter().take(room);
        rows.extend(shown.map(|(at, one)| (port, at.to_string(), one)));
    }
    let opened = rows.iter().map(|(port, at, one)| (with(port, at), one.opened));
    sheet.rows(&catalog::BACKEND_CONNECTIONS, opened)?;
    let live = rows.iter().map(|(port, at, one)| (with(port, at), one.live));
    sheet.rows(&catalog::BACKEND_LIVE, live)?;
    sheet.one(&catalog::BACKENDS_LEFT_OUT, left_out)
}

impl Port<'_> {
    /// Address, whether it is draining, and how flows name it.
    fn backends(&self) -> impl Iterator<Item = (SocketAddr, bool, (crate::model::Family, u32))> {
        self.parts.iter().flat_map(|service| {
            service.backends.iter().map(|backend| {
                let at = SocketAddr::new(backend.address, backend.port);
                let word = backend_word(backend.index, backend.generation);
                (at, backend.draining, (service.family, word))
            })
        })
    }
}
