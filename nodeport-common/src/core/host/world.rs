//! The world itself, and its view from a hook.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use super::fragments::Ring;
use super::frame::{SkbFrame, XdpFrame};
use super::maps::{Maps, OnHost};
use super::table::Entry;
use crate::abi::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, Control, ErrorBudget, Flow, FlowKey, FlowState,
    Frontend, FrontendKey, Load, NextHop, Reason, ServiceStats, Tags,
};
use crate::core::env::{Env, FlowRef as _, Hook, Inserted, Route, Step, Stepped, Tables};
use crate::core::fragment;
use crate::core::hash;
use crate::core::table::half::kept;
use crate::core::table::handle::Handle;
use crate::core::verdict::Verdict;
use crate::core::walk::walk;
use crate::core::work::Work;

/// Halves of flows that a world has room for, if nothing else is said.
const FLOWS: usize = 65_536;

/// All that a walk needs beside the packet.
#[derive(Debug)]
pub struct World {
    /// Jiffies, low 32 bits.
    pub now: Cell<u32>,
    /// The settings; `None` until the agent has written them.
    pub control: Cell<Option<Control>>,
    /// Random words that come next; when there are none left, a generator takes over.
    pub script: RefCell<VecDeque<u32>>,
    /// All services' slots.
    pub slots: RefCell<Vec<u32>>,
    /// Counters of the service ports.
    pub stats: RefCell<BTreeMap<u32, ServiceStats>>,
    /// Maps of IPv4.
    pub v4: Maps<Addr4>,
    /// Maps of IPv6.
    pub v6: Maps<Addr6>,
    /// What is below VLAN devices: an interface, and the tags that frames have there.
    pub below: RefCell<BTreeMap<u32, (u32, Tags)>>,
    /// Fragments that wait for the first one.
    pub ring: Ring,
    ports: RefCell<BTreeMap<u16, u8>>,
    counters: RefCell<BTreeMap<Reason, u64>>,
    budget: Cell<ErrorBudget>,
    seed: Cell<u32>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            now: Cell::new(0),
            control: Cell::new(None),
            script: RefCell::default(),
            slots: RefCell::default(),
            stats: RefCell::default(),
            v4: Maps::new(FLOWS),
            v6: Maps::new(FLOWS),
            below: RefCell::default(),
            ring: Ring::default(),
            ports: RefCell::default(),
            counters: RefCell::default(),
            budget: Cell::default(),
            seed: Cell::new(1),
        }
    }
}

impl World {
    /// Packets counted for that reason.
    pub fn count_of(&self, reason: Reason) -> u64 {
        self.counters.borrow().get(&reason).copied().unwrap_or(0)
    }

    /// All counters that are not zero.
    pub fn counters(&self) -> BTreeMap<Reason, u64> {
        self.counters.borrow().clone()
    }

    /// Adds `PORT_*` bits to a port.
    pub fn mark_port(&self, port: u16, bits: u8) {
        *self.ports.borrow_mut().entry(port).or_default() |= bits;
    }

    /// Nobody has a port of that number any more.
    pub fn clear_port(&self, port: u16) {
        self.ports.borrow_mut().remove(&port);
    }

    /// Changes the settings, which must have been written before.
    pub fn change_control(&self, change: impl FnOnce(&mut Control)) {
        let mut control = self.control.get().unwrap_or_default();
        change(&mut control);
        self.control.set(Some(control));
    }

    /// Lets time pass.
    pub fn wait(&self, jiffies: u32) {
        self.now.set(self.now.get().wrapping_add(jiffies));
    }

    /// Walks a frame in XDP on that interface.
    pub fn xdp(&self, ifindex: u32, frame: &mut XdpFrame) -> Verdict {
        walk(frame, &At::<XDP> { world: self, ifindex })
    }

    /// Walks a frame in TC where it arrives on that interface.
    pub fn ingress(&self, ifindex: u32, frame: &mut SkbFrame) -> Verdict {
        in_tc(frame, &At::<INGRESS> { world: self, ifindex })
    }

    /// Walks a frame in TC where it comes out of that veth of a pod.
    pub fn pod(&self, ifindex: u32, frame: &mut SkbFrame) -> Verdict {
        in_tc(frame, &At::<POD> { world: self, ifindex })
    }

    /// Walks a frame in TC where it leaves from that interface.
    pub fn egress(&self, ifindex: u32, frame: &mut SkbFrame) -> Verdict {
        in_tc(frame, &At::<EGRESS> { world: self, ifindex })
    }
}

/// All programs of a hook of TC, one after the other.
fn in_tc<const HOOK: u8>(frame: &mut SkbFrame, at: &At<'_, HOOK>) -> Verdict {
    let verdict = walk(frame, at);
    if verdict == Verdict::FRAGMENT { fragment::walk(frame, at) } else { verdict }
}

/// [`At`] XDP.
pub const XDP: u8 = 0;
/// [`At`] TC where packets arrive.
pub const INGRESS: u8 = 1;
/// [`At`] TC where packets leave.
pub const EGRESS: u8 = 2;

/// [`At`] TC where packets come out of a pod's veth.
pub const POD: u8 = 3;

/// The world as a program at a hook sees it.
#[derive(Clone, Copy, Debug)]
pub struct At<'a, const HOOK: u8> {
    /// The world.
    pub world: &'a World,
    /// The interface at which the program sits.
    pub ifindex: u32,
}

impl<const HOOK: u8> Env for At<'_, HOOK> {
    const HOOK: Hook = match HOOK {
        XDP => Hook::Xdp,
        INGRESS => Hook::Ingress,
        EGRESS => Hook::Egress,
        _ => Hook::Pod,
    };

    fn now(&self) -> u32 {
        self.world.now.get()
    }

    fn random(&self) -> u32 {
        if let Some(word) = self.world.script.borrow_mut().pop_front() {
            return word;
        }
        let seed = self.world.seed.get();
        self.world.seed.set(seed.wrapping_add(1));
        hash::finish(seed)
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn below(&self, ifindex: u32) -> Option<(u32, Tags)> {
        self.world.below.borrow().get(&ifindex).copied()
    }

    fn control(&self) -> Option<Control> {
        self.world.control.get().filter(|control| control.epoch != 0)
    }

    fn port_bits(&self, port: u16) -> u8 {
        self.world.ports.borrow().get(&port).copied().unwrap_or(0)
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.world.slots.borrow().get(index as usize).copied()
    }

    fn count(&self, reason: Reason) {
        *self.world.counters.borrow_mut().entry(reason).or_default() += 1;
    }

    fn service_stats(&self, service: u32, change: impl FnOnce(&mut ServiceStats)) {
        change(self.world.stats.borrow_mut().entry(service).or_default());
    }

    fn may_send_error(&self, spared: u32) -> bool {
        let Some(control) = self.control() else { return false };
        let mut budget = self.world.budget.get();
        let may = budget.spend(self.now(), control.hz, control.errors_per_second, spared);
        self.world.budget.set(budget);
        may
    }
}

impl<F: OnHost, const HOOK: u8> Tables<F> for At<'_, HOOK> {
    type Flow<'a>
        = Entry<'a, F::Addr>
    where
        Self: 'a;

    fn flow(&self, key: &FlowKey<F::Addr>) -> Option<Entry<'_, F::Addr>> {
        F::maps(self.world).flows.entry(key)
    }

    fn lacks(&self, key: &FlowKey<F::Addr>) -> bool {
        F::maps(self.world).flows.entry(key).is_none()
    }

    fn read_flow(&self, key: &FlowKey<F::Addr>, to: &mut Flow<F::Addr>) -> bool {
        let entry = F::maps(self.world).flows.entry(key);
        let found = entry.and_then(|entry| Some((entry.read()?, entry.handle())));
        // As in the kernel, where a half that ends while it is read leaves anything.
        *to = found.map(|(flow, _)| flow).unwrap_or_default();
        if let Some((_, handle)) = found {
            handle.note_in(to);
        }
        found.is_some()
    }

    fn step_flow(&self, half: Handle, step: Step<'_>) -> Stepped {
        F::maps(self.world).flows.step(half, step)
    }

    fn note_answer(&self, half: Handle, answered: u32) {
        F::maps(self.world).flows.note_answer(half, answered);
    }

    fn merge_flow(&self, half: Handle, to: FlowState) -> Option<FlowState> {
        F::maps(self.world).flows.merge(half, to)
    }

    fn claim_flow(&self, key: &FlowKey<F::Addr>, flow: &mut Flow<F::Addr>) -> Inserted {
        F::maps(self.world).flows.claim(key, flow)
    }

    fn remove_flow(&self, key: &FlowKey<F::Addr>, half: Handle) {
        F::maps(self.world).flows.remove_half(key, half);
    }

    fn remove_newcomer(&self, key: &FlowKey<F::Addr>, half: Handle) -> bool {
        F::maps(self.world).flows.remove_newcomer(key, half)
    }

    fn frontend(&self, key: &FrontendKey<F::Addr>) -> Option<Frontend> {
        F::maps(self.world).frontends.borrow().get(key).copied()
    }

    fn admits(&self, service: u32, client: &F::Addr) -> bool {
        let ranges = F::maps(self.world).ranges.borrow();
        ranges.iter().any(|(range, bits)| {
            range.service == service && F::common_bits(&range.address, client) >= *bits
        })
    }

    fn read_affinity(&self, key: &AffinityKey<F::Addr>, to: &mut Affinity) -> bool {
        let found = F::maps(self.world).affinity.borrow().get(key).copied();
        *to = found.unwrap_or_default();
        found.is_some()
    }

    fn keep_affinity(&self, key: &AffinityKey<F::Addr>, affinity: &Affinity) {
        F::maps(self.world).affinity.borrow_mut().insert(*key, *affinity);
    }

    fn address_bits(&self, address: &F::Addr) -> u32 {
        F::maps(self.world).addresses.borrow().get(address).copied().unwrap_or(0)
    }

    fn backend(&self, index: u32) -> Option<Backend<F::Addr>> {
        F::maps(self.world).backends.borrow().get(index as usize).copied()
    }

    fn load(&self, index: u32) -> Load {
        F::maps(self.world).loads.borrow().get(&index).copied().unwrap_or_default()
    }

    fn note_opened(&self, index: u32) {
        F::maps(self.world).loads.borrow_mut().entry(index).or_default().opened += 1;
    }

    fn generation(&self, index: u32) -> Option<u32> {
        Tables::<F>::backend(self, index).map(|backend| kept(backend.generation))
    }

    fn with_work<R>(&self, body: impl FnOnce(&mut Work<F::Addr>) -> R) -> Option<R> {
        // A second loan at the same time is a bug of the walk: the kernel would not notice.
        Some(body(&mut F::maps(self.world).work.borrow_mut()))
    }

    fn route(&self, way: &mut Route<F::Addr>, _: u8) {
        let maps = F::maps(self.world);
        maps.asked.borrow_mut().push(way.to);
        let answer = maps.routes.borrow().get(&way.to).copied();
        let Some(answer) = answer else {
            (way.hop, way.watched, way.to_pod) = (NextHop::UNRESOLVED, false, false);
            return;
        };
        if way.from == F::Addr::default() {
            way.from = answer.from;
        }
        (way.hop, way.watched, way.to_pod) = (answer.hop, answer.watched, answer.to_pod);
    }
}
