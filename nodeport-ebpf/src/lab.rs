//! For the lab: what the far end of a veth needs to take frames that XDP sends at the near end,
//! and VLAN tags without VLAN devices.
#![no_std]
#![no_main]

mod every;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, xdp_md};
use aya_ebpf::helpers::generated::bpf_skb_vlan_push;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::{TcContext, XdpContext};

/// Takes every frame.
#[xdp]
pub(crate) fn pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Takes no frame: the far end of a link on which only the near end is measured. The driver counts.
#[unsafe(no_mangle)]
#[unsafe(link_section = "drop")]
extern "C" fn drop_frames(_: *mut xdp_md) -> i32 {
    XDP_DROP as i32
}

/// Tags TCP and UDP with a priority alone; what finds neighbours stays as it is.
#[unsafe(no_mangle)]
#[unsafe(link_section = "priority")]
extern "C" fn tag_with_priority(skb: *mut __sk_buff) -> i32 {
    tag(TcContext::new(skb), 5 << 13)
}

/// Tags TCP and UDP with a VLAN.
#[unsafe(no_mangle)]
#[unsafe(link_section = "vlan")]
extern "C" fn tag_with_vlan(skb: *mut __sk_buff) -> i32 {
    tag(TcContext::new(skb), 100)
}

#[inline(always)]
fn tag(context: TcContext, tag: u16) -> i32 {
    let at = match u16::from_be(context.load::<u16>(12).unwrap_or(0)) {
        0x0800 => 14 + 9,
        0x86dd => 14 + 6,
        _ => return TC_ACT_OK as i32,
    };
    if matches!(context.load::<u8>(at), Ok(6 | 17)) {
        // SAFETY: the context is the program's own. A frame that stays untagged fails the test.
        let _ = unsafe { bpf_skb_vlan_push(context.skb.skb, 0x8100_u16.to_be(), tag) };
    }
    TC_ACT_OK as i32
}
