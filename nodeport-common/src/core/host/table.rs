//! A table of flows over an ordered map.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use crate::abi::{FLOW_PROVED, Flow, FlowKey, FlowState};
use crate::core::env::{FlowRef, Inserted, Step, Stepped};
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
}

impl<A: Copy + Ord> FlowTable<A> {
    /// A table with room for so many, which pushes out newcomers when it is full.
    pub fn bounded(capacity: usize) -> Self {
        Self { content: RefCell::default(), capacity }
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
        Some(Entry { table: self, key: *key })
    }

    /// Inserts a half, if its key is free.
    pub fn claim(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Inserted {
        let mut content = self.content.borrow_mut();
        if content.contested.remove(key) || content.flows.contains_key(key) {
            return Inserted::Taken;
        }
        if content.flows.len() >= self.capacity && !content.forget_oldest_newcomer() {
            return Inserted::Full;
        }
        content.put(key, *flow);
        Inserted::Done
    }

    /// Inserts a half, whatever is there.
    pub fn put(&self, key: &FlowKey<A>, flow: &Flow<A>) {
        self.content.borrow_mut().put(key, *flow);
    }

    /// Lets the next claim of this key come too late, as if another CPU had just taken it.
    pub fn lose_race(&self, key: &FlowKey<A>) {
        self.content.borrow_mut().contested.insert(*key);
    }

    /// Lets another CPU change or remove a half right after its `reads`th read from now on.
    pub fn meanwhile(&self, key: &FlowKey<A>, reads: u32, change: Change<A>) {
        self.content.borrow_mut().meanwhile.insert(*key, (reads, change));
    }

    /// Takes a half one step further.
    pub fn step(&self, key: &FlowKey<A>, step: Step<'_>) -> Stepped {
        let mut stepped = Stepped::Gone;
        self.change(key, |flow| {
            flow.last_seen = step.now;
            flow.packets += 1;
            flow.bytes += u64::from(step.bytes);
            flow.hop = step.hop.copied().unwrap_or(flow.hop);
            stepped = match step.state {
                Some(to) => Stepped::Merged(flow::merge_state(flow, to)),
                None => Stepped::Done,
            };
        });
        stepped
    }

    /// Sets the number by which a client can prove itself.
    pub fn note_answer(&self, key: &FlowKey<A>, answered: u32) {
        self.change(key, |flow| flow.answered = answered);
    }

    /// Puts a half into a state, merged with its own.
    pub fn merge(&self, key: &FlowKey<A>, to: FlowState) -> Option<FlowState> {
        let mut merged = None;
        self.change(key, |flow| merged = Some(flow::merge_state(flow, to)));
        merged
    }

    /// Removes a half; true if it was there.
    pub fn remove(&self, key: &FlowKey<A>) -> bool {
        self.content.borrow_mut().remove(key)
    }

    /// Removes a half if its flow has not proved itself; true if it was there.
    pub fn remove_newcomer(&self, key: &FlowKey<A>) -> bool {
        let mut content = self.content.borrow_mut();
        content.is_newcomer(key) && content.remove(key)
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

    fn is_newcomer(&self, key: &FlowKey<A>) -> bool {
        self.flows.get(key).is_some_and(|(_, flow)| flow.flags & FLOW_PROVED == 0)
    }

    fn forget_oldest_newcomer(&mut self) -> bool {
        match self.uses.values().find(|key| self.is_newcomer(key)).copied() {
            Some(key) => self.remove(&key),
            None => false,
        }
    }
}

/// A half of a flow in its table. Like an entry of the kernel's table, it outlives the removal of
/// the half: then there is nothing more to read, and it writes nowhere.
#[derive(Debug)]
pub struct Entry<'a, A> {
    table: &'a FlowTable<A>,
    key: FlowKey<A>,
}

impl<A: Copy + Ord> FlowRef<A> for Entry<'_, A> {
    fn read(&self) -> Option<Flow<A>> {
        let flow = self.table.get(&self.key);
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
}
