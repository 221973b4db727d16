//! What was replaced, once no packet can be using it any more.
//!
//! A packet that opens a flow reads a frontend, then a slot, then a backend. After a switch some
//! CPU may still be between two of these, so a table that was replaced and the backends that were
//! in it stay as they are until a barrier has waited for all CPUs. That takes tens of milliseconds,
//! so it is done for many changes at once, after them, and changes go on meanwhile: what they
//! replace waits for the next barrier.

use std::time::Instant;

use super::batch::{Batch, Outcome, Subject};
use super::carry::Failed;
use super::maps::BackendId;
use super::ops;
use super::state::{Departure, State};
use crate::dataplane::{Dataplane, Op};
use nodeport_common::abi::BACKEND_GONE;

/// Waits for all CPUs, then frees what was replaced before. Ports that nothing holds up any more keep
/// their bits until `linger`.
pub(super) fn tidy(state: &mut State, dataplane: &mut dyn Dataplane, linger: Instant) -> Failed {
    if !state.has_leavings() {
        return Failed::default();
    }
    let mut barrier = Batch::new();
    barrier.push(Subject::Leavings, Op::Barrier, ());
    let number = state.barriers.take();
    let failed = barrier.apply(dataplane).failed;
    if !failed.is_empty() {
        return failed;
    }
    state.barriers.set_ended(number);
    free(state, dataplane, linger)
}

/// Frees what waits for no barrier any more.
pub(super) fn free(state: &mut State, dataplane: &mut dyn Dataplane, linger: Instant) -> Failed {
    let State { retired, regions, barriers, .. } = state;
    retired.retain(|(number, region)| {
        let waits = !barriers.has_ended(*number);
        if !waits {
            regions.free(*region);
        }
        waits
    });
    let failed = departures(state, dataplane);
    state.maps.ports.linger(linger);
    failed
}

/// Backends that are in no table now.
fn departures(state: &mut State, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch = Batch::new();
    let ready = |(_, departure): &(_, &Departure)| state.barriers.has_ended(departure.after);
    for (id, departure) in state.departures.iter().filter(ready) {
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
    let Departure { group, value, after: _ } = departure;
    state.maps.put_backend(id, value);
    state.touched.extend(group.iter().map(|(key, _)| key.clone()));
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

/// Takes bits away that nothing holds up, and whose time is over.
pub(super) fn ports(state: &mut State, dataplane: &mut dyn Dataplane, now: Instant) -> Failed {
    let mut batch = Batch::new();
    for (port, held) in state.maps.ports.over(now) {
        batch.push(Subject::Leavings, Op::SetPort(port, held), (port, held));
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    for (port, held) in done {
        state.maps.ports.set(port, held);
        state.maps.ports.forget(port);
    }
    failed
}
