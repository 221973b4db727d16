//! A frame in TC.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR, bpf_adj_room_mode};
use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_pull_data, bpf_skb_vlan_pop,
};
use nodeport_common::core::checksum;
use nodeport_common::core::env::{ChecksumChange, Packet, Room, Window};

use super::{Bytes, bounds, xdp::DONE};
use crate::route::RouteContext;

/// `BPF_F_MARK_MANGLED_0`: a UDP checksum of zero stays, a computed zero becomes 0xffff.
const MARK_MANGLED_0: u64 = 1 << 5;

/// The bits of a tag that tell the VLAN; 0 is none (IEEE 802.1Q, 9.6).
const VLAN_ID: u32 = 0xfff;

/// `tc_index` of what we send, for our program where it leaves: a field that only old classifiers use.
const OURS: u32 = 0x6e70;

/// The context of a TC program.
#[derive(Clone, Copy)]
pub(crate) struct Skb(pub(crate) *mut __sk_buff);

impl RouteContext for Skb {
    #[inline(always)]
    fn pointer(&self) -> *mut c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel gave the context to the program that runs now.
        unsafe { (*self.0).ifindex }
    }
}

impl Skb {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: as in `ifindex`.
        unsafe { bounds(&raw const (*self.0).data, &raw const (*self.0).data_end) }
    }

    /// Whether the frame is of a VLAN: it is met on the VLAN's own device, if there is one, and
    /// else it is not for this node.
    #[inline(always)]
    pub(crate) fn is_of_vlan(&self) -> bool {
        // SAFETY: as in `ifindex`.
        let (present, tag) = unsafe { ((*self.0).vlan_present, (*self.0).vlan_tci) };
        present != 0 && tag & VLAN_ID != 0
    }

    /// Takes off a tag that says nothing but a priority, which the frame would leave with. False
    /// if that fails.
    #[inline(always)]
    pub(crate) fn take_tag_off(self) -> bool {
        // SAFETY: as in `ifindex`.
        let present = unsafe { (&raw const (*self.0).vlan_present).read_volatile() };
        // SAFETY: the context is the program's own; windows are not held across the call.
        present == 0 || unsafe { bpf_skb_vlan_pop(self.0) } == 0
    }

    /// Has the kernel take a difference into the checksum at `offset`. False if that fails.
    #[inline(always)]
    fn take_in(self, offset: usize, diff: u16, flags: u64) -> bool {
        // SAFETY: the context is the program's own; the helper checks the offset.
        unsafe { bpf_l4_csum_replace(self.0, offset as u32, 0, diff as u64, flags) == 0 }
    }

    /// Whether a program of ours at another hook sends it: it is not the node's own.
    #[inline(always)]
    pub(crate) fn is_ours(&self) -> bool {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.0).tc_index == OURS }
    }

    /// Notes that a program of ours sends it, or that none does.
    #[inline(always)]
    pub(crate) fn set_ours(self, is_ours: bool) {
        let index = if is_ours { OURS } else { 0 };
        // SAFETY: the context is the program's own, and this field may be written.
        unsafe { (&raw mut (*self.0).tc_index).write_volatile(index) };
    }

    /// Whether XDP before us has done all there was to do.
    #[inline(always)]
    pub(crate) fn is_done(&self) -> bool {
        // SAFETY: as in `ifindex`.
        let (meta, data) = unsafe { ((*self.0).data_meta as usize, (*self.0).data as usize) };
        // SAFETY: read only if the four bytes are there.
        meta + 4 <= data && unsafe { *(meta as *const u32) } == DONE
    }
}

impl Packet for Skb {
    type Window<'a, const N: usize> = Bytes<'a, N>;

    /// The network card may finish the checksum later.
    const OWN_CHECKSUM: bool = false;

    #[inline(always)]
    fn window<const N: usize>(&mut self, offset: usize) -> Option<Bytes<'_, N>> {
        let (data, end) = self.bounds();
        Bytes::new(data, end, offset)
    }

    #[inline(always)]
    fn gso_size(&self) -> u16 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.0).gso_size as u16 }
    }

    #[inline(always)]
    fn make_linear(&mut self, bytes: u32) {
        let (data, end) = self.bounds();
        // SAFETY: as in `ifindex`.
        let length = unsafe { (*self.0).len };
        let wanted = if length < bytes { length } else { bytes };
        if data + (wanted as usize) > end {
            // That it fails shows in the next window.
            // SAFETY: the context is the program's own; windows are not held across the call.
            let _ = unsafe { bpf_skb_pull_data(self.0, wanted) };
        }
    }

    #[inline(always)]
    fn replace_checksum(&mut self, offset: usize, change: ChecksumChange) -> bool {
        let udp = if change.udp { MARK_MANGLED_0 } else { 0 };
        if checksum::is_zero(change.address_diff) {
            return self.take_in(offset, change.port_diff, udp);
        }
        let Some(field) = self.window::<2>(offset) else { return false };
        let old = field.load::<u16, 0>();
        // In IPv6 the helper takes the addresses from the frame's sum, as if an IPv4 header made up
        // for them. BPF_F_IPV6 would stop it, but is too new (6.16, commit ead7f9b8de65).
        if !self.take_in(offset, change.address_diff, BPF_F_PSEUDO_HDR as u64 | udp) {
            return false;
        }
        let Some(mut field) = self.window::<2>(offset) else { return false };
        if let Some(new) = checksum::take_in_ports(old, field.load::<u16, 0>(), change) {
            field.store::<u16, 0>(new);
        }
        true
    }

    #[inline(always)]
    fn add_to_sum(&mut self, diff: u16) {
        // SAFETY: the context is the program's own. Without such a sum nothing happens.
        let _ = unsafe { bpf_csum_update(self.0, diff as u32) };
    }

    #[inline(always)]
    fn mark_done(&mut self) -> bool {
        true
    }

    #[inline(always)]
    fn cut(&mut self, keep: usize) -> bool {
        // SAFETY: as in `ifindex`.
        let length = unsafe { (*self.0).len };
        // SAFETY: the context is the program's own; the call checks what it is asked for.
        (keep as u32) >= length || unsafe { bpf_skb_change_tail(self.0, keep as u32, 0) } == 0
    }

    #[inline(always)]
    fn open_room(&mut self, _: usize, room: Room, keep: usize) -> bool {
        if !self.cut(keep) {
            return false;
        }
        let mode = bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
        // SAFETY: the context is the program's own; the call checks what it is asked for.
        if unsafe { bpf_skb_adjust_room(self.0, room.bytes() as i32, mode, 0) } != 0 {
            return false;
        }
        self.make_linear(256);
        true
    }
}
