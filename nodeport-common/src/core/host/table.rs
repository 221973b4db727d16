//! A table of flows over an ordered map.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use crate::abi::{FLOW_PROVED, Flow, FlowKey, FlowState};
use crate::core::env::{FlowRef, Inserted, Step, Stepped};
use crate::core::flow;
use crate::core::table::handle::Handle;

/// What another CPU makes of a half; `None` if it removes it.
pub type Change<A> = fn(Flow<A>) -> Option<Flow<A>>;

/// What another CPU does to a half that was read.
#[derive(Clone, Copy, Debug)]
enum Meanwhile<A> {
    /// It changes or removes it.
    Changes(Change<A>),
    /// It removes it, and opens this one with the same key.
    Replaces(Flow<A>),
}

/// A half in the table.
#[derive(Debug)]
struct Half<A> {
    /// When it was used last.
    used: u64,
    handle: Handle,
    flow: Flow<A>,
}

/// What a table holds.
#[derive(Debug)]
struct Content<A> {
    flows: BTreeMap<FlowKey<A>, Half<A>>,
    /// Keys by their last use.
    uses: BTreeMap<u64, FlowKey<A>>,
    clock: u64,
    /// Keys by the entries of their handles: a number of its own for each half that there ever was.
    handles: BTreeMap<u32, FlowKey<A>>,
    halves: u32,
    /// Keys that another CPU is about to take.
    contested: BTreeSet<FlowKey<A>>,
    /// What another CPU does to a half after so many reads of it.
    meanwhile: BTreeMap<FlowKey<A>, (u32, Meanwhile<A>)>,
}

impl<A> Default for Content<A> {
    fn default() -> Self {
        Self {
            flows: BTreeMap::new(),
            uses: BTreeMap::new(),
            clock: 0,
            handles: BTreeMap::new(),
            halves: 0,
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
        self.content.borrow().flows.iter().map(|(key, half)| (*key, half.flow)).collect()
    }

    /// A copy of one half. Does not count as a use.
    pub fn get(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        self.content.borrow().flows.get(key).map(|half| half.flow)
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
        let handle = self.content.borrow_mut().use_half(key)?;
        Some(Entry { table: self, key: *key, handle })
    }

    /// Inserts a half, if its key is free, and notes in it which one it is.
    pub fn claim(&self, key: &FlowKey<A>, flow: &mut Flow<A>) -> Inserted {
        let mut content = self.content.borrow_mut();
        if content.contested.remove(key) || content.flows.contains_key(key) {
            return Inserted::Taken;
        }
        if content.flows.len() >= self.capacity && !content.forget_oldest_newcomer() {
            return Inserted::Full;
        }
        content.put(key, *flow).note_in(flow);
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
        self.plan(key, reads, Meanwhile::Changes(change));
    }

    /// Lets another CPU remove a half right after its `reads`th read from now on, and open another
    /// one with the same key.
    pub fn replaced_meanwhile(&self, key: &FlowKey<A>, reads: u32, by: Flow<A>) {
        self.plan(key, reads, Meanwhile::Replaces(by));
    }

    fn plan(&self, key: &FlowKey<A>, reads: u32, what: Meanwhile<A>) {
        self.content.borrow_mut().meanwhile.insert(*key, (reads, what));
    }

    /// Takes a half one step further.
    pub fn step(&self, half: Handle, step: Step<'_>) -> Stepped {
        let mut stepped = Stepped::Gone;
        self.change_half(half, |flow| {
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
    pub fn note_answer(&self, half: Handle, answered: u32) {
        self.change_half(half, |flow| flow.answered = answered);
    }

    /// Puts a half into a state, merged with its own.
    pub fn merge(&self, half: Handle, to: FlowState) -> Option<FlowState> {
        let mut merged = None;
        self.change_half(half, |flow| merged = Some(flow::merge_state(flow, to)));
        merged
    }

    /// Removes whatever half has that key; true if there was one.
    pub fn remove(&self, key: &FlowKey<A>) -> bool {
        self.content.borrow_mut().remove(key)
    }

    /// Removes this half; true if it was there.
    pub fn remove_half(&self, key: &FlowKey<A>, half: Handle) -> bool {
        let mut content = self.content.borrow_mut();
        content.is_half(key, half) && content.remove(key)
    }

    /// Removes this half if its flow has not proved itself; true if it was there.
    pub fn remove_newcomer(&self, key: &FlowKey<A>, half: Handle) -> bool {
        let mut content = self.content.borrow_mut();
        content.is_half(key, half) && content.is_newcomer(key) && content.remove(key)
    }

    fn change_half(&self, half: Handle, change: impl FnOnce(&mut Flow<A>)) {
        let mut content = self.content.borrow_mut();
        let Some(key) = content.handles.get(&half.entry()).copied() else { return };
        if let Some(found) = content.flows.get_mut(&key) {
            change(&mut found.flow);
        }
    }

    /// Changes a half where it lies; false if it is not there.
    pub fn change(&self, key: &FlowKey<A>, change: impl FnOnce(&mut Flow<A>)) -> bool {
        match self.content.borrow_mut().flows.get_mut(key) {
            Some(half) => {
                change(&mut half.flow);
                true
            }
            None => false,
        }
    }
}

impl<A: Copy + Ord> Content<A> {
    /// Puts a half in, whatever was there.
    fn put(&mut self, key: &FlowKey<A>, mut flow: Flow<A>) -> Handle {
        self.remove(key);
        (self.clock, self.halves) = (self.clock + 1, self.halves + 1);
        let handle = Handle::new(self.halves, 0);
        Handle::NONE.note_in(&mut flow);
        self.flows.insert(*key, Half { used: self.clock, handle, flow });
        self.uses.insert(self.clock, *key);
        self.handles.insert(handle.entry(), *key);
        handle
    }

    /// Uses a half; which one it is.
    fn use_half(&mut self, key: &FlowKey<A>) -> Option<Handle> {
        let half = self.flows.get_mut(key)?;
        self.clock += 1;
        self.uses.remove(&half.used);
        self.uses.insert(self.clock, *key);
        half.used = self.clock;
        Some(half.handle)
    }

    fn remove(&mut self, key: &FlowKey<A>) -> bool {
        let Some(half) = self.flows.remove(key) else { return false };
        self.uses.remove(&half.used);
        self.handles.remove(&half.handle.entry());
        true
    }

    fn read_by_one(&mut self, key: &FlowKey<A>) {
        let Some((reads, what)) = self.meanwhile.get_mut(key) else { return };
        *reads -= 1;
        if *reads > 0 {
            return;
        }
        let what = *what;
        self.meanwhile.remove(key);
        match what {
            Meanwhile::Changes(change) => self.change_or_remove(key, change),
            Meanwhile::Replaces(by) if self.flows.contains_key(key) => {
                self.put(key, by);
            }
            Meanwhile::Replaces(_) => {}
        }
    }

    fn change_or_remove(&mut self, key: &FlowKey<A>, change: Change<A>) {
        let Some(half) = self.flows.get_mut(key) else { return };
        match change(half.flow) {
            Some(changed) => half.flow = changed,
            None => {
                self.remove(key);
            }
        }
    }

    fn is_half(&self, key: &FlowKey<A>, half: Handle) -> bool {
        self.flows.get(key).is_some_and(|found| found.handle == half)
    }

    fn is_newcomer(&self, key: &FlowKey<A>) -> bool {
        self.flows.get(key).is_some_and(|half| half.flow.flags & FLOW_PROVED == 0)
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
    handle: Handle,
}

impl<A> Entry<'_, A> {
    /// Which half it is.
    pub const fn handle(&self) -> Handle {
        self.handle
    }
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
