//! `nodeport-agent services`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use nodeport_common::abi::{
    Addr4, Addr6, BACKEND_DRAINING, BACKEND_USABLE, Backend, FRONTEND_YIELDS, FrontendKey, Plain,
};
use serde::Serialize;

use super::output::{Cells, Row};
use super::view::{InFamily, View, protocol};

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
    let backends = count_backends::<A>(view)?;
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
    backends: &BTreeMap<String, [u32; 2]>,
) -> anyhow::Result<ServiceRow> {
    let service = view.names.service(id).into_owned();
    let [usable_backends, draining_backends] = backends.get(&service).copied().unwrap_or_default();
    let stats = view.counters.service(id)?;
    Ok(ServiceRow {
        service,
        id,
        family: A::FAMILY.to_string(),
        protocol: protocol(number).into_owned(),
        frontends: Vec::new(),
        usable_backends,
        draining_backends,
        slots: 0,
        affinity_seconds: 0,
        flows_opened: stats.opened,
        packets_without_backend: stats.no_backend,
        flows_without_port: stats.no_port,
        flows_without_room: stats.table_full,
        packets_denied: stats.denied,
    })
}

/// Usable and draining backends, by the service port's name.
fn count_backends<A: InFamily>(view: &View) -> anyhow::Result<BTreeMap<String, [u32; 2]>>
where
    Backend<A>: Plain,
{
    let mut counts: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    for (index, backend) in view.backends::<A>()? {
        let Some(name) = view.names.backend(A::FAMILY, index, backend.generation) else { continue };
        let count = counts.entry(name.service.clone()).or_default();
        match backend.state {
            BACKEND_USABLE => count[0] += 1,
            BACKEND_DRAINING => count[1] += 1,
            _ => {}
        }
    }
    Ok(counts)
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
    fn any_node_address_is_called_node() {
        assert_eq!(super::shown([0; 4].into(), 30_007), "node:30007");
        assert_eq!(super::shown([10, 0, 0, 1].into(), 80), "10.0.0.1:80");
        assert_eq!(super::shown([0; 16].into(), 80), "node:80");
    }
}
