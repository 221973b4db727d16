//! The world as the source last said it is. Sources write it, the loop takes what changed; a
//! signal without content wakes the loop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashSet};
use jiff::Timestamp;
use tokio::sync::Notify;

use super::tally::{Tally, Watches};

use crate::model::{Entry, Finding, Name, Node, Service, Slice, Trigger};
use crate::plan::Update;

/// For so long the first plan waits for the answer about this machine's Node.
const NODE_WAIT: Duration = Duration::from_secs(5);

/// Changes of endpoints whose times are kept until the next look.
const MOST_TRIGGERS: usize = 4_096;

/// All objects that matter, by name.
#[derive(Debug, Default)]
pub struct Store {
    inner: Mutex<Inner>,
    wake: Notify,
    watches: Watches,
}

/// What changed since the last time, with its present state.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What changed.
    pub update: Update,
    /// All objects there are have been read. Otherwise what is missing may only not be known.
    pub complete: bool,
    /// When the oldest of the changes came, if there are any.
    pub since: Option<Instant>,
    /// When endpoints of Services changed, as changed slices say it; not of what was listed first.
    pub triggers: Vec<(Name, Timestamp)>,
    /// What is wrong with the source itself.
    pub problems: Vec<Finding>,
}

#[derive(Debug, Default)]
struct Inner {
    services: HashMap<Name, Arc<Service>>,
    /// Slices by the service that they belong to; those of none, by a service without a name.
    slices: HashMap<Name, BTreeMap<Name, Arc<Slice>>>,
    homes: HashMap<Name, Name>,
    node: Option<Arc<Node>>,
    changed: HashSet<Name>,
    /// When the oldest of these changes came.
    changed_at: Option<Instant>,
    triggers: Vec<(Name, Timestamp)>,
    tally: Tally,
    problems: BTreeMap<&'static str, Vec<Finding>>,
    services_listed: bool,
    slices_listed: bool,
    /// Whether it is known if there is a Node of this machine.
    node_listed: bool,
    /// When the Node is waited for no longer.
    limit: Option<Instant>,
    incomplete: bool,
    /// The first changes have been taken.
    taken: bool,
}

impl Store {
    /// Waits until something changed.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Wakes whoever waits, although nothing changed here.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// What changed since the last call; none before Services and EndpointSlices have both been
    /// listed to the end, and the Node too, unless that takes long.
    #[must_use]
    pub fn take(&self, now: Instant) -> Option<Snapshot> {
        let mut inner = self.lock();
        if !inner.is_listed(now) {
            return None;
        }
        inner.taken = true;
        inner.tally.taken();
        let changed = std::mem::take(&mut inner.changed);
        let entries = changed.into_iter().map(|name| (name.clone(), inner.entry(&name))).collect();
        Some(Snapshot {
            update: Update { node: inner.node.clone(), entries },
            complete: !inner.incomplete,
            since: inner.changed_at.take(),
            triggers: std::mem::take(&mut inner.triggers),
            problems: inner.all_problems(),
        })
    }

    /// When there is something to take even if nothing changes.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.limit.filter(|_| !inner.node_listed)
    }

    /// Since when changes wait to be taken. Before all is listed none does: there is nothing to hold
    /// them against.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.changed_at.filter(|_| inner.taken)
    }

    /// How many changes there were, and how many wait to be taken.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// How the watches of an API server do.
    #[must_use]
    pub const fn watches(&self) -> &Watches {
        &self.watches
    }

    /// What is wrong with the source itself.
    #[must_use]
    pub fn problems(&self) -> Vec<Finding> {
        self.lock().all_problems()
    }

    /// A Service came or changed.
    pub fn set_service(&self, service: Arc<Service>) {
        self.write(|inner| inner.set_service(service));
    }

    /// A Service went.
    pub fn remove_service(&self, name: &Name) {
        self.write(|inner| inner.remove_service(name));
    }

    /// These are all the Services.
    pub fn list_services(&self, services: Vec<Arc<Service>>) {
        self.write(|inner| {
            let listed: HashSet<_> = services.iter().map(|service| service.name.clone()).collect();
            let gone: Vec<_> =
                inner.services.keys().filter(|name| !listed.contains(*name)).cloned().collect();
            gone.iter().for_each(|name| inner.remove_service(name));
            services.into_iter().for_each(|service| inner.set_service(service));
            inner.services_listed = true;
        });
    }

    /// An EndpointSlice came or changed.
    pub fn set_slice(&self, slice: Arc<Slice>) {
        self.write(|inner| inner.set_slice(slice));
    }

    /// An EndpointSlice went.
    pub fn remove_slice(&self, name: &Name) {
        self.write(|inner| inner.remove_slice(name));
    }

    /// These are all the EndpointSlices.
    pub fn list_slices(&self, slices: Vec<Arc<Slice>>) {
        self.write(|inner| {
            let listed: HashSet<_> = slices.iter().map(|slice| slice.name.clone()).collect();
            let gone: Vec<_> =
                inner.homes.keys().filter(|name| !listed.contains(*name)).cloned().collect();
            gone.iter().for_each(|name| inner.remove_slice(name));
            slices.into_iter().for_each(|slice| inner.set_slice(slice));
            inner.slices_listed = true;
        });
    }

    /// This machine's node is known. It stays known: a Node object that went says nothing about
    /// the machine, which serves on.
    pub fn set_node(&self, node: Arc<Node>) {
        self.write(|inner| inner.node = Some(node));
    }

    /// Whether there is a Node of this machine has been said.
    pub fn list_node(&self) {
        self.write(|inner| inner.node_listed = true);
    }

    /// Several changes that must be seen together, or not at all.
    pub fn together(&self, change: impl FnOnce(&mut Together<'_>)) {
        self.write(|inner| change(&mut Together { inner }));
    }

    /// What is wrong with a part of the source itself; nothing, if empty.
    pub fn set_problems(&self, part: &'static str, problems: Vec<Finding>) {
        self.write(|inner| inner.set_problems(part, problems));
    }

    fn write(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        if !inner.changed.is_empty() {
            inner.changed_at.get_or_insert_with(Instant::now);
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// A writer that panicked has left whole values behind: each is replaced in one step.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes that are seen together.
pub struct Together<'a> {
    inner: &'a mut Inner,
}

impl Together<'_> {
    /// See [`Store::set_service`].
    pub fn set_service(&mut self, service: Arc<Service>) {
        self.inner.set_service(service);
    }

    /// See [`Store::remove_service`].
    pub fn remove_service(&mut self, name: &Name) {
        self.inner.remove_service(name);
    }

    /// See [`Store::set_slice`].
    pub fn set_slice(&mut self, slice: Arc<Slice>) {
        self.inner.set_slice(slice);
    }

    /// See [`Store::remove_slice`].
    pub fn remove_slice(&mut self, name: &Name) {
        self.inner.remove_slice(name);
    }

    /// See [`Store::set_node`].
    pub fn set_node(&mut self, node: Arc<Node>) {
        self.inner.node = Some(node);
    }

    /// See [`Store::set_problems`].
    pub fn set_problems(&mut self, part: &'static str, problems: Vec<Finding>) {
        self.inner.set_problems(part, problems);
    }

    /// Everything has been read once; `complete` says whether all of it could be understood.
    pub fn listed(&mut self, complete: bool) {
        self.inner.services_listed = true;
        self.inner.slices_listed = true;
        self.inner.node_listed = true;
        self.inner.incomplete = !complete;
    }
}

impl Inner {
    fn is_listed(&mut self, now: Instant) -> bool {
        if !(self.services_listed && self.slices_listed) {
            return false;
        }
        let limit = *self.limit.get_or_insert(now + NODE_WAIT);
        // What was waited for once is waited for no more.
        self.node_listed |= now >= limit;
        self.node_listed
    }

    fn all_problems(&self) -> Vec<Finding> {
        self.problems.values().flatten().cloned().collect()
    }

    fn entry(&self, name: &Name) -> Entry {
        let slices = self.slices.get(name).into_iter().flat_map(BTreeMap::values);
        Entry { service: self.services.get(name).cloned(), slices: slices.cloned().collect() }
    }

    fn set_service(&mut self, service: Arc<Service>) {
        let name = service.name.clone();
        let old = self.services.insert(name.clone(), service.clone());
        if old.is_none_or(|old| old != service) {
            self.tally.service_changed();
            self.changed.insert(name);
        }
    }

    fn remove_service(&mut self, name: &Name) {
        if self.services.remove(name).is_some() {
            self.tally.service_changed();
            self.changed.insert(name.clone());
        }
    }

    fn set_slice(&mut self, slice: Arc<Slice>) {
        let home = home(&slice);
        // A slice may be given to another service.
        if self.homes.get(&slice.name).is_some_and(|old| *old != home) {
            self.remove_slice(&slice.name);
        }
        self.homes.insert(slice.name.clone(), home.clone());
        let slices = self.slices.entry(home.clone()).or_default();
        let old = slices.insert(slice.name.clone(), slice.clone());
        if old.is_none_or(|old| old != slice) {
            self.note_slice(&home, slice.trigger);
            self.changed.insert(home);
        }
    }

    fn remove_slice(&mut self, name: &Name) {
        let Some(home) = self.homes.remove(name) else { return };
        if let Some(slices) = self.slices.get_mut(&home) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&home);
            }
        }
        self.note_slice(&home, Trigger(None));
        self.changed.insert(home);
    }

    fn note_slice(&mut self, home: &Name, trigger: Trigger) {
        self.tally.slice_changed();
        // Nothing is held against the first listing: what it tells of may have happened long ago.
        if let Some(at) = trigger.0.filter(|_| self.taken && self.triggers.len() < MOST_TRIGGERS) {
            self.triggers.push((home.clone(), at));
        }
    }

    fn set_problems(&mut self, part: &'static str, problems: Vec<Finding>) {
        if problems.is_empty() {
            self.problems.remove(part);
        } else {
            self.problems.insert(part, problems);
        }
    }
}

fn home(slice: &Slice) -> Name {
    let nobody = || Name { namespace: slice.name.namespace.clone(), name: "".into() };
    slice.service.clone().unwrap_or_else(nobody)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::testing::{name, ready, service, slice};

    fn web() -> Arc<Service> {
        service("web", json!([{"port": 80, "nodePort": 30007}]))
    }

    fn part(number: u32) -> Arc<Slice> {
        slice("web", number, json!([{"port": 80}]), json!([ready("10.0.0.1", "n1")]))
    }

    fn changed(store: &Store) -> Vec<(Name, bool, usize)> {
        let entries = store.take(Instant::now()).unwrap().update.entries.into_iter();
        entries.map(|(name, entry)| (name, entry.service.is_some(), entry.slices.len())).collect()
    }

    #[test]
    fn nothing_is_told_before_both_are_listed() {
        let store = Store::default();
        store.list_node();
        store.list_services(vec![web()]);
        store.set_slice(part(1));
        assert!(store.take(Instant::now()).is_none());
        store.list_slices(vec![part(1), part(2)]);
        assert_eq!(changed(&store), [(name("web"), true, 2)]);
        assert_eq!(changed(&store), []);
    }

    #[test]
    fn the_node_is_waited_for_but_not_for_ever() {
        let (store, start) = (Store::default(), Instant::now());
        assert_eq!(store.wake_at(), None);
        store.list_services(vec![web()]);
        store.list_slices(vec![part(1)]);
        assert!(store.take(start).is_none());
        assert_eq!(store.wake_at(), Some(start + NODE_WAIT));
        assert!(store.take(start + NODE_WAIT / 2).is_none());
        assert!(store.take(start + NODE_WAIT).is_some());
        assert_eq!(store.wake_at(), None);
        assert!(store.take(start).is_some());

        let store = listed();
        assert!(store.take(start).is_some());
        assert_eq!(store.wake_at(), None);
    }

    /// Everything is listed.
    fn listed() -> Store {
        let store = Store::default();
        store.list_node();
        store.list_services(vec![web()]);
        store.list_slices(vec![part(1)]);
        store
    }

    #[test]
    fn what_is_said_again_is_no_change() {
        let store = listed();
        changed(&store);
        store.list_services(vec![web()]);
        store.set_slice(part(1));
        assert_eq!(changed(&store), []);
    }

    #[test]
    fn what_a_new_list_lacks_is_gone() {
        let store = listed();
        store.list_slices(vec![part(1), part(2)]);
        changed(&store);
        store.list_slices(vec![part(2)]);
        assert_eq!(changed(&store), [(name("web"), true, 1)]);
        store.list_services(vec![]);
        store.list_slices(vec![]);
        assert_eq!(changed(&store), [(name("web"), false, 0)]);
    }

    #[test]
    fn changes_are_counted_and_those_after_the_first_listing_have_a_time() {
        let at = |second| Trigger(Some(Timestamp::from_second(second).unwrap()));
        let triggered = |trigger, address| {
            let slice = slice("web", 1, json!([{"port": 80}]), json!([ready(address, "n1")]));
            Arc::new(Slice { trigger, ..(*slice).clone() })
        };
        let counts = |store: &Store| {
            let Tally { services, pending_services, slices, pending_slices, .. } = store.tally();
            (services, pending_services, slices, pending_slices)
        };
        let store = Store::default();
        assert_eq!(store.tally().last, None);
        store.list_node();
        store.list_services(vec![web()]);
        store.list_slices(vec![triggered(at(5), "10.0.0.1")]);
        assert_eq!(counts(&store), (1, 1, 1, 1));
        assert_eq!(store.take(Instant::now()).unwrap().triggers, []);
        assert_eq!(counts(&store), (1, 0, 1, 0));
        store.set_slice(triggered(at(7), "10.0.0.1"));
        assert_eq!(counts(&store), (1, 0, 1, 0), "nothing changed but the time");
        store.set_slice(triggered(at(8), "10.0.0.2"));
        store.set_slice(triggered(Trigger(None), "10.0.0.3"));
        store.remove_slice(&part(1).name);
        assert_eq!(counts(&store), (1, 0, 4, 3));
        let triggers = store.take(Instant::now()).unwrap().triggers;
        assert_eq!(triggers, [(name("web"), at(8).0.unwrap())]);
        assert!(store.tally().last.is_some());
    }

    #[test]
    fn a_slice_can_be_given_to_another_service() {
        let store = listed();
        changed(&store);
        let mut other = (*part(1)).clone();
        other.service = Some(name("other"));
        store.set_slice(Arc::new(other));
        let mut told = changed(&store);
        told.sort();
        assert_eq!(told, [(name("other"), false, 1), (name("web"), true, 0)]);
    }
}
