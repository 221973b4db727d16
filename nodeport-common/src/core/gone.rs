//! A packet of a flow whose backend is gone, and that opens no other one.
//!
//! A client that does not know yet that its connection is over is told so by a reset, as often as it
//! asks: the flow stays for that, as long as it would have with its backend, or as one that is
//! doubted once its client was told. What the backend still sends has nowhere to go: with the
//! addresses that it has, its client would not know it.

use super::env::{Hook, Packet, Step, World};
use super::family::Family;
use super::flow::direction;
use super::reset;
use super::state::{Direction, RST};
use super::table::handle::Handle;
use super::track::Partner;
use super::verdict::Verdict;
use super::walk;
use super::work::Work;
use crate::abi::{FLOW_PROVED, FlowState, Reason};

/// Decides on a packet of `work.flow`: the backend's, or a TCP segment of the client's.
#[inline(never)]
pub fn answer<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
    partner: Partner,
) -> Verdict {
    if direction(&work.flow) == Direction::Reply {
        return hold_back::<F, W>(world, work);
    }
    if work.parsed.tcp_flags & RST != 0 {
        // It knows already.
        world.count(Reason::StaleBackend);
        note::<F, W>(world, work, None);
        return Verdict::DROP;
    }
    doubt::<F, W>(world, work, partner);
    world.count(Reason::ConnectionReset);
    reset::send::<F, P, W>(packet, world, work)
}

/// The backend's packet. To the node's own address, the node's stack refuses it; to the client's, it
/// must not get there as it is.
#[inline(always)]
fn hold_back<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>) -> Verdict {
    if matches!(W::HOOK, Hook::Xdp | Hook::Ingress) {
        walk::count_passed::<F, W>(world, Reason::StaleBackend);
        return Verdict::PASS;
    }
    world.count(Reason::StaleBackend);
    note::<F, W>(world, work, None);
    Verdict::DROP
}

/// From now on the flow is one that ends when it has been silent for a while. Who has not proved itself
/// does not by this.
#[inline(always)]
fn doubt<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>, partner: Partner) {
    let has_proved = work.flow.flags & FLOW_PROVED != 0;
    note::<F, W>(world, work, has_proved.then_some(FlowState::Doubted));
    if has_proved && partner == Partner::There {
        world.merge_flow(Handle::of(&work.other), FlowState::Doubted);
    }
}

/// Counts the packet.
#[inline(always)]
fn note<F: Family, W: World<F>>(world: &W, work: &Work<F::Addr>, state: Option<FlowState>) {
    let step = Step { now: world.now(), bytes: work.parsed.total as u32, hop: None, state };
    // That the flow has ended meanwhile changes nothing.
    let _ = world.step_flow(Handle::of(&work.flow), step);
}
