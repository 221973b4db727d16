//! Carrying out changes, in an order in which every packet meets a consistent state after every
//! single write:
//!
//! 1. frontends that go;
//! 2. counters of ids that another had, bits of ports, then backends that come;
//! 3. slots, in regions that no packet reads;
//! 4. source ranges, then frontends that come or are switched to their new slots, then source ranges of
//!    what is guarded no more: no client is shut out for a moment, and none let in;
//! 5. backends that go, when no packet can be between the old slots and them ([`super::tidy`]).
//!
//! What fails for one group stops the later steps for that group and for no other.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};

use foldhash::{HashMap, HashSet};
use nodeport_common::abi::Frontend;

use super::batch::{Batch, Outcome, Subject};
use super::diff::{Change, NewTable};
use super::maps::RangesOf;
use super::ops::{self, BackendValue};
use super::placed::{Placed, Table};
use super::state::State;
use crate::dataplane::{Dataplane, Op};
use crate::plan::{Desired, FrontendAt, Group, GroupKey, Traffic};

/// What went wrong, by what it was for.
pub(super) type Failed = HashMap<Subject, anyhow::Error>;

/// Groups that are carried out together: their slots are in memory all at once.
const TOGETHER: usize = 128;

/// Makes the maps follow the plan for these groups.
pub(super) fn groups(
    state: &mut State,
    desired: &Desired,
    keys: &BTreeSet<GroupKey>,
    dataplane: &mut dyn Dataplane,
) -> Failed {
    let plans: Vec<(&GroupKey, Option<&Group>)> =
        keys.iter().map(|key| (key, desired.groups.get(key).map(|group| &**group))).collect();
    let mut failed = remove_frontends(state, &plans, dataplane);
    failed.extend(bring(state, &plans, dataplane));
    failed.extend(remove_astray(state, &plans, dataplane));
    failed.extend(remove_ranges(state, &plans, dataplane));
    for (key, group) in plans {
        state.settle(key, group);
    }
    failed
}

/// Frontends that nobody has any more. One that another group is about to take over is left: it
/// is switched, without a moment in between.
fn remove_frontends(
    state: &mut State,
    plans: &[(&GroupKey, Option<&Group>)],
    dataplane: &mut dyn Dataplane,
) -> Failed {
    let coming: HashSet<FrontendAt> = plans
        .iter()
        .flat_map(|(_, group)| group.iter().flat_map(|one| &one.frontends))
        .copied()
        .collect();
    let going = |at: &FrontendAt| !coming.contains(at);
    remove(state, plans, going, dataplane)
}

/// Frontends whose new owner could not take them over: rather no answer than that of a service
/// that no longer has the port.
fn remove_astray(
    state: &mut State,
    plans: &[(&GroupKey, Option<&Group>)],
    dataplane: &mut dyn Dataplane,
) -> Failed {
    remove(state, plans, |_| true, dataplane)
}

fn remove(
    state: &mut State,
    plans: &[(&GroupKey, Option<&Group>)],
    which: impl Fn(&FrontendAt) -> bool,
    dataplane: &mut dyn Dataplane,
) -> Failed {
    let mut batch = Batch::new();
    for (key, group) in plans {
        for at in state.astray(key, *group).into_iter().filter(&which) {
            batch.push(Subject::Group((*key).clone()), ops::remove_frontend(&at), at);
        }
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    done.iter().for_each(|at| state.maps.remove_frontend(at));
    failed
}

/// Source ranges of what is gone, or not guarded any more.
fn remove_ranges(
    state: &mut State,
    plans: &[(&GroupKey, Option<&Group>)],
    dataplane: &mut dyn Dataplane,
) -> Failed {
    let mut batch = Batch::new();
    for (key, group) in plans.iter().filter(|(key, _)| key.traffic == Traffic::External) {
        let Some(placed) = state.groups.get(*key) else { continue };
        let of = (placed.service, key.family);
        let wanted = group.map(|group| &group.ranges[..]).unwrap_or_default();
        for range in state.maps.ranges(of).filter(|range| wanted.binary_search(range).is_err()) {
            let op = Op::RemoveRange(of.0, *range);
            batch.push(Subject::Group((*key).clone()), op, (of, *range));
        }
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    done.iter().for_each(|(of, range)| state.maps.remove_range(*of, range));
    failed
}

/// What must be written for some groups, in the order of their keys.
type Changes<'a> = Vec<(&'a GroupKey, Change)>;

/// Steps 2 to 4, for a few groups after the other: while some are written, other threads fill the
/// tables of the next.
fn bring(
    state: &mut State,
    plans: &[(&GroupKey, Option<&Group>)],
    dataplane: &mut dyn Dataplane,
) -> Failed {
    let mut failed = Failed::default();
    if plans.len() <= AT_ONCE {
        let mut changes = changes(state, plans, &mut failed);
        fill(&mut changes, state.seed);
        write(state, changes, dataplane, &mut failed);
        return failed;
    }
    thread::scope(|scope| {
        let mut fillers = Fillers::start(state.seed, scope);
        for chunk in plans.chunks(TOGETHER) {
            fillers.give(changes(state, chunk, &mut failed));
            if fillers.are_busy()
                && let Some(changes) = fillers.take()
            {
                write(state, changes, dataplane, &mut failed);
            }
        }
        while let Some(changes) = fillers.take() {
            write(state, changes, dataplane, &mut failed);
        }
    });
    failed
}

fn changes<'a>(
    state: &mut State,
    plans: &[(&'a GroupKey, Option<&Group>)],
    failed: &mut Failed,
) -> Changes<'a> {
    let mut changes = Changes::with_capacity(plans.len());
    for (key, group) in plans.iter().filter_map(|(key, group)| Some((*key, (*group)?))) {
        match state.change(key, group) {
            Ok(change) => changes.push((key, change)),
            Err(full) => drop(failed.insert(Subject::Group(key.clone()), full.into())),
        }
    }
    changes
}

/// Groups of which so few are written by one thread alone.
const AT_ONCE: usize = 16;

fn fill(changes: &mut Changes<'_>, seed: u32) {
    changes
        .iter_mut()
        .filter_map(|(_, change)| change.table.as_mut())
        .for_each(|new| new.fill(seed));
}

/// Threads that fill tables, each in the order in which it got them. They end with this.
struct Fillers<'a> {
    threads: Vec<(Sender<Changes<'a>>, Receiver<Changes<'a>>)>,
    given: usize,
    taken: usize,
}

impl<'a> Fillers<'a> {
    /// What each thread may have before it is waited for.
    const AHEAD: usize = 2;

    /// One for each CPU but that of the thread which writes.
    fn start<'scope>(seed: u32, scope: &'scope Scope<'scope, '_>) -> Self
    where
        'a: 'scope,
    {
        let start = |_| {
            let (give, given) = channel::<Changes<'a>>();
            let (done, take) = channel();
            scope.spawn(move || {
                for mut changes in given {
                    fill(&mut changes, seed);
                    // Nobody waits only where all is given up.
                    let _ = done.send(changes);
                }
            });
            (give, take)
        };
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = (1..cpus.max(2)).map(start).collect();
        Self { threads, given: 0, taken: 0 }
    }

    /// They have so much that some of it should be taken first.
    const fn are_busy(&self) -> bool {
        self.given - self.taken > self.threads.len() * Self::AHEAD
    }

    fn give(&mut self, changes: Changes<'a>) {
        let (give, _) = &self.threads[self.given % self.threads.len()];
        // A thread that has ended has panicked: the scope passes that on.
        let _ = give.send(changes);
        self.given += 1;
    }

    /// What was given first and not taken yet, filled.
    fn take(&mut self) -> Option<Changes<'a>> {
        if self.taken == self.given {
            return None;
        }
        let (_, take) = &self.threads[self.taken % self.threads.len()];
        self.taken += 1;
        take.recv().ok()
    }
}

/// Carries changes out.
fn write(
    state: &mut State,
    mut changes: Changes<'_>,
    dataplane: &mut dyn Dataplane,
    failed: &mut Failed,
) {
    for step in [counters, ports, backends, tables, ranges, frontends] {
        let worse = step(state, &mut changes, dataplane);
        give_up(state, &mut changes, &worse);
        failed.extend(worse);
    }
}

/// Drops the changes of groups that failed. Regions that they took are free again, and bits of
/// ports that were set for them may be needless.
fn give_up(state: &mut State, changes: &mut Changes<'_>, failed: &Failed) {
    changes.retain_mut(|(key, change)| {
        let goes_on = !has_failed(failed, key);
        if !goes_on {
            state.maps.ports.doubt(change.ports.iter().map(|(port, _)| *port));
        }
        if let Some(new) = change.table.take_if(|_| !goes_on) {
            state.regions.free(new.table.region);
        }
        goes_on
    });
}

fn has_failed(failed: &Failed, key: &GroupKey) -> bool {
    !failed.is_empty() && failed.contains_key(&Subject::Group(key.clone()))
}

fn counters(state: &mut State, changes: &mut Changes<'_>, dataplane: &mut dyn Dataplane) -> Failed {
    // Both families of a service port have one id: it is cleared once, and both wait for it.
    let mut wanted: BTreeMap<u32, &GroupKey> = BTreeMap::new();
    for (key, change) in &*changes {
        // The other family's may have been there first.
        let uncleared = change.cleared.filter(|id| state.services.is_uncleared(*id));
        uncleared.map(|id| *wanted.entry(id).or_insert(*key));
    }
    let mut batch = Batch::new();
    for (id, key) in wanted {
        batch.push(Subject::Group(key.clone()), Op::ClearService(id), id);
    }
    let Outcome { done, mut failed } = batch.apply(dataplane);
    done.into_iter().for_each(|id| state.services.set_cleared(id));
    for (key, change) in &*changes {
        if let Some(id) = change.cleared.filter(|id| state.services.is_uncleared(*id)) {
            let error = || anyhow::anyhow!("the counters of service {id} could not be cleared");
            failed.entry(Subject::Group((*key).clone())).or_insert_with(error);
        }
    }
    failed
}

fn ports(state: &mut State, changes: &mut Changes<'_>, dataplane: &mut dyn Dataplane) -> Failed {
    let mut wanted: BTreeMap<u16, (u8, &GroupKey)> = BTreeMap::new();
    for (key, change) in &*changes {
        for (port, bit) in &change.ports {
            let known = state.maps.ports.bits(*port);
            if known & bit == 0 {
                wanted.entry(*port).or_insert((known, *key)).0 |= bit;
            }
        }
    }
    let mut batch = Batch::new();
    for (port, (bits, key)) in wanted {
        batch.push(Subject::Group(key.clone()), Op::SetPort(port, bits), (port, bits));
    }
    let Outcome { done, mut failed } = batch.apply(dataplane);
    done.into_iter().for_each(|(port, bits)| state.maps.ports.set(port, bits));
    // The port of one group may be the port of others: all of them must wait for it.
    for (key, change) in &*changes {
        let missing =
            change.ports.iter().find(|(port, bit)| state.maps.ports.bits(*port) & bit == 0);
        if let Some((port, _)) = missing {
            let error = || anyhow::anyhow!("port {port} could not be marked as served");
            failed.entry(Subject::Group((*key).clone())).or_insert_with(error);
        }
    }
    failed
}

fn backends(state: &mut State, changes: &mut Changes<'_>, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch: Batch<((_, u32), BackendValue)> = Batch::new();
    for (key, change) in changes {
        for (index, value) in &change.backends {
            let note = ((key.family, *index), *value);
            batch.push(Subject::Group((*key).clone()), ops::put_backend(*index, value), note);
        }
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    done.into_iter().for_each(|(id, value)| state.maps.put_backend(id, value));
    failed
}

fn tables(state: &mut State, changes: &mut Changes<'_>, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch: Batch<()> = Batch::new();
    let mut new: Vec<(&GroupKey, Table)> = Vec::new();
    for (key, change) in changes.iter_mut() {
        let Some(NewTable { table, slots, .. }) = change.table.take() else { continue };
        let op = Op::WriteSlots { offset: table.region.offset, slots };
        batch.push(Subject::Group((*key).clone()), op, ());
        new.push((key, table));
    }
    let failed = batch.apply(dataplane).failed;
    for (key, table) in new {
        let written = !has_failed(&failed, key);
        match state.groups.get_mut(key).filter(|_| written) {
            Some(placed) => placed.tables.push(table),
            None => state.regions.free(table.region),
        }
    }
    failed
}

fn ranges(state: &mut State, changes: &mut Changes<'_>, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch = Batch::new();
    for (key, change) in &*changes {
        for (of, range, comes) in &change.ranges {
            let op = match comes {
                true => Op::AddRange(of.0, *range),
                false => Op::RemoveRange(of.0, *range),
            };
            batch.push(Subject::Group((*key).clone()), op, (*of, *range, *comes));
        }
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    for (of, range, comes) in done {
        match comes {
            true => state.maps.add_range(of, range),
            false => state.maps.remove_range(of, &range),
        }
    }
    failed
}

fn frontends(
    state: &mut State,
    changes: &mut Changes<'_>,
    dataplane: &mut dyn Dataplane,
) -> Failed {
    let mut batch: Batch<(GroupKey, FrontendAt, Frontend)> = Batch::new();
    for (key, change) in changes {
        for (at, value) in &change.frontends {
            let note = ((*key).clone(), *at, *value);
            batch.push(Subject::Group((*key).clone()), ops::put_frontend(at, *value), note);
        }
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    for (key, at, value) in done {
        state.maps.put_frontend(at, value);
        if let Some(placed) = state.groups.get_mut(&key) {
            placed.frontends.insert(at);
        }
    }
    failed
}

/// Lets packets choose by the seed by which tables are made.
pub(super) fn seed(state: &mut State, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch = Batch::new();
    batch.push(Subject::Seed, Op::SetSeed(state.seed), state.seed);
    let Outcome { done, failed } = batch.apply(dataplane);
    done.into_iter().for_each(|seed| state.maps.seed = seed);
    failed
}

/// Makes the maps know of addresses what there is to know.
pub(super) fn addresses(state: &mut State, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch = Batch::new();
    for (address, bits) in state.maps.addresses.wrong() {
        batch.push(Subject::NodeAddresses, ops::put_address(address, bits), (address, bits));
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    done.into_iter().for_each(|(address, bits)| state.maps.addresses.put(address, bits));
    failed
}

/// Removes the source ranges that were found at the start and that nobody wants.
pub(super) fn unclaimed_ranges(state: &mut State, dataplane: &mut dyn Dataplane) -> Failed {
    let of = |(key, placed): (&GroupKey, &Placed)| (placed.service, key.family);
    let owned: HashSet<RangesOf> = state.groups.iter().map(of).collect();
    let mut batch = Batch::new();
    for of in state.maps.guarded().filter(|of| !owned.contains(of)) {
        for range in state.maps.ranges(of) {
            batch.push(Subject::Adoption, Op::RemoveRange(of.0, *range), (of, *range));
        }
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    done.iter().for_each(|(of, range)| state.maps.remove_range(*of, range));
    failed
}

/// Removes the frontends that were found at the start and that nobody wants.
pub(super) fn unclaimed(state: &mut State, dataplane: &mut dyn Dataplane) -> Failed {
    let mut batch = Batch::new();
    for at in state.unclaimed_frontends() {
        batch.push(Subject::Adoption, ops::remove_frontend(&at), at);
    }
    let Outcome { done, failed } = batch.apply(dataplane);
    for at in done {
        state.maps.remove_frontend(&at);
        state.adoption.iter_mut().for_each(|adoption| adoption.forget(&at));
    }
    failed
}
