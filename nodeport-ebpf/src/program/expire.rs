//! Ends flows, when the agent asks by BPF_PROG_TEST_RUN. It is attached nowhere.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use nodeport_common::abi::{SWEEP_ANY_USED, SweepRequest};
use nodeport_common::core::env::{Env, FlowRef, Packet, Tables, Window, World};
use nodeport_common::core::expiry::{self, Limits};
use nodeport_common::core::family::{V4, V6};

use crate::env::{CALLED, Kernel};
use crate::packet::xdp::Frame;
use crate::route::RouteContext;
use crate::table::{InMaps, MapFlow};

/// Entries that one run looks at, at most: the kernel's limit for its loops is 2^23.
const MOST: u32 = 1 << 20;

/// What a run carries from entry to entry.
#[repr(C)]
struct Sweep {
    request: SweepRequest,
    /// Low bits of the epoch.
    epoch: u16,
    ended: u32,
    /// Whether a half ever lay in one of the entries.
    any_used: bool,
}

/// Looks at the entries of the request, and ends the flows that are over; returns how many were,
/// with [`SWEEP_ANY_USED`].
#[xdp]
pub(crate) fn nodeport_expire(context: XdpContext) -> u32 {
    let Some(request) = request(&mut Frame(context.ctx)) else { return 0 };
    let kernel = Kernel::<Frame, CALLED> { context: Frame(context.ctx) };
    let Some(control) = kernel.control() else { return 0 };
    let mut sweep = Sweep { request, epoch: control.hop_epoch(), ended: 0, any_used: false };
    let step: extern "C" fn(u32, *mut Sweep) -> i64 = match sweep.request.family {
        4 => step4,
        6 => step6,
        _ => return 0,
    };
    let count = sweep.request.count.min(MOST);
    // SAFETY: the callback takes what it is given here, and nothing else holds it meanwhile.
    unsafe { bpf_loop(count, step as *mut c_void, (&raw mut sweep).cast(), 0) };
    sweep.ended | if sweep.any_used { SWEEP_ANY_USED } else { 0 }
}

#[inline(always)]
fn request(frame: &mut Frame) -> Option<SweepRequest> {
    let head = frame.window::<{ size_of::<SweepRequest>() }>(0)?;
    let limits = Limits {
        tcp: head.load::<u32, 12>(),
        tcp_answered: head.load::<u32, 16>(),
        tcp_opening: head.load::<u32, 20>(),
        tcp_closed: head.load::<u32, 24>(),
        tcp_doubted: head.load::<u32, 28>(),
        udp: head.load::<u32, 32>(),
        udp_opening: head.load::<u32, 36>(),
    };
    let (family, first) = (head.load::<u32, 0>(), head.load::<u32, 4>());
    Some(SweepRequest { family, first, count: head.load::<u32, 8>(), limits })
}

#[inline(never)]
extern "C" fn step4(index: u32, sweep: *mut Sweep) -> i64 {
    // SAFETY: `nodeport_expire` lends it for the time of its loop.
    step::<V4>(index, unsafe { &mut *sweep })
}

#[inline(never)]
extern "C" fn step6(index: u32, sweep: *mut Sweep) -> i64 {
    // SAFETY: as in `step4`.
    step::<V6>(index, unsafe { &mut *sweep })
}

/// Looks at one entry; 1 behind the last.
#[inline(always)]
fn step<F: InMaps>(index: u32, sweep: &mut Sweep) -> i64
where
    Kernel<Nothing, CALLED>: World<F>,
{
    let number = sweep.request.first.wrapping_add(index);
    let Some(half) = MapFlow::<F>::at(number) else { return 1 };
    sweep.any_used |= half.was_used();
    if half.take_up_or_refresh(sweep.epoch) && looks_over::<F>(&half, &sweep.request.limits) {
        sweep.ended += end::<F>(number, &sweep.request.limits) as u32;
    }
    0
}

/// Whether the half alone looks as if its flow were over.
#[inline(always)]
fn looks_over<F: InMaps>(half: &MapFlow<F>, limits: &Limits) -> bool
where
    Kernel<Nothing, CALLED>: World<F>,
{
    let world = Kernel::<Nothing, CALLED> { context: Nothing };
    let Some(flow) = half.read() else { return false };
    limits.is_over(&flow, half.protocol(), world.now())
        || expiry::ends_with_backend::<F, _>(&world, &flow, half.protocol())
}

/// Ends the flow of the half in that entry, if it is over.
#[inline(never)]
fn end<F: InMaps>(number: u32, limits: &Limits) -> bool
where
    Kernel<Nothing, CALLED>: World<F>,
{
    let world = Kernel::<Nothing, CALLED> { context: Nothing };
    let ended = world.with_work(|work| {
        MapFlow::<F>::at(number).is_some_and(|half| half.key_into(&mut work.key))
            && expiry::end::<F, _>(&world, work, limits)
    });
    ended.unwrap_or(false)
}

/// No packet: the agent's request is all there is.
#[derive(Clone, Copy)]
struct Nothing;

impl RouteContext for Nothing {
    #[inline(always)]
    fn pointer(&self) -> *mut c_void {
        core::ptr::null_mut()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        0
    }
}
