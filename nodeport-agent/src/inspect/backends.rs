//! `nodeport-agent backends`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nodeport_common::abi::{
    Addr4, Addr6, BACKEND_DRAINING, BACKEND_GONE, BACKEND_LOCAL, BACKEND_USABLE, Backend,
    FLOW_REPLY, Flow, FlowEntry, Plain,
};
use nodeport_common::core::table::half::kept;
use serde::Serialize;

use super::output::{Cells, Row, bytes};
use super::view::{InFamily, View};

/// A backend, as the maps have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct BackendRow {
    service: String,
    family: String,
    index: u32,
    generation: u32,
    address: SocketAddr,
    state: &'static str,
    node: Option<String>,
    local: bool,
    /// How much it takes beside the others; 0 for no new flows.
    weight: u32,
    #[serde(flatten)]
    load: Load,
}

/// What the live flows of a backend have carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Load {
    flows: u64,
    packets_to_backend: u64,
    bytes_to_backend: u64,
    packets_to_client: u64,
    bytes_to_client: u64,
}

impl Row for BackendRow {
    const TITLES: &'static [&'static str] = &[
        "SERVICE",
        "BACKEND",
        "STATE",
        "NODE",
        "LOCAL",
        "WEIGHT",
        "FLOWS",
        "TO-BACKEND",
        "TO-CLIENT",
    ];

    fn add_to(&self, cells: &mut Cells) {
        cells.texts([
            self.service.clone(),
            self.address.to_string(),
            self.state.to_owned(),
            self.node.clone().unwrap_or_else(|| "-".to_owned()),
            if self.local { "yes" } else { "no" }.to_owned(),
            self.weight.to_string(),
            self.load.flows.to_string(),
            bytes(self.load.bytes_to_backend),
            bytes(self.load.bytes_to_client),
        ]);
    }
}

/// All that are there, sorted by service and address.
pub(super) fn rows(view: &View) -> anyhow::Result<Vec<BackendRow>> {
    let mut rows = in_family::<Addr4>(view)?;
    rows.extend(in_family::<Addr6>(view)?);
    rows.sort_by(|a, b| (&a.service, a.address).cmp(&(&b.service, b.address)));
    Ok(rows)
}

fn in_family<A: InFamily>(view: &View) -> anyhow::Result<Vec<BackendRow>>
where
    Backend<A>: Plain,
    FlowEntry<A, A::Pad>: Plain,
{
    let mut loads: BTreeMap<(u32, u32), Load> = BTreeMap::new();
    for (_, flow) in view.flows::<A>()?.iter().flatten() {
        loads.entry((flow.backend, flow.generation)).or_default().add(flow);
    }
    let rows = view.backends::<A>()?.into_iter().filter(|(_, it)| it.state != BACKEND_GONE);
    Ok(rows.map(|(index, backend)| row(view, index, &backend, &loads)).collect())
}

fn row<A: InFamily>(
    view: &View,
    index: u32,
    backend: &Backend<A>,
    loads: &BTreeMap<(u32, u32), Load>,
) -> BackendRow {
    let Backend { address, port, flags, state, generation, weight } = *backend;
    let name = view.names.backend(A::FAMILY, index, generation);
    BackendRow {
        service: name.map_or_else(|| "?".to_owned(), |name| name.service.clone()),
        family: A::FAMILY.to_string(),
        index,
        generation,
        address: SocketAddr::new(address.into(), port),
        state: match state {
            BACKEND_USABLE => "usable",
            BACKEND_DRAINING => "draining",
            _ => "unknown",
        },
        node: name.and_then(|name| name.node.clone()),
        local: flags & BACKEND_LOCAL != 0,
        weight,
        load: loads.get(&(index, kept(generation))).copied().unwrap_or_default(),
    }
}

impl Load {
    fn add<A>(&mut self, half: &Flow<A>) {
        if half.flags & FLOW_REPLY == 0 {
            self.flows += 1;
            self.packets_to_backend += half.packets;
            self.bytes_to_backend += half.bytes;
        } else {
            self.packets_to_client += half.packets;
            self.bytes_to_client += half.bytes;
        }
    }
}
