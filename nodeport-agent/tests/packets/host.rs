//! The core on the host.

use nodeport_common::abi::Device;
use nodeport_common::core::env::Hook;
use nodeport_common::core::host::{OnHost, SkbFrame, World, XdpFrame};
use nodeport_common::core::verdict::Action;

use crate::network::OUT;
use crate::state::{Side, State};

/// Fills a world's maps.
pub(crate) fn fill(world: &World, state: &State) {
    world.control.set(Some(state.control));
    world.slots.borrow_mut().clone_from(&state.slots);
    let below = |(index, device): (&u32, &Device)| (*index, (device.lower, device.tags));
    let vlans = state.devices.iter().filter(|(_, device)| device.lower != 0);
    *world.below.borrow_mut() = vlans.map(below).collect();
    for (port, bits) in &state.ports {
        world.mark_port(*port, *bits);
    }
    fill_side::<nodeport_common::core::family::V4>(world, &state.v4, state.control.hop_epoch());
    fill_side::<nodeport_common::core::family::V6>(world, &state.v6, state.control.hop_epoch());
}

fn fill_side<F: OnHost>(world: &World, side: &Side<F::Addr>, epoch: u16) {
    let maps = F::maps(world);
    maps.frontends.borrow_mut().clone_from(&side.frontends);
    maps.ranges.borrow_mut().clone_from(&side.ranges);
    maps.backends.borrow_mut().clone_from(&side.backends);
    *maps.addresses.borrow_mut() = side.addresses.iter().copied().collect();
    let mut routes = side.routes.clone();
    for answer in routes.values_mut() {
        answer.hop.epoch *= epoch;
    }
    *maps.routes.borrow_mut() = routes;
}

/// Walks a frame as one that arrives on, or leaves from, the outer interface.
pub(crate) fn run(world: &World, hook: Hook, frame: &[u8], gso_size: u16) -> (Action, Vec<u8>) {
    let bytes = frame.to_vec();
    if hook == Hook::Xdp {
        let mut frame = XdpFrame::new(bytes);
        let action = world.xdp(OUT, &mut frame).action();
        assert_eq!(frame.done, action == Action::Stack, "what is done says so");
        return (action, frame.bytes);
    }
    let mut frame = SkbFrame { gso_size, ..SkbFrame::new(bytes) };
    let verdict = match hook {
        Hook::Egress => world.egress(OUT, &mut frame),
        Hook::Pod => world.pod(OUT, &mut frame),
        _ => world.ingress(OUT, &mut frame),
    };
    (verdict.action(), frame.bytes)
}
