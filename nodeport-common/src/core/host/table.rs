//! A table of flows over an ordered map.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use crate::abi::{Flow, FlowKey, FlowState};
use crate::core::env::{FlowRef, Insert, Inserted};
use crate::core::flow;

/// What another CPU makes of a half; `None` if it removes it.
pub type Change<A> = fn(Flow<A>) -> Option<Flow<A>>;

/// What a table holds.
#[derive(Debug)]
struct Content<A> {
    flows: BTreeMap<FlowKey<A>, (u64, Flow<A>)>,
    /// Keys by their last use.
    uses: BTreeMap<u64, FlowKey<A>>,
    clock: u64,
    /// Keys that another CPU is about to take.
    contested: BTreeSet<FlowKey<A>>,
    /// What another CPU does to a half after so many reads of it.
    meanwhile: BTreeMap<FlowKey<A>, (u32, Change<A>)>,
}

impl<A> Default for Content<A> {
    fn default() -> Self {
        Self {
            flows: BTreeMap::new(),
            uses: BTreeMap::new(),
            clock: 0,
            contested: BTreeSet::new(),
            meanwhile: BTreeMap::new(),
        }
    }
}

/// A table of flows.
#[derive(Debug)]
pub struct FlowTable<A> {
    content: RefCell<Content<A>>,
    capacity: usize,
    pushes_out: bool,
}

impl<A: Copy + Ord> FlowTable<A> {
    /// A table that is full at `capacity`.
    pub fn bounded(capacity: usize) -> Self {
        Self { content: RefCell::default(), capacity, pushes_out: false }
    }

    /// A table that pushes out what was not used for longest.
    pub fn forgetful(capacity: usize) -> Self {
        Self { content: RefCell::default(), capacity, pushes_out: true }
    }

    /// Sets the capacity; what is in the table stays.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// All halves, in the order of their keys.
    pub fn all(&self) -> Vec<(FlowKey<A>, Flow<A>)> {
        self.content.borrow().flows.iter().map(|(key, (_, flow))| (*key, *flow)).collect()
    }

    /// A copy of one half. Does not count as a use.
    pub fn get(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        self.content.borrow().flows.get(key).map(|(_, flow)| *flow)
    }

    /// Number of halves.
    pub fn len(&self) -> usize {
        self.content.borrow().flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The half where it lies.
    pub fn entry(&self, key: &FlowKey<A>) -> Option<Entry<'_, A>> {
        let mut content = self.content.borrow_mut();
        let flow = content.flows.get(key)?.1;
        content.put(key, flow);
        Some(Entry { table: self, key: *key, flow })
    }

    /// Inserts a half.
    pub fn insert(&self, key: &FlowKey<A>, flow: &Flow<A>, how: Insert) -> Inserted {
        let mut content = self.content.borrow_mut();
        let known = content.flows.contains_key(key);
        if how == Insert::Claim && (content.contested.remove(key) || known) {
            return Inserted::Taken;
        }
        if how == Insert::Update && (content.contested.remove(key) || !known) {
            content.remove(key);
            return Inserted::Gone;
        }
        if !known
            && content.flows.len() >= self.capacity
            && !(self.pushes_out && content.forget_oldest())
        {
            return Inserted::Full;
        }
        content.put(key, *flow);
        Inserted::Done
    }

    /// Lets the next claim or update of this key come too late, as if another CPU had just taken
    /// or removed it.
    pub fn lose_race(&self, key: &FlowKey<A>) {
        self.content.borrow_mut().contested.insert(*key);
    }

    /// Lets another CPU change or remove a half right after its `reads`th read from now on.
    pub fn meanwhile(&self, key: &FlowKey<A>, reads: u32, change: Change<A>) {
        self.content.borrow_mut().meanwhile.insert(*key, (reads, change));
    }

    /// Removes a half; true if it was there.
    pub fn remove(&self, key: &FlowKey<A>) -> bool {
        self.content.borrow_mut().remove(key)
    }

    /// Changes a half where it lies; false if it is not there.
    pub fn change(&self, key: &FlowKey<A>, change: impl FnOnce(&mut Flow<A>)) -> bool {
        match self.content.borrow_mut().flows.get_mut(key) {
            Some((_, flow)) => {
                change(flow);
                true
            }
            None => false,
        }
    }
}

impl<A: Copy + Ord> Content<A> {
    fn put(&mut self, key: &FlowKey<A>, flow: Flow<A>) {
        self.clock += 1;
        if let Some((used, _)) = self.flows.insert(*key, (self.clock, flow)) {
            self.uses.remove(&used);
        }
        self.uses.insert(self.clock, *key);
    }

    fn remove(&mut self, key: &FlowKey<A>) -> bool {
        let Some((used, _)) = self.flows.remove(key) else { return false };
        self.uses.remove(&used);
        true
    }

    fn read_by_one(&mut self, key: &FlowKey<A>) {
        let Some((reads, change)) = self.meanwhile.get_mut(key) else { return };
        *reads -= 1;
        if *reads > 0 {
            return;
        }
        let change = *change;
        self.meanwhile.remove(key);
        match self.flows.get_mut(key).map(|(_, flow)| (change(*flow), flow)) {
            Some((Some(changed), flow)) => *flow = changed,
            Some((None, _)) => {
                self.remove(key);
            }
            None => {}
        }
    }

    fn forget_oldest(&mut self) -> bool {
        match self.uses.pop_first() {
            Some((_, key)) => self.flows.remove(&key).is_some(),
            None => false,
        }
    }
}

/// A half of a flow in its table. Like a pointer into a map of the kernel, it outlives the
/// removal of the half: then it reads what was there last, and writes nowhere.
#[derive(Debug)]
pub struct Entry<'a, A> {
    table: &'a FlowTable<A>,
    key: FlowKey<A>,
    flow: Flow<A>,
}

impl<A: Copy + Ord> FlowRef<A> for Entry<'_, A> {
    fn read(&self) -> Flow<A> {
        let flow = self.table.get(&self.key).unwrap_or(self.flow);
        self.table.content.borrow_mut().read_by_one(&self.key);
        flow
    }

    fn touch(&mut self, now: u32, bytes: u32) {
        self.table.change(&self.key, |flow| {
            flow.last_seen = now;
            flow.packets += 1;
            flow.bytes += u64::from(bytes);
        });
    }

    fn merge_state(&mut self, to: FlowState) -> FlowState {
        let mut merged = to;
        self.table.change(&self.key, |flow| merged = flow::merge_state(flow, to));
        merged
    }
}
