//! A frame in XDP.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
};
use nodeport_common::core::env::{ChecksumChange, Packet, Room};

use super::{Bytes, bounds};
use crate::route::RouteContext;

/// What XDP writes before a frame that TC behind it shall leave alone: "done", as bytes.
pub(crate) const DONE: u32 = u32::from_ne_bytes(*b"done");

/// The context of an XDP program.
#[derive(Clone, Copy)]
pub(crate) struct Frame(pub(crate) *mut xdp_md);

impl RouteContext for Frame {
    #[inline(always)]
    fn pointer(&self) -> *mut c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel gave the context to the program that runs now.
        unsafe { (*self.0).ingress_ifindex }
    }
}

impl Frame {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: as in `ifindex`.
        unsafe { bounds(&raw const (*self.0).data, &raw const (*self.0).data_end) }
    }
}

impl Packet for Frame {
    type Window<'a, const N: usize> = Bytes<'a, N>;

    /// In XDP every checksum is finished.
    const OWN_CHECKSUM: bool = true;

    #[inline(always)]
    fn window<const N: usize>(&mut self, offset: usize) -> Option<Bytes<'_, N>> {
        let (data, end) = self.bounds();
        Bytes::new(data, end, offset)
    }

    #[inline(always)]
    fn gso_size(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn make_linear(&mut self, _: u32) {}

    #[inline(always)]
    fn replace_checksum(&mut self, _: usize, _: ChecksumChange) -> bool {
        false
    }

    #[inline(always)]
    fn add_to_sum(&mut self, _: u16) {}

    #[inline(always)]
    fn mark_done(&mut self) -> bool {
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_meta(self.0, -4) } != 0 {
            return false;
        }
        // SAFETY: as in `ifindex`.
        let (meta, data) = unsafe { ((*self.0).data_meta as usize, (*self.0).data as usize) };
        if meta + 4 > data {
            return false;
        }
        // SAFETY: the four bytes before the frame are ours, as just checked.
        unsafe { *(meta as *mut u32) = DONE };
        true
    }

    #[inline(always)]
    fn cut(&mut self, keep: usize) -> bool {
        // SAFETY: the context is the program's own.
        let length = unsafe { bpf_xdp_get_buff_len(self.0) } as i32;
        let cut = keep as i32 - length;
        // SAFETY: as above; the call checks what it is asked for.
        cut >= 0 || unsafe { bpf_xdp_adjust_tail(self.0, cut) } == 0
    }

    #[inline(always)]
    fn open_room(&mut self, _: usize, room: Room, keep: usize) -> bool {
        if !self.cut(keep) {
            return false;
        }
        // SAFETY: the context is the program's own; the call checks what it is asked for.
        if unsafe { bpf_xdp_adjust_head(self.0, -(room.bytes() as i32)) } != 0 {
            return false;
        }
        move_ethernet(self, room.bytes())
    }
}

/// Copies the Ethernet header with both its tags to the front. Where there are no tags, what is
/// copied behind it is overwritten with the new IP header.
#[inline(always)]
fn move_ethernet(frame: &mut Frame, from: usize) -> bool {
    use nodeport_common::core::env::Window;
    let (a, b, c) = match frame.window::<24>(from) {
        Some(old) => (old.load::<[u8; 16], 0>(), old.load::<u32, 16>(), old.load::<u16, 20>()),
        None => return false,
    };
    let Some(mut new) = frame.window::<24>(0) else { return false };
    new.store::<[u8; 16], 0>(a);
    new.store::<u32, 16>(b);
    new.store::<u16, 20>(c);
    true
}
