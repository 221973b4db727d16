//! A packet for a service that has no backend for it: refused, or dropped.
//!
//! Refused where no endpoint could answer, wherever it is; dropped where endpoints exist that traffic
//! from here may not go to (kube-proxy's rule, `pkg/proxy/topology.go`: `hasAnyEndpoints`).

use super::env::{Packet, World};
use super::family::Family;
use super::icmp_reply::{self, Problem};
use super::reset;
use super::verdict::Verdict;
use super::work::Work;
use crate::abi::{FRONTEND_DROPS, IPPROTO_TCP, NO_BACKEND_DROPS, NO_BACKEND_RESETS, Reason};

/// Decides on a packet that would have opened a flow to `work.frontend`.
#[inline(never)]
pub fn answer<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
) -> Verdict {
    world.service_stats(work.frontend.service, |stats| stats.no_backend += 1);
    if work.frontend.flags & FRONTEND_DROPS != 0 {
        world.count(Reason::NoLocalBackend);
        return Verdict::DROP;
    }
    if work.control.no_backend == NO_BACKEND_DROPS {
        world.count(Reason::NoBackend);
        return Verdict::DROP;
    }
    if work.control.no_backend == NO_BACKEND_RESETS && work.key.protocol == IPPROTO_TCP {
        return reset::<F, P, W>(packet, world, work);
    }
    icmp_reply::send::<F, P, W>(packet, world, work, Problem::UNREACHABLE)
}

/// Resets it, within the same limits as ICMP errors: its source may be forged.
#[inline(always)]
fn reset<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
) -> Verdict {
    if !icmp_reply::is_in_budget::<F, W>(world, work, Problem::UNREACHABLE) {
        return Verdict::DROP;
    }
    world.count(Reason::NoBackend);
    reset::send::<F, P, W>(packet, world, work)
}
