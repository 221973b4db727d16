//! `Env` and `Tables` over helpers and maps.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64};
use nodeport_common::abi::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, Control, Flow, FlowKey, FlowState, Frontend,
    FrontendKey, Load, PORTS_PER_LINE, Reason, SLOTS_PER_LINE, ServiceStats, SourceRange, Tags,
};
use nodeport_common::core::env::{Env, Hook, Inserted, Route, Step, Stepped, Tables};
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::table::half::kept;
use nodeport_common::core::table::handle::Handle;
use nodeport_common::core::work::Work;

use crate::maps;
use crate::route::{self, RouteContext};
use crate::table::{MapFlow, Table};

/// What is counted is ordered by nothing.
const RELAXED: AtomicOrdering = AtomicOrdering::Relaxed;

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
/// `Kernel` of the TC program where a pod's packets come out of its veth.
pub(crate) const POD: u8 = 4;
/// `Kernel` of the program that the agent calls. Kernels before af2d0d09eabe let programs at the
/// other hooks interrupt it, so it has a working area of its own.
pub(crate) const CALLED: u8 = 3;

impl<C: RouteContext, const HOOK: u8> Env for Kernel<C, HOOK> {
    const HOOK: Hook = match HOOK {
        XDP | CALLED => Hook::Xdp,
        INGRESS => Hook::Ingress,
        POD => Hook::Pod,
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
    fn may_send_error(&self, spared: u32) -> bool {
        let (Some(control), Some(budget)) = (self.control(), maps::ERROR_BUDGET.get_ptr_mut(0))
        else {
            return false;
        };
        // SAFETY: as in `count`.
        let budget = unsafe { &mut *budget };
        budget.spend(self.now(), control.hz, control.errors_per_second, spared)
    }
}

macro_rules! tables {
    ($family:ty, $addr:ty, $frontends:ident, $ranges:ident, $affinity:ident, $backends:ident, $loads:ident, $node_addrs:ident, $work:ident) => {
        impl<C: RouteContext, const HOOK: u8> Tables<$family> for Kernel<C, HOOK> {
            type Flow<'a>
                = MapFlow<$family>
            where
                Self: 'a;

            #[inline(always)]
            fn flow(&self, key: &FlowKey<$addr>) -> Option<MapFlow<$family>> {
                Table::<$family>::flow(key)
            }

            #[inline(always)]
            fn lacks(&self, key: &FlowKey<$addr>) -> bool {
                Table::<$family>::lacks(key)
            }

            #[inline(always)]
            fn read_flow(&self, key: &FlowKey<$addr>, to: &mut Flow<$addr>) -> bool {
                Table::<$family>::read(key, to)
            }

            #[inline(always)]
            fn step_flow(&self, half: Handle, step: Step<'_>) -> Stepped {
                Table::<$family>::step(half, step)
            }

            #[inline(always)]
            fn note_answer(&self, half: Handle, answered: u32) {
                Table::<$family>::note_answer(half, answered);
            }

            #[inline(always)]
            fn merge_flow(&self, half: Handle, to: FlowState) -> Option<FlowState> {
                Table::<$family>::merge(half, to)
            }

            #[inline(always)]
            fn claim_flow(&self, key: &FlowKey<$addr>, flow: &mut Flow<$addr>) -> Inserted {
                Table::<$family>::claim(key, flow, self.now())
            }

            #[inline(always)]
            fn remove_flow(&self, key: &FlowKey<$addr>, half: Handle) {
                // That it was not there is what was wanted.
                let _ = Table::<$family>::remove(key, half);
            }

            #[inline(always)]
            fn remove_newcomer(&self, key: &FlowKey<$addr>, half: Handle) -> bool {
                Table::<$family>::remove_newcomer(key, half)
            }

            #[inline(always)]
            fn frontend(&self, key: &FrontendKey<$addr>) -> Option<Frontend> {
                // SAFETY: a copy is taken at once; a frontend that is replaced in that instant
                // names slots that stay as they are until every CPU has moved on.
                unsafe { maps::$frontends.get(key) }.copied()
            }

            #[inline(always)]
            fn admits(&self, service: u32, client: &$addr) -> bool {
                let bits = SourceRange::<$addr>::SERVICE_BITS + 8 * size_of::<$addr>() as u32;
                let range = Key::new(bits, SourceRange { service, address: *client });
                maps::$ranges.get(&range).is_some()
            }

            #[inline(always)]
            fn read_affinity(&self, key: &AffinityKey<$addr>, to: &mut Affinity) -> bool {
                // SAFETY: a copy is taken at once, and what is replaced in that instant stays as it was.
                let found = unsafe { maps::$affinity.get(key) };
                if let Some(found) = found {
                    *to = *found;
                }
                found.is_some()
            }

            #[inline(always)]
            fn keep_affinity(&self, key: &AffinityKey<$addr>, affinity: &Affinity) {
                // Without room for it, the client is not known again, and that is all.
                let _ = maps::$affinity.insert(key, affinity, 0);
            }

            #[inline(always)]
            fn address_bits(&self, address: &$addr) -> u32 {
                // SAFETY: an aligned word in a map, written at once.
                maps::$node_addrs.get_ptr(address).map_or(0, |bits| unsafe { *bits })
            }

            #[inline(always)]
            fn backend(&self, index: u32) -> Option<Backend<$addr>> {
                maps::$backends.get(index).copied()
            }

            #[inline(always)]
            fn load(&self, index: u32) -> Load {
                maps::$loads.get(index).copied().unwrap_or_default()
            }

            #[inline(always)]
            fn note_opened(&self, index: u32) {
                if let Some(load) = maps::$loads.get_ptr_mut(index) {
                    // SAFETY: the pointer is to an element of an array map, whose words are aligned;
                    // programs change this one by such additions alone.
                    unsafe { atomic_xadd::<u32, u32, RELAXED>(&raw mut (*load).opened, 1) };
                }
            }

            #[inline(always)]
            fn generation(&self, index: u32) -> Option<u32> {
                maps::$backends.get(index).map(|backend| kept(backend.generation))
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

tables!(V4, Addr4, FRONTENDS4, RANGES4, AFFINITY4, BACKENDS4, LOADS4, NODE_ADDRS4, WORK4);
tables!(V6, Addr6, FRONTENDS6, RANGES6, AFFINITY6, BACKENDS6, LOADS6, NODE_ADDRS6, WORK6);
