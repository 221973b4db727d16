//! A packet for a service that has no backend for it: refused, or dropped.
//!
//! Refused where no endpoint could answer, wherever it is; dropped where endpoints exist that traffic
//! from here may not go to (kube-proxy's rule, `pkg/proxy/topology.go`: `hasAnyEndpoints`).

use super::env::{Hook, Packet, World};
use super::family::Family;
use super::icmp_reply::{self, Problem};
use super::verdict::Verdict;
use super::walk;
use super::work::Work;
use crate::abi::{FRONTEND_DROPS, IPPROTO_TCP, NO_BACKEND_DROPS, NO_BACKEND_RESETS, Reason};

/// Decides on a packet that would have opened a flow to `work.frontend`.
#[inline(never)]
pub fn answer<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
) -> Verdict {
    // Behind XDP sits TC, which sees it again.
    let left_to_stack = is_left_to_stack::<F, W>(world, work);
    if !left_to_stack || W::HOOK != Hook::Xdp {
        world.service_stats(work.frontend.service, |stats| stats.no_backend += 1);
    }
    if left_to_stack {
        walk::count_passed::<F, W>(world, Reason::NoBackend);
        return Verdict::PASS;
    }
    if work.frontend.flags & FRONTEND_DROPS != 0 {
        world.count(Reason::NoLocalBackend);
        return Verdict::DROP;
    }
    if work.control.no_backend == NO_BACKEND_DROPS {
        world.count(Reason::NoBackend);
        return Verdict::DROP;
    }
    icmp_reply::send::<F, P, W>(packet, world, work, Problem::UNREACHABLE)
}

/// Whether the node's own stack shall reset it.
#[inline(always)]
fn is_left_to_stack<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>) -> bool {
    work.control.no_backend == NO_BACKEND_RESETS
        && work.frontend.flags & FRONTEND_DROPS == 0
        && work.key.protocol == IPPROTO_TCP
        && world.is_node_address(&work.key.dst)
}
