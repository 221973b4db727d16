//! Hints that cannot be meant: said, since what comes of them, as if there were none, looks like a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::service::{Found, View};
use crate::model::{Finding, Kind, Severity};

/// What is odd about the hints of all endpoints of a port: each is meant for other zones than it
/// stands in, and none for this node's. A zone in which there are no endpoints is usual, and no
/// oddity: there the others are meant for the zones that they are in.
pub(super) fn finding(found: &BTreeMap<SocketAddr, Found<'_>>, view: &View<'_>) -> Option<Finding> {
    let ready = || found.values().filter(|(_, endpoint)| endpoint.ready);
    let here = view.node.and_then(|node| node.zone.as_deref());
    let is_odd = |(_, one): &Found<'_>| {
        let is_for_here = one.zones.iter().any(|zone| Some(&**zone) == here);
        !one.zones.is_empty() && one.nodes.is_empty() && !one.is_home && !is_for_here
    };
    if !ready().all(is_odd) {
        return None;
    }
    let (slice, endpoint) = ready().next()?;
    let zones: BTreeSet<&str> =
        ready().flat_map(|(_, endpoint)| &endpoint.zones).map(|zone| &**zone).take(MOST).collect();
    let zones = zones.into_iter().collect::<Vec<_>>().join(", ");
    let own = here.map_or("which has none".to_owned(), |zone| format!("which is {zone}"));
    Some(Finding {
        severity: Severity::Warning,
        origin: slice.origin.clone(),
        kind: Kind::EndpointSlice,
        object: slice.name.clone(),
        field: format!("endpoints[{}].hints.forZones", endpoint.position),
        problem: format!(
            "all endpoints are meant for zones ({zones}) that none of them is in, and none for this \
             node's, {own}: hints are not heeded, and all endpoints are used; correct the hints or \
             the zone of the node, or remove the hints"
        ),
    })
}

/// Hints that are looked at for the names that are said.
const MOST: usize = 8;
