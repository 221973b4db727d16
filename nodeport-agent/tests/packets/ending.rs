//! Flows ended by the program that the agent runs for it.

use std::thread;
use std::time::Duration;

use nodeport_common::abi::{IPPROTO_TCP, IPPROTO_UDP, SWEEP_ANY_USED};
use nodeport_common::core::env::Hook;
use nodeport_common::core::expiry::Limits;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::frames::{Draft, Net, tcp, udp};

use crate::kernel::Kernel;
use crate::state::*;
use crate::step::Twins;
use crate::table::ENTRIES;
use crate::trials::Trials;

/// The tests.
pub(crate) fn add(trials: &mut Trials) {
    trials.add("ending::ipv4::those_over_end", those_over_end::<V4>);
    trials.add("ending::ipv6::those_over_end", those_over_end::<V6>);
    trials.add("ending::ipv4::those_without_backend_end", those_without_backend_end::<V4>);
    trials.add("ending::ipv6::those_without_backend_end", those_without_backend_end::<V6>);
    trials.add("ending::ipv4::old_ways_are_forgotten", old_ways_are_forgotten::<V4>);
    trials.add("ending::ipv6::old_ways_are_forgotten", old_ways_are_forgotten::<V6>);
}

/// Longer than any test takes.
pub(crate) const LONG: u32 = 1 << 30;

fn those_over_end<F: Net>(twins: &mut Twins) {
    let kernel = twins.kernel();
    let walk = |draft: Draft| {
        kernel.run(Hook::Xdp, &draft.build(), 0).expect("the kernel takes the frame");
    };
    walk(tcp(client::<F>(), frontend::<F>(REMOTE), SYN));
    walk(tcp(backend::<F>(REMOTE), snat::<F>(8), SYN | ACK));
    walk(tcp(client::<F>(), frontend::<F>(REMOTE), ACK));
    walk(udp(client::<F>(), frontend::<F>(OTHER)));
    assert_eq!(kernel.flows::<F>().len(), 4);
    // Some ticks of the clock, whatever its rate.
    thread::sleep(Duration::from_millis(50));

    let sweep = |tcp, udp| {
        let ended = kernel.sweep::<F>(0, ENTRIES, limits(tcp, udp));
        let audit = kernel.table::<F>().audit(ENTRIES);
        assert_eq!(audit.stray, 0);
        (ended, audit.live)
    };
    assert_eq!(sweep(LONG, LONG), (0, 4));
    // A part of the table in which none of them lies, and one beyond its end.
    assert_eq!(kernel.sweep::<F>(4, ENTRIES, limits(0, 0)), 0);
    assert_eq!(kernel.sweep::<F>(ENTRIES, 1, limits(0, 0)), 0);
    assert_eq!(kernel.sweep::<F>(u32::MAX, 1, limits(0, 0)), 0);
    // Less than a request, and one of no family.
    assert_eq!(kernel.sweep_with(&[F::VERSION; 39]), 0);
    assert_eq!(kernel.sweep_with(&[0; 40]), 0);
    // Only the limit of datagrams is over.
    assert_eq!(sweep(LONG, 0), (1, 2));
    assert_eq!(sweep(0, 0), (1, 0));
    // Where halves lie or lay, and where none ever did.
    assert_eq!(kernel.sweep_and_tell::<F>(0, 4, limits(0, 0)), SWEEP_ANY_USED);
    assert_eq!(kernel.sweep_and_tell::<F>(4, 4, limits(0, 0)), 0);
}

/// Flows whose backend is gone end, however young they are; connections wait for their clients.
fn those_without_backend_end<F: Net>(twins: &mut Twins) {
    let walk = |twins: &Twins, draft: Draft| {
        twins.kernel().run(Hook::Xdp, &draft.build(), 0).expect("the kernel takes the frame");
    };
    walk(twins, tcp(client::<F>(), frontend::<F>(REMOTE), SYN));
    walk(twins, udp(client::<F>(), frontend::<F>(REMOTE)));
    walk(twins, udp(client::<F>(), frontend::<F>(OTHER)));
    let mut state = State::new();
    state.v4.backends[REMOTE as usize].generation += 1;
    state.v6.backends[REMOTE as usize].generation += 1;
    twins.write(state);
    let kernel = twins.kernel();
    assert_eq!(kernel.sweep::<F>(0, ENTRIES, limits(LONG, LONG)), 1);
    let flows = kernel.flows::<F>();
    let mut left: Vec<_> = flows.iter().map(|(key, flow)| (key.protocol, flow.backend)).collect();
    left.sort_unstable();
    let (tcp, udp) = ((IPPROTO_TCP, REMOTE), (IPPROTO_UDP, OTHER));
    assert_eq!(left, [tcp, tcp, udp, udp]);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(kernel.sweep::<F>(0, ENTRIES, limits(0, LONG)), 1);
}

/// What flows know of a way that has changed since is forgotten, so that no part of an epoch can
/// come again.
fn old_ways_are_forgotten<F: Net>(twins: &mut Twins) {
    let frame = tcp(client::<F>(), frontend::<F>(REMOTE), SYN).build();
    twins.kernel().run(Hook::Xdp, &frame, 0).expect("the kernel takes the frame");
    let epochs = |kernel: &Kernel| -> Vec<u16> {
        kernel.flows::<F>().into_values().map(|flow| flow.hop.epoch).collect()
    };
    let sweep = |kernel: &Kernel| kernel.sweep::<F>(0, ENTRIES, limits(LONG, LONG));
    sweep(twins.kernel());
    assert!(epochs(twins.kernel()).contains(&1));
    let mut state = State::new();
    state.control.epoch += 1;
    twins.write(state);
    sweep(twins.kernel());
    assert_eq!(epochs(twins.kernel()), [0, 0]);
}

pub(crate) fn limits(tcp: u32, udp: u32) -> Limits {
    Limits {
        tcp,
        tcp_answered: tcp,
        tcp_opening: tcp,
        tcp_closed: tcp,
        tcp_doubted: tcp,
        udp,
        udp_opening: udp,
    }
}
