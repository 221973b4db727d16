//! What was replaced, once no packet can be using it any more.
//!
//! A packet that opens a flow reads a frontend, then a slot, then a backend. After a switch some
//! CPU may still be between two of these, so a table that was replaced and the backends that were
//! in it stay as they are until a barrier has waited for all CPUs. That takes milliseconds, so it
//! is done for many changes at once, after them.

use super::batch::{Batch, Outcome, Subject};
use super::carry::Failed;
use super::maps::BackendId;
use super::ops;
use super::state::{Departure, State};
use crate::dataplane::{Dataplane, Op};
use nodeport_common::abi::BACKEND_GONE;

/// Waits for all CPUs, then frees what was replaced before.
pub(super) fn tidy(state: &mut State, dataplane: &mut dyn Dataplane) -> Failed {
    if !state.has_leavings() {
        return Failed::new();
    }
    let mut barrier = Batch::new();
    barrier.push(Subject::Leavings, Op::Barrier, ());
    let failed = barrier.apply(dataplane).failed;
    if !failed.is_empty() {
        return failed;
    }
    for region in std::mem::take(&mut state.retired) {
        state.regions.free(region);
    }
    let mut failed = departures(state, dataplane);
    failed.extend(ports(state, dataplane));
    failed
}

/// Backends that are in no table now.
fn departures(state: &mut State, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch = Batch::new();
    for (id, departure) in &state.departures {
        batch.push(Subject::Leavings, ops::put_backend(id.1, &departure.value), *id);
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    for id in done {
        if let Some(departure) = state.departures.remove(&id) {
            depart(state, id, departure);
        }
    }
    failed
}

fn depart(state: &mut State, id: BackendId, departure: Departure) {
    let Departure { group, value } = departure;
    state.maps.put_backend(id, value);
    if value.state != BACKEND_GONE {
        return;
    }
    state.indices(id.0).free(id.1);
    if let Some((key, at)) = group {
        if let Some(placed) = state.groups.get_mut(&key) {
            placed.members.remove(&at);
        }
        state.forget_if_empty(&key);
    }
}

/// Bits that nothing holds up any more.
fn ports(state: &mut State, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch = Batch::new();
    for port in &state.maps.ports.doubtful {
        let held = state.maps.ports.held(*port);
        if state.maps.ports.bits(*port) != held {
            batch.push(Subject::Leavings, Op::SetPort(*port, held), (*port, held));
        }
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    for (port, held) in done {
        state.maps.ports.set(port, held);
    }
    if failed.is_empty() {
        state.maps.ports.doubtful.clear();
    }
    failed
}
