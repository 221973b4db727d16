//! The kernel's route look-up.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_FIB_LOOKUP_SRC, bpf_fib_lookup as FibParams,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use nodeport_common::abi::{
    Addr4, Addr6, DEVICE_ATTACHED, DEVICE_POD, DEVICE_REDIRECT, Device, HOP_NEIGHBOUR, HOP_POD,
    HOP_SEND, HOP_STACK, HOP_TAGGED, HOP_UNRESOLVED, NextHop,
};
use nodeport_common::core::env::Route;
use nodeport_common::core::family::{Family, V4, V6};

use crate::maps::DEVICES;

/// Address family numbers as the kernel has them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What a route look-up needs of a program's context.
pub(crate) trait RouteContext: Copy {
    /// The context, as helpers take it.
    fn pointer(&self) -> *mut c_void;
    /// Interface on which the packet arrived, or from which it leaves.
    fn ifindex(&self) -> u32;
}

/// How addresses go into and come out of the kernel's parameters.
pub(crate) trait FibFamily: Family {
    const AF: u8;
    fn set(params: &mut FibParams, src: &Self::Addr, dst: &Self::Addr);
    fn source(params: &FibParams) -> Self::Addr;
}

impl FibFamily for V4 {
    const AF: u8 = AF_INET;

    #[inline(always)]
    fn set(params: &mut FibParams, src: &Addr4, dst: &Addr4) {
        params.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(*src);
        params.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(*dst);
    }

    #[inline(always)]
    fn source(params: &FibParams) -> Addr4 {
        // SAFETY: every bit pattern is a value of this member.
        unsafe { params.__bindgen_anon_3.ipv4_src }.to_ne_bytes()
    }
}

impl FibFamily for V6 {
    const AF: u8 = AF_INET6;

    #[inline(always)]
    fn set(params: &mut FibParams, src: &Addr6, dst: &Addr6) {
        params.__bindgen_anon_3.ipv6_src = words(src);
        params.__bindgen_anon_4.ipv6_dst = words(dst);
    }

    #[inline(always)]
    fn source(params: &FibParams) -> Addr6 {
        // SAFETY: every bit pattern is a value of this member, and of an address.
        unsafe { core::mem::transmute(params.__bindgen_anon_3.ipv6_src) }
    }
}

#[inline(always)]
fn words(address: &Addr6) -> [u32; 4] {
    // SAFETY: every bit pattern is a value of both types, which have the same size.
    unsafe { core::mem::transmute(*address) }
}

/// Looks the way up. `kernel_source`: the kernel can tell the source address (6.7).
#[inline(always)]
pub(crate) fn look_up<F: FibFamily, C: RouteContext>(
    context: &C,
    way: &mut Route<F::Addr>,
    protocol: u8,
    kernel_source: bool,
) {
    // Zeroed as words, which takes no call.
    let mut words = [0u64; size_of::<FibParams>() / 8];
    // SAFETY: all zero is a value of every member, and the size and alignment suffice.
    let params = unsafe { &mut *words.as_mut_ptr().cast::<FibParams>() };
    params.family = F::AF;
    params.l4_protocol = protocol;
    params.ifindex = context.ifindex();
    // One byte: always below the path's MTU, which the kernel then tells.
    params.__bindgen_anon_1.tot_len = 1;
    F::set(params, &way.from, &way.to);
    let wants_source = way.from == F::Addr::default();
    let asks = wants_source && kernel_source;
    let flags = if asks { BPF_FIB_LOOKUP_SRC } else { 0 };
    let size = size_of::<FibParams>() as i32;
    // SAFETY: the context is the program's own, the parameters are `size` bytes that live on.
    let code = unsafe { bpf_fib_lookup(context.pointer(), params, size, flags) };
    // SAFETY: the agent replaces whole values; the reference is not held across a change.
    let device = unsafe { DEVICES.get(params.ifindex) };
    if asks {
        way.from = F::source(params);
    } else if let (true, Some(device)) = (wants_source, device) {
        way.from = F::device_address(device);
    }
    way.watched = device.is_some_and(|device| device.flags & DEVICE_ATTACHED != 0);
    way.to_pod = device.is_some_and(|device| device.flags & DEVICE_POD != 0);
    way.hop = hop(params, code as u32, device.map_or(HOP_NEIGHBOUR, kind));
    way.hop.exit = device.map_or(0, |device| device.exit);
    if way.hop.exit == 0 && way.hop.kind != HOP_STACK {
        // A flow could not name the interface.
        way.hop.epoch = 0;
    }
}

/// How frames leave by a device for a neighbour that is known.
#[inline(always)]
fn kind(device: &Device) -> u8 {
    if device.flags & DEVICE_POD != 0 {
        HOP_POD
    } else if device.flags & DEVICE_REDIRECT != 0 {
        HOP_SEND
    } else if device.lower != 0 {
        HOP_TAGGED
    } else {
        HOP_NEIGHBOUR
    }
}

/// The next hop that the kernel's answer comes to; `kind`, if the neighbour is known. The epoch is filled in by the caller; 0 says
/// that the answer must not be kept.
#[inline(always)]
fn hop(params: &FibParams, code: u32, kind: u8) -> NextHop {
    // SAFETY: every bit pattern is a value of this member.
    let mtu = unsafe { params.__bindgen_anon_1.mtu_result };
    let mtu = if mtu <= 1 { u16::MAX } else { mtu };
    let mut hop = NextHop { ifindex: params.ifindex, mtu, epoch: 1, ..NextHop::default() };
    match code {
        // Older kernels report success for a neighbour that is being asked for, with no address
        // (before 1fe4850b34ab).
        BPF_FIB_LKUP_RET_SUCCESS if params.dmac == [0; 6] => {
            hop.kind = HOP_NEIGHBOUR;
            hop.epoch = 0;
        }
        BPF_FIB_LKUP_RET_SUCCESS if kind == HOP_NEIGHBOUR => hop.kind = HOP_NEIGHBOUR,
        BPF_FIB_LKUP_RET_SUCCESS => {
            hop.kind = kind;
            hop.dst_mac = params.dmac;
            hop.src_mac = params.smac;
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => {
            hop.kind = HOP_NEIGHBOUR;
            hop.epoch = 0;
        }
        // The address is one of the node's own.
        BPF_FIB_LKUP_RET_NOT_FWDED => hop.kind = HOP_STACK,
        _ => {
            hop.kind = HOP_UNRESOLVED;
            hop.epoch = 0;
        }
    }
    hop
}
