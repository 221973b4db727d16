//! The entry points.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use nodeport_common::core::walk::walk;

use super::fill;
use super::fresh::{key4, key6, next_flow, write4, write6};
use crate::env::{INGRESS, Kernel, XDP};
use crate::maps;
use crate::packet::skb::Skb;
use crate::packet::xdp::Frame;
use crate::verdict;

macro_rules! programs {
    ($key:ident, $write:ident, $flows:ident, $fill:ident,
     $fill_name:ident, $fresh_xdp:ident, $fresh_tc:ident, $lookup_xdp:ident, $lookup_tc:ident,
     $walk_xdp:ident, $walk_tc:ident) => {
        /// Stores the next flow.
        #[xdp]
        pub(crate) fn $fill_name(_: XdpContext) -> u32 {
            let number = next_flow();
            // SAFETY: the helper takes nothing and only reads the clock.
            let now = unsafe { bpf_jiffies64() as u32 };
            done(fill::$fill(&$key(number), number, now).is_some())
        }

        /// The fresh packet alone.
        #[xdp]
        pub(crate) fn $fresh_xdp(context: XdpContext) -> u32 {
            done($write(&mut Frame(context.ctx), &$key(next_flow())))
        }

        /// The fresh packet alone.
        #[classifier]
        pub(crate) fn $fresh_tc(context: TcContext) -> i32 {
            tc_done($write(&mut Skb(context.skb.skb), &$key(next_flow())))
        }

        /// The fresh packet and one look-up in the table of flows.
        #[xdp]
        pub(crate) fn $lookup_xdp(context: XdpContext) -> u32 {
            let key = $key(next_flow());
            done($write(&mut Frame(context.ctx), &key) && maps::$flows.get_ptr(&key).is_some())
        }

        /// The fresh packet and one look-up in the table of flows.
        #[classifier]
        pub(crate) fn $lookup_tc(context: TcContext) -> i32 {
            let key = $key(next_flow());
            let written = $write(&mut Skb(context.skb.skb), &key);
            tc_done(written && maps::$flows.get_ptr(&key).is_some())
        }

        /// The fresh packet and the whole walk.
        #[xdp(frags)]
        pub(crate) fn $walk_xdp(context: XdpContext) -> u32 {
            let mut frame = Frame(context.ctx);
            if !$write(&mut frame, &$key(next_flow())) {
                return XDP_ABORTED;
            }
            let kernel = Kernel::<Frame, XDP> { context: frame };
            verdict::xdp(frame, walk(&mut frame, &kernel))
        }

        /// The fresh packet and the whole walk.
        #[classifier]
        pub(crate) fn $walk_tc(context: TcContext) -> i32 {
            let mut skb = Skb(context.skb.skb);
            if !$write(&mut skb, &$key(next_flow())) {
                return TC_ACT_SHOT as i32;
            }
            let kernel = Kernel::<Skb, INGRESS> { context: skb };
            verdict::tc(skb, &kernel, walk(&mut skb, &kernel))
        }
    };
}

programs!(
    key4,
    write4,
    FLOWS4,
    flow4,
    fill4,
    fresh4_xdp,
    fresh4_tc,
    lookup4_xdp,
    lookup4_tc,
    walk4_xdp,
    walk4_tc
);
programs!(
    key6,
    write6,
    FLOWS6,
    flow6,
    fill6,
    fresh6_xdp,
    fresh6_tc,
    lookup6_xdp,
    lookup6_tc,
    walk6_xdp,
    walk6_tc
);

/// Writes the settings.
#[xdp]
pub(crate) fn settings(_: XdpContext) -> u32 {
    done(fill::settings().is_some())
}

/// Nothing at all.
#[xdp]
pub(crate) fn empty_xdp(_: XdpContext) -> u32 {
    XDP_TX
}

/// Nothing at all.
#[classifier]
pub(crate) fn empty_tc(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[inline(always)]
fn done(well: bool) -> u32 {
    if well { XDP_TX } else { XDP_ABORTED }
}

#[inline(always)]
fn tc_done(well: bool) -> i32 {
    if well { TC_ACT_UNSPEC } else { TC_ACT_SHOT as i32 }
}
