//! TC on the node's network interface, and on the veths of its pods.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use nodeport_common::core::env::Packet;
use nodeport_common::core::fragment;
use nodeport_common::core::verdict::Verdict;
use nodeport_common::core::walk::{quick, thorough};

use crate::env::{EGRESS, INGRESS, Kernel, POD};
use crate::maps::{JUMP_EGRESS, JUMP_INGRESS, JUMP_POD};
use crate::packet::skb::Skb;
use crate::verdict;

/// Bytes that common packets are parsed in: Ethernet, IPv6, TCP.
const HEADERS: u32 = 14 + 40 + 20;

/// The whole walk where XDP cannot run, and what XDP hands up where it can.
#[classifier]
pub(crate) fn nodeport_ingress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    if skb.is_done() {
        return TC_ACT_UNSPEC;
    }
    // As another node on this machine has left it, at the other end of a veth.
    if skb.is_ours() {
        skb.set_ours(false);
    }
    routine::<INGRESS>(&context, &JUMP_INGRESS)
}

/// The same for what is not routine.
#[classifier]
pub(crate) fn slow_ingress(context: TcContext) -> i32 {
    all::<INGRESS>(&context, &JUMP_INGRESS)
}

/// The same for fragments, after that.
#[classifier]
pub(crate) fn parts_ingress(context: TcContext) -> i32 {
    parts::<INGRESS>(&context)
}

/// The answers of backends on this node, and the node's own connections from SNAT ports.
#[classifier]
pub(crate) fn nodeport_egress(context: TcContext) -> i32 {
    if Skb(context.skb.skb).is_ours() {
        return TC_ACT_UNSPEC;
    }
    routine::<EGRESS>(&context, &JUMP_EGRESS)
}

/// The same for what is not routine.
#[classifier]
pub(crate) fn slow_egress(context: TcContext) -> i32 {
    all::<EGRESS>(&context, &JUMP_EGRESS)
}

/// The same for fragments, after that.
#[classifier]
pub(crate) fn parts_egress(context: TcContext) -> i32 {
    parts::<EGRESS>(&context)
}

/// The answers of a pod in fast mode, where they come out of its veth.
#[classifier]
pub(crate) fn nodeport_pod(context: TcContext) -> i32 {
    routine::<POD>(&context, &JUMP_POD)
}

/// The same for what is not routine.
#[classifier]
pub(crate) fn slow_pod(context: TcContext) -> i32 {
    all::<POD>(&context, &JUMP_POD)
}

/// The same for fragments, after that.
#[classifier]
pub(crate) fn parts_pod(context: TcContext) -> i32 {
    parts::<POD>(&context)
}

/// What is routine at that hook, and leaves the rest to the program in `jump`.
#[inline(always)]
fn routine<const HOOK: u8>(context: &TcContext, jump: &ProgramArray<2>) -> i32 {
    let mut skb = Skb(context.skb.skb);
    if skb.is_of_vlan() {
        return TC_ACT_UNSPEC;
    }
    skb.make_linear(HEADERS);
    let kernel = Kernel::<Skb, HOOK> { context: skb };
    if let Some(verdict) = quick(&mut skb, &kernel) {
        return verdict::tc(skb, &kernel, verdict);
    }
    // SAFETY: nothing waits to be dropped.
    unsafe { jump.tail_call(context, 0) };
    TC_ACT_UNSPEC
}

/// All that is met at that hook; the last word on fragments has the second program in `jump`.
#[inline(always)]
fn all<const HOOK: u8>(context: &TcContext, jump: &ProgramArray<2>) -> i32 {
    let mut skb = Skb(context.skb.skb);
    let kernel = Kernel::<Skb, HOOK> { context: skb };
    let verdict = thorough(&mut skb, &kernel);
    if verdict == Verdict::FRAGMENT {
        // SAFETY: nothing waits to be dropped.
        unsafe { jump.tail_call(context, 1) };
    }
    verdict::tc(skb, &kernel, verdict)
}

/// Fragments that are met at that hook, after the program before.
#[inline(always)]
fn parts<const HOOK: u8>(context: &TcContext) -> i32 {
    let mut skb = Skb(context.skb.skb);
    let kernel = Kernel::<Skb, HOOK> { context: skb };
    verdict::tc(skb, &kernel, fragment::walk(&mut skb, &kernel))
}
