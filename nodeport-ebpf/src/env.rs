//! `Env` and `Tables` over helpers and maps.

use aya_ebpf::bindings::{BPF_ANY, BPF_EXIST, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64};
use nodeport_common::abi::{
    Addr4, Addr6, Backend, Control, FLOW_SETTLED, Flow, FlowKey, FlowState, Frontend, FrontendKey,
    PORTS_PER_LINE, Reason, SLOTS_PER_LINE, ServiceStats, Tags,
};
use nodeport_common::core::env::{Env, FlowRef, Hook, Insert, Inserted, Route, Table, Tables};
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state;
use nodeport_common::core::work::Work;

use crate::maps;
use crate::route::{self, RouteContext};

/// "File exists": the key was taken.
const EEXIST: i32 = -17;
/// "No such entry": there was nothing to update.
const ENOENT: i32 = -2;

/// The kernel around a program at `HOOK` (a [`Hook`], as a number).
#[derive(Clone, Copy)]
pub(crate) struct Kernel<C, const HOOK: u8> {
    /// The program's context.
    pub(crate) context: C,
}

/// `Kernel` of the XDP program.
pub(crate) const XDP: u8 = 0;
/// `Kernel` of the TC program where packets arrive.
pub(crate) const INGRESS: u8 = 1;
/// `Kernel` of the TC program where packets leave.
pub(crate) const EGRESS: u8 = 2;
/// `Kernel` of the program that the agent calls. Kernels before af2d0d09eabe let programs at the
/// other hooks interrupt it, so it has a working area of its own.
pub(crate) const CALLED: u8 = 3;

impl<C: RouteContext, const HOOK: u8> Env for Kernel<C, HOOK> {
    const HOOK: Hook = match HOOK {
        XDP | CALLED => Hook::Xdp,
        INGRESS => Hook::Ingress,
        _ => Hook::Egress,
    };

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper takes nothing and only reads the clock.
        unsafe { bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.context.ifindex()
    }

    #[inline(always)]
    fn below(&self, ifindex: u32) -> Option<(u32, Tags)> {
        // SAFETY: a copy is taken at once.
        let device = unsafe { maps::DEVICES.get(ifindex) }?;
        (device.lower != 0).then_some((device.lower, device.tags))
    }

    #[inline(always)]
    fn control(&self) -> Option<Control> {
        let control = maps::CONTROL.get(0)?;
        (control.epoch != 0).then_some(*control)
    }

    #[inline(always)]
    fn port_bits(&self, port: u16) -> u8 {
        let (line, place) = (port as usize / PORTS_PER_LINE, port as usize % PORTS_PER_LINE);
        match maps::PORTS.get(line as u32) {
            Some(line) => line[place],
            None => 0,
        }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        let place = index as usize % SLOTS_PER_LINE;
        maps::SLOTS.get(index / SLOTS_PER_LINE as u32).map(|line| line[place])
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(counter) = maps::COUNTERS.get_ptr_mut(reason as u32) {
            // SAFETY: the element is this CPU's own, and programs are not preempted by
            // themselves on one CPU.
            unsafe { *counter += 1 };
        }
    }

    #[inline(always)]
    fn service_stats(&self, service: u32, change: impl FnOnce(&mut ServiceStats)) {
        if let Some(stats) = maps::SERVICE_STATS.get_ptr_mut(service) {
            // SAFETY: as in `count`.
            change(unsafe { &mut *stats });
        }
    }

    #[inline(always)]
    fn may_send_error(&self) -> bool {
        let (Some(control), Some(budget)) = (self.control(), maps::ERROR_BUDGET.get_ptr_mut(0))
        else {
            return false;
        };
        // SAFETY: as in `count`.
        let budget = unsafe { &mut *budget };
        budget.spend(self.now(), control.hz, control.errors_per_second)
    }
}

/// A half of a flow in its map. Other CPUs may write to it at the same time; each field is read
/// and written as one word, and what must change together is replaced as a whole value.
pub(crate) struct MapFlow<A>(*mut Flow<A>);

impl<A: Copy> FlowRef<A> for MapFlow<A> {
    #[inline(always)]
    fn read(&self) -> Flow<A> {
        // SAFETY: the map lookup returned this pointer, and the kernel keeps the element readable
        // until the program ends.
        unsafe { *self.0 }
    }

    /// Word by word: the compiler would make a loop over bytes of a copy within maps.
    #[inline(always)]
    fn read_into(&self, to: &mut Flow<A>) {
        let (from, to) = (self.0.cast::<u64>(), (&raw mut *to).cast::<u64>());
        for word in 0..size_of::<Flow<A>>() / 8 {
            // SAFETY: as in `read`; both have the size and the alignment of a `Flow`, and every
            // bit pattern is a value of it.
            unsafe { to.add(word).write(from.add(word).read_volatile()) };
        }
    }

    #[inline(always)]
    fn touch(&mut self, now: u32, bytes: u32) {
        // SAFETY: as in `read`; a count that another CPU adds in the same instant may be lost,
        // which statistics can bear and a lock cannot.
        unsafe {
            (*self.0).last_seen = now;
            (*self.0).packets += 1;
            (*self.0).bytes += bytes as u64;
        }
    }

    /// Between the read and the write lie some nanoseconds in which another CPU may do the same.
    #[inline(always)]
    fn merge_state(&mut self, to: FlowState) -> FlowState {
        // SAFETY: as in `read`.
        let now = unsafe { (&raw const (*self.0).state).read_volatile() };
        let merged = state::merge(FlowState::from_u8(now), to);
        // SAFETY: as in `read`.
        let flags = unsafe { (&raw const (*self.0).flags).read_volatile() };
        let settled = if state::is_settled(merged) { FLOW_SETTLED } else { 0 };
        // SAFETY: as in `read`.
        unsafe {
            (*self.0).state = merged as u8;
            (*self.0).flags = flags & !FLOW_SETTLED | settled;
        }
        merged
    }
}

macro_rules! tables {
    ($family:ty, $addr:ty, $flows:ident, $nursery:ident, $frontends:ident, $backends:ident, $node_addrs:ident, $work:ident) => {
        impl<C: RouteContext, const HOOK: u8> Tables<$family> for Kernel<C, HOOK> {
            type Flow<'a>
                = MapFlow<$addr>
            where
                Self: 'a;

            #[inline(always)]
            fn flow(&self, table: Table, key: &FlowKey<$addr>) -> Option<MapFlow<$addr>> {
                match table {
                    Table::Flows => maps::$flows.get_ptr_mut(key),
                    Table::Nursery => maps::$nursery.get_ptr_mut(key),
                }
                .map(MapFlow)
            }

            #[inline(always)]
            fn insert_flow(
                &self,
                table: Table,
                key: &FlowKey<$addr>,
                flow: &Flow<$addr>,
                how: Insert,
            ) -> Inserted {
                let flags = match how {
                    Insert::Claim => BPF_NOEXIST,
                    Insert::Replace => BPF_ANY,
                    Insert::Update => BPF_EXIST,
                } as u64;
                let result = match table {
                    Table::Flows => maps::$flows.insert(key, flow, flags),
                    Table::Nursery => maps::$nursery.insert(key, flow, flags),
                };
                inserted(result)
            }

            #[inline(always)]
            fn remove_flow(&self, table: Table, key: &FlowKey<$addr>) {
                // That it was not there is what was wanted.
                let _ = match table {
                    Table::Flows => maps::$flows.remove(key),
                    Table::Nursery => maps::$nursery.remove(key),
                };
            }

            #[inline(always)]
            fn frontend(&self, key: &FrontendKey<$addr>) -> Option<Frontend> {
                // SAFETY: a copy is taken at once; a frontend that is replaced in that instant
                // names slots that stay as they are until every CPU has moved on.
                unsafe { maps::$frontends.get(key) }.copied()
            }

            #[inline(always)]
            fn is_node_address(&self, address: &$addr) -> bool {
                maps::$node_addrs.get_ptr(address).is_some()
            }

            #[inline(always)]
            fn backend(&self, index: u32) -> Option<Backend<$addr>> {
                maps::$backends.get(index).copied()
            }

            #[inline(always)]
            fn generation(&self, index: u32) -> Option<u32> {
                maps::$backends.get(index).map(|backend| backend.generation)
            }

            #[inline(always)]
            fn with_work<R>(&self, body: impl FnOnce(&mut Work<$addr>) -> R) -> Option<R> {
                let area = if HOOK == CALLED { 1 } else { 0 };
                let work = maps::$work.get_ptr_mut(area)?;
                // SAFETY: the element is this CPU's own, and the walk borrows it once at a time.
                // Programs that packets call run with softirqs off, so that they do not interrupt
                // each other on one CPU; the one that the agent calls has another element.
                Some(body(unsafe { &mut *work }))
            }

            #[inline(always)]
            fn route(&self, way: &mut Route<$addr>, protocol: u8) {
                let asks = self.control().is_some_and(|control| control.fib_source != 0);
                route::look_up::<$family, C>(&self.context, way, protocol, asks);
            }
        }
    };
}

tables!(V4, Addr4, FLOWS4, NURSERY4, FRONTENDS4, BACKENDS4, NODE_ADDRS4, WORK4);
tables!(V6, Addr6, FLOWS6, NURSERY6, FRONTENDS6, BACKENDS6, NODE_ADDRS6, WORK6);

#[inline(always)]
fn inserted(result: Result<(), i32>) -> Inserted {
    match result {
        Ok(()) => Inserted::Done,
        Err(EEXIST) => Inserted::Taken,
        Err(ENOENT) => Inserted::Gone,
        Err(_) => Inserted::Full,
    }
}
