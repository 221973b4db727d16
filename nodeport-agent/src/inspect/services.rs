//! `nodeport-agent services`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use nodeport_common::abi::{
    Addr4, Addr6, BACKEND_DRAINING, BACKEND_USABLE, Backend, FRONTEND_LEAST, FRONTEND_RANDOM,
    FRONTEND_YIELDS, FrontendKey, Plain,
};
use serde::Serialize;

use super::output::{Cells, Row};
use super::view::{InFamily, View, protocol};
use crate::model::Algorithm;

/// A service port in one family, as the maps have it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct ServiceRow {
    service: String,
    id: u32,
    family: String,
    protocol: String,
    /// What clients address; `node` for any address of the node.
    frontends: Vec<String>,
    usable_backends: u32,
    draining_backends: u32,
    /// How many backends have each weight; one that weighs nothing gets no new flows.
    weights: BTreeMap<u32, u32>,
    /// Which backend a new flow goes to.
    algorithm: Algorithm,
    slots: u32,
    /// For how many seconds a client that opens no flow is known again; 0 for not at all.
    affinity_seconds: u32,
    /// Counters of the service port, of both families together.
    flows_opened: u64,
    packets_without_backend: u64,
    flows_without_port: u64,
    flows_without_room: u64,
    packets_denied: u64,
}

impl Row for ServiceRow {
    const TITLES: &'static [&'static str] = &[
        "SERVICE",
        "FAMILY",
        "FRONTENDS",
        "BACKENDS",
        "DRAINING",
        "WEIGHTS",
        "ALGORITHM",
        "OPENED",
        "NO-BACKEND",
        "NO-PORT",
        "NO-ROOM",
        "DENIED",
    ];

    fn add_to(&self, cells: &mut Cells) {
        cells.texts([
            self.service.clone(),
            self.family.clone(),
            self.frontends.join(" "),
            self.usable_backends.to_string(),
            self.draining_backends.to_string(),
            weights(&self.weights),
            self.algorithm.to_string(),
            self.flows_opened.to_string(),
            self.packets_without_backend.to_string(),
            self.flows_without_port.to_string(),
            self.flows_without_room.to_string(),
            self.packets_denied.to_string(),
        ]);
    }
}

/// All of them, sorted by name.
pub(super) fn rows(view: &View) -> anyhow::Result<Vec<ServiceRow>> {
    let mut rows = in_family::<Addr4>(view)?;
    rows.extend(in_family::<Addr6>(view)?);
    rows.sort_by(|a, b| (&a.service, &a.family).cmp(&(&b.service, &b.family)));
    Ok(rows)
}

/// Ids and names of the service ports that have a frontend.
pub(super) fn ids(view: &View) -> anyhow::Result<BTreeMap<u32, String>> {
    let of4 = view.frontends::<Addr4>()?.into_iter().map(|(_, frontend)| frontend.service);
    let of6 = view.frontends::<Addr6>()?.into_iter().map(|(_, frontend)| frontend.service);
    Ok(of4.chain(of6).map(|id| (id, view.names.service(id).into_owned())).collect())
}

fn in_family<A: InFamily>(view: &View) -> anyhow::Result<Vec<ServiceRow>>
where
    FrontendKey<A>: Plain,
    Backend<A>: Plain,
{
    let backends = backends_by_name::<A>(view)?;
    let mut rows: BTreeMap<u32, ServiceRow> = BTreeMap::new();
    for (key, frontend) in view.frontends::<A>()? {
        let row = match rows.entry(frontend.service) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(row::<A>(view, frontend.service, key.protocol, &backends)?)
            }
        };
        let mut shown = shown(key.address.into(), key.port);
        if frontend.flags & FRONTEND_YIELDS != 0 {
            shown.push_str(" (left to a process)");
        }
        row.frontends.push(shown);
        if frontend.flags & FRONTEND_YIELDS == 0 {
            row.algorithm = algorithm(frontend.flags);
        }
        row.slots = row.slots.max(frontend.slots_len);
        row.affinity_seconds = row.affinity_seconds.max(frontend.affinity);
    }
    for row in rows.values_mut() {
        row.frontends.sort();
    }
    Ok(rows.into_values().collect())
}

fn row<A: InFamily>(
    view: &View,
    id: u32,
    number: u8,
    backends: &BTreeMap<String, Backends>,
) -> anyhow::Result<ServiceRow> {
    let service = view.names.service(id).into_owned();
    let Backends { usable, draining, weights } =
        backends.get(&service).cloned().unwrap_or_default();
    let stats = view.counters.service(id)?;
    Ok(ServiceRow {
        service,
        id,
        family: A::FAMILY.to_string(),
        protocol: protocol(number).into_owned(),
        frontends: Vec::new(),
        usable_backends: usable,
        draining_backends: draining,
        weights,
        algorithm: Algorithm::default(),
        slots: 0,
        affinity_seconds: 0,
        flows_opened: stats.opened,
        packets_without_backend: stats.no_backend,
        flows_without_port: stats.no_port,
        flows_without_room: stats.table_full,
        packets_denied: stats.denied,
    })
}

/// The backends of a service port, counted.
#[derive(Clone, Debug, Default)]
struct Backends {
    usable: u32,
    draining: u32,
    weights: BTreeMap<u32, u32>,
}

/// Backends by the service port's name.
fn backends_by_name<A: InFamily>(view: &View) -> anyhow::Result<BTreeMap<String, Backends>>
where
    Backend<A>: Plain,
{
    let mut counts: BTreeMap<String, Backends> = BTreeMap::new();
    for (index, backend) in view.backends::<A>()? {
        let Some(name) = view.names.backend(A::FAMILY, index, backend.generation) else { continue };
        let count = counts.entry(name.service.clone()).or_default();
        match backend.state {
            BACKEND_USABLE => count.usable += 1,
            BACKEND_DRAINING => count.draining += 1,
            _ => continue,
        }
        *count.weights.entry(backend.weight).or_default() += 1;
    }
    Ok(counts)
}

/// The algorithm that a frontend with these flags has.
const fn algorithm(flags: u32) -> Algorithm {
    match flags {
        _ if flags & FRONTEND_LEAST != 0 => Algorithm::Least,
        _ if flags & FRONTEND_RANDOM != 0 => Algorithm::Random,
        _ => Algorithm::Maglev,
    }
}

/// `1x3 2x1`: one backend that weighs three, two that weigh one. Where all weigh the same, nothing
/// is to be said.
fn weights(weights: &BTreeMap<u32, u32>) -> String {
    match weights.len() {
        0 | 1 if !weights.contains_key(&0) => "-".to_owned(),
        _ => {
            let shown = weights.iter().rev().map(|(weight, count)| format!("{count}x{weight}"));
            shown.collect::<Vec<_>>().join(" ")
        }
    }
}

fn shown(address: IpAddr, port: u16) -> String {
    if address.is_unspecified() {
        format!("node:{port}")
    } else {
        SocketAddr::new(address, port).to_string()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn weights_are_shown_where_they_differ() {
        for (weights, shown) in [
            (&[][..], "-"),
            (&[(1, 7)], "-"),
            (&[(0, 2)], "2x0"),
            (&[(1, 2), (3, 1), (0, 1)], "1x3 2x1 1x0"),
        ] {
            assert_eq!(super::weights(&weights.iter().copied().collect()), shown);
        }
    }

    #[test]
    fn an_algorithm_is_known_by_its_flag() {
        use nodeport_common::abi::{FRONTEND_DROPS, FRONTEND_LEAST, FRONTEND_RANDOM};

        use crate::model::Algorithm;

        for (flags, algorithm) in [
            (FRONTEND_DROPS, Algorithm::Maglev),
            (FRONTEND_DROPS | FRONTEND_RANDOM, Algorithm::Random),
            (FRONTEND_LEAST, Algorithm::Least),
        ] {
            assert_eq!(super::algorithm(flags), algorithm);
        }
    }

    #[test]
    fn any_node_address_is_called_node() {
        assert_eq!(super::shown([0; 4].into(), 30_007), "node:30007");
        assert_eq!(super::shown([10, 0, 0, 1].into(), 80), "10.0.0.1:80");
        assert_eq!(super::shown([0; 16].into(), 80), "node:80");
    }
}
