//! Ends flows, when the agent asks by BPF_PROG_TEST_RUN. It is attached nowhere.

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use nodeport_common::abi::{Addr4, Addr6, EXPIRE_KEYS, ExpireRequest, FlowKey, Ports};
use nodeport_common::core::env::{Packet, Tables, Window, World};
use nodeport_common::core::expiry::{self, Limits};
use nodeport_common::core::family::{Family, V4, V6};

use crate::env::{CALLED, Kernel};
use crate::packet::xdp::Frame;

/// Ends the flows of the request that are over; returns how many were.
#[xdp]
pub(crate) fn nodeport_expire(context: XdpContext) -> u32 {
    let mut request = Frame(context.ctx);
    let kernel = Kernel::<Frame, CALLED> { context: request };
    let Some(head) = head(&mut request) else { return 0 };
    match head.family {
        4 => each::<V4, _>(&mut request, &kernel, &head),
        6 => each::<V6, _>(&mut request, &kernel, &head),
        _ => 0,
    }
}

#[inline(always)]
fn head(request: &mut Frame) -> Option<ExpireRequest> {
    let head = request.window::<{ size_of::<ExpireRequest>() }>(0)?;
    let limits = Limits {
        tcp: head.load::<u32, 8>(),
        tcp_answered: head.load::<u32, 12>(),
        tcp_opening: head.load::<u32, 16>(),
        tcp_closed: head.load::<u32, 20>(),
        tcp_doubted: head.load::<u32, 24>(),
        udp: head.load::<u32, 28>(),
        udp_opening: head.load::<u32, 32>(),
    };
    let (family, count) = (head.load::<u32, 0>(), head.load::<u32, 4>());
    Some(ExpireRequest { family, count, limits, pad: 0 })
}

#[inline(always)]
fn each<F: Keys, W: World<F>>(request: &mut Frame, world: &W, head: &ExpireRequest) -> u32 {
    let mut ended = 0;
    for index in 0..EXPIRE_KEYS {
        if index as u32 >= head.count {
            break;
        }
        let at = size_of::<ExpireRequest>() + index * size_of::<FlowKey<F::Addr>>();
        let done = Tables::<F>::with_work(world, |work| {
            F::read_key(request, at, &mut work.key)
                && expiry::end::<F, W>(world, work, &head.limits)
        });
        ended += done.unwrap_or(false) as u32;
    }
    ended
}

/// Reads a key of the request.
trait Keys: Family {
    fn read_key(request: &mut Frame, at: usize, key: &mut FlowKey<Self::Addr>) -> bool;
}

impl Keys for V4 {
    #[inline(always)]
    fn read_key(request: &mut Frame, at: usize, key: &mut FlowKey<Addr4>) -> bool {
        let Some(bytes) = request.window::<16>(at) else { return false };
        *key = FlowKey::new(
            bytes.load::<[u8; 4], 0>(),
            bytes.load::<[u8; 4], 4>(),
            Ports::from_word(bytes.load::<u32, 8>()),
            bytes.load::<u8, 12>(),
        );
        true
    }
}

impl Keys for V6 {
    #[inline(always)]
    fn read_key(request: &mut Frame, at: usize, key: &mut FlowKey<Addr6>) -> bool {
        let Some(bytes) = request.window::<40>(at) else { return false };
        *key = FlowKey::new(
            bytes.load::<[u8; 16], 0>(),
            bytes.load::<[u8; 16], 16>(),
            Ports::from_word(bytes.load::<u32, 32>()),
            bytes.load::<u8, 36>(),
        );
        true
    }
}
