//! Flows ended by the program that the agent runs for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use nodeport_common::abi::{ExpireRequest, FlowKey, IPPROTO_TCP, IPPROTO_UDP};
use nodeport_common::core::env::{Hook, Table};
use nodeport_common::core::expiry::Limits;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::frames::{Net, key, tcp, udp};

use crate::kernel::Kernel;
use crate::state::*;
use crate::step::Twins;

/// The tests.
pub(crate) fn trials(twins: &Option<Arc<Mutex<Twins>>>) -> Vec<Trial> {
    let trial = |name: &str, run: fn(&Kernel)| {
        let twins = twins.clone();
        let skipped = twins.is_none();
        let run = move || {
            if let Some(twins) = twins {
                let mut twins = twins.lock().unwrap_or_else(PoisonError::into_inner);
                twins.reset(State::new());
                run(twins.kernel());
            }
            Ok(())
        };
        Trial::test(format!("ending::{name}"), run).with_ignored_flag(skipped)
    };
    vec![
        trial("ipv4::those_over_end", those_over_end::<V4>),
        trial("ipv6::those_over_end", those_over_end::<V6>),
    ]
}

/// Longer than any test takes.
const LONG: u32 = 1 << 30;

fn those_over_end<F: Net>(kernel: &Kernel) {
    let walk = |draft: nodeport_common::frames::Draft| {
        kernel.run(Hook::Xdp, &draft.build(), 0).expect("the kernel takes the frame");
    };
    walk(tcp(client::<F>(), frontend::<F>(REMOTE), SYN));
    walk(tcp(backend::<F>(REMOTE), snat::<F>(8), SYN | ACK));
    walk(tcp(client::<F>(), frontend::<F>(REMOTE), ACK));
    walk(udp(client::<F>(), frontend::<F>(OTHER)));
    assert_eq!(count::<F>(kernel), (2, 2));
    let connection = key::<F>(IPPROTO_TCP, client::<F>(), frontend::<F>(REMOTE));
    let datagrams = key::<F>(IPPROTO_UDP, backend::<F>(OTHER), snat::<F>(8));
    let nobody = key::<F>(IPPROTO_UDP, client::<F>(), frontend::<F>(REMOTE));
    // Some ticks of the clock, whatever its rate.
    thread::sleep(Duration::from_millis(50));

    let all = [nobody, connection, datagrams];
    assert_eq!(kernel.expire(&request::<F>(&all, limits(LONG, LONG))), 0);
    assert_eq!(count::<F>(kernel), (2, 2));
    // Only the limit of datagrams is over.
    assert_eq!(kernel.expire(&request::<F>(&all, limits(LONG, 0))), 1);
    assert_eq!(count::<F>(kernel), (2, 0));
    assert_eq!(kernel.expire(&request::<F>(&all, limits(0, 0))), 1);
    assert_eq!(count::<F>(kernel), (0, 0));
    // More keys than the request has.
    let mut short = request::<F>(&all, limits(0, 0));
    short.truncate(short.len() - 1);
    assert_eq!(kernel.expire(&short), 0);
}

/// Halves among the established, and newcomers.
fn count<F: Net>(kernel: &Kernel) -> (usize, usize) {
    (kernel.flows::<F>(Table::Flows).len(), kernel.flows::<F>(Table::Nursery).len())
}

fn limits(tcp: u32, udp: u32) -> Limits {
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

fn request<F: Net>(keys: &[FlowKey<F::Addr>], limits: Limits) -> Vec<u8> {
    let (family, count) = (u32::from(F::VERSION), keys.len() as u32);
    let head = ExpireRequest { family, count, limits, pad: 0 };
    let mut bytes = crate::kernel::bytes_of(&head);
    for key in keys {
        bytes.extend(crate::kernel::bytes_of(key));
    }
    bytes
}
