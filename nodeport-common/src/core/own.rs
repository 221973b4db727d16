//! The node's own connections from ports of the SNAT range: of its sockets, and of those that its rules
//! masquerade.
//!
//! The kernel does not know of our flows' ports, nor we of its. A connection of its own towards a backend
//! that knows a flow of ours by the same port would get that flow's answers, and the flow its. So the
//! first packet of such a connection makes a flow as well, where it leaves the node: its port is taken
//! from then on, and if it was taken before, the backend sees another.

use super::env::{Packet, World};
use super::family::Family;
use super::flow::{self, Opening};
use super::open::{insert_forward, refuse};
use super::snat;
use super::state::may_open;
use super::verdict::Verdict;
use super::walk;
use super::work::Work;
use crate::abi::{
    FLOW_HOST, FLOW_LOCAL, FlowKey, Frontend, HOP_STACK, NextHop, PORT_BACKEND, PORT_SNAT, Reason,
};

/// Index and generation of nobody's backend: no index 0 is given out, so none ends these flows.
const NOBODY: (u32, u32) = (0, 0);
/// The service port that none has.
const NO_SERVICE: u32 = 0;

/// Whether a packet with that key, which leaves the node, may open such a flow.
#[inline(always)]
pub fn may_be<F: Family, W: World<F>>(world: &W, key: &FlowKey<F::Addr>) -> bool {
    let bits = |port| world.port_bits(u16::from_be_bytes(port));
    bits(key.ports.src) & PORT_SNAT != 0 && bits(key.ports.dst) & PORT_BACKEND != 0
}

/// Opens a flow if the packet begins such a connection. It goes on its way, unless its port is one of our
/// flows' and there is no other, or another processor opens the same flow.
#[inline(always)]
pub fn open<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &mut Work<F::Addr>,
) -> Verdict {
    if !may_open(work.key.protocol, work.parsed.tcp_flags) || !may_be::<F, W>(world, &work.key) {
        return Verdict::PASS;
    }
    // What the node only routes has another source, and its answers another destination than ours.
    if !world.is_node_address(&work.key.src) {
        return Verdict::PASS;
    }
    make_forward::<F, W>(world, work);
    match snat::claim::<F, W>(world, work).and_then(|()| insert_forward::<F, W>(world, work)) {
        Ok(()) => deliver::<F, P, W>(packet, world, work),
        // Without room in the table the node's own connections go on, as they would without us.
        Err(Reason::TableFull) => {
            world.count(Reason::TableFull);
            Verdict::PASS
        }
        Err(reason) => refuse::<F, W>(world, NO_SERVICE, reason),
    }
}

/// In a function of its own, whose stack is free again before the claim and behind it.
#[inline(never)]
fn deliver<F: Family, P: Packet, W: World<F>>(
    packet: &mut P,
    world: &W,
    work: &Work<F::Addr>,
) -> Verdict {
    walk::deliver::<F, P, W>(packet, world, &work.parsed, &work.flow, Verdict::STACK)
}

#[inline(never)]
fn make_forward<F: Family, W: World<F>>(world: &W, work: &mut Work<F::Addr>) {
    let opening = Opening {
        new_src: work.key.src,
        new_dst: work.key.dst,
        new_ports: work.key.ports,
        backend: NOBODY,
        service: NO_SERVICE,
        flags: FLOW_LOCAL | FLOW_HOST,
    };
    flow::open::<F>(&work.key, &opening, world.now(), &mut work.flow);
    work.flow.bytes = work.parsed.total as u64;
    // None is opened: what the last flow on this processor had is not this one's.
    work.frontend = Frontend::default();
    let epoch = work.control.hop_epoch();
    work.flow.hop = NextHop { kind: HOP_STACK, epoch, ..NextHop::UNRESOLVED };
}
