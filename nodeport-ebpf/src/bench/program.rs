//! The entry points.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::walk::{quick, thorough};

use super::fill;
use super::fresh::{key4, key6, next_flow, write4, write6};
use crate::env::{INGRESS, Kernel, XDP};
use crate::maps;
use crate::packet::skb::Skb;
use crate::packet::xdp::Frame;
use crate::verdict;

macro_rules! programs {
    ($key:ident, $write:ident, $flows:ident, $fill:ty,
     $fill_name:ident, $forget:ident, $fresh_xdp:ident, $fresh_tc:ident, $lookup_xdp:ident, $lookup_tc:ident,
     $walk_xdp:ident, $walk_tc:ident) => {
        /// Stores the next flow.
        #[xdp]
        pub(crate) fn $fill_name(_: XdpContext) -> u32 {
            let number = next_flow();
            // SAFETY: the helper takes nothing and only reads the clock.
            let now = unsafe { bpf_jiffies64() as u32 };
            done(fill::flow::<$fill>(&$key(number), number, now).is_some())
        }

        /// Forgets what lies in the next entry and the next line of the index; all of them, if it
        /// is run as often as there are entries.
        #[xdp]
        pub(crate) fn $forget(_: XdpContext) -> u32 {
            done(fill::forget::<$fill>(next_flow()).is_some())
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

        /// The fresh packet and one look-up in the kernel's hash map.
        #[xdp]
        pub(crate) fn $lookup_xdp(context: XdpContext) -> u32 {
            let key = $key(next_flow());
            done($write(&mut Frame(context.ctx), &key) && fill::$flows.get_ptr(&key).is_some())
        }

        /// The fresh packet and one look-up in the kernel's hash map.
        #[classifier]
        pub(crate) fn $lookup_tc(context: TcContext) -> i32 {
            let key = $key(next_flow());
            let written = $write(&mut Skb(context.skb.skb), &key);
            tc_done(written && fill::$flows.get_ptr(&key).is_some())
        }

        /// The fresh packet and the whole walk.
        #[xdp(frags)]
        pub(crate) fn $walk_xdp(context: XdpContext) -> u32 {
            let mut frame = Frame(context.ctx);
            if !$write(&mut frame, &$key(next_flow())) {
                return XDP_ABORTED;
            }
            let kernel = Kernel::<Frame, XDP> { context: frame };
            if let Some(verdict) = quick(&mut frame, &kernel) {
                return verdict::xdp(frame, verdict);
            }
            // SAFETY: nothing waits to be dropped.
            unsafe { maps::JUMP_XDP.tail_call(&context, 0) };
            XDP_ABORTED
        }

        /// The fresh packet and the whole walk.
        #[classifier]
        pub(crate) fn $walk_tc(context: TcContext) -> i32 {
            let mut skb = Skb(context.skb.skb);
            if !$write(&mut skb, &$key(next_flow())) {
                return TC_ACT_SHOT as i32;
            }
            let kernel = Kernel::<Skb, INGRESS> { context: skb };
            if let Some(verdict) = quick(&mut skb, &kernel) {
                return verdict::tc(skb, &kernel, verdict);
            }
            // SAFETY: nothing waits to be dropped.
            unsafe { maps::JUMP_INGRESS.tail_call(&context, 0) };
            TC_ACT_SHOT as i32
        }
    };
}

programs!(
    key4,
    write4,
    LOOKUP4,
    V4,
    fill4,
    forget4,
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
    LOOKUP6,
    V6,
    fill6,
    forget6,
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

/// What is not routine, as in the real programs.
#[xdp(frags)]
pub(crate) fn slow_xdp(context: XdpContext) -> u32 {
    let mut frame = Frame(context.ctx);
    let kernel = Kernel::<Frame, XDP> { context: frame };
    verdict::xdp(frame, thorough(&mut frame, &kernel))
}

/// The same in TC.
#[classifier]
pub(crate) fn slow_ingress(context: TcContext) -> i32 {
    let mut skb = Skb(context.skb.skb);
    let kernel = Kernel::<Skb, INGRESS> { context: skb };
    verdict::tc(skb, &kernel, thorough(&mut skb, &kernel))
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
