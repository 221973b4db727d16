//! Both directions of the same flows at once, on two processors. What comes of each packet depends
//! on the moment; what the flows are in the end must not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nodeport_common::abi::{Flow, FlowKey, FlowState};
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::flow::partner_key;
use nodeport_common::core::state::{ACK, FIN, RST, SYN, merge};
use nodeport_common::frames::{Net, View, tcp};

use crate::kernel::Kernel;
use crate::state::*;
use crate::table::ENTRIES;
use crate::trials::Trials;

/// Connections of a test.
const CLIENTS: u16 = 2_000;
/// Port of the first client.
const FIRST: u16 = 10_000;

/// The tests.
pub(crate) fn add(trials: &mut Trials) {
    trials.on_kernel("race::ipv4::handshakes", handshakes::<V4>);
    trials.on_kernel("race::ipv6::handshakes", handshakes::<V6>);
    trials.on_kernel("race::ipv4::ends", ends::<V4>);
    trials.on_kernel("race::ipv6::ends", ends::<V6>);
    trials.on_kernel("race::ipv4::renewals", renewals::<V4>);
    trials.on_kernel("race::ipv6::renewals", renewals::<V6>);
}

/// A client's packet; returns where it went.
fn forward<F: Net>(kernel: &Kernel, number: u16, flags: u8) -> SocketAddr {
    let client = SocketAddr::new(client::<F>().ip(), FIRST + number);
    let frame = tcp(client, frontend::<F>(LOCAL), flags).build();
    let ran = kernel.run(Hook::Ingress, &frame, 0).expect("the kernel takes the frame");
    View::new(&ran.bytes).expect("a frame").dst
}

/// The backend's packet to that client; returns whom it seems to be from.
fn reply<F: Net>(kernel: &Kernel, number: u16, flags: u8) -> SocketAddr {
    let client = SocketAddr::new(client::<F>().ip(), FIRST + number);
    let frame = tcp(backend::<F>(LOCAL), client, flags).build();
    let ran = kernel.run(Hook::Egress, &frame, 0).expect("the kernel takes the frame");
    View::new(&ran.bytes).expect("a frame").src
}

/// For each client, runs `first`, then both others at the same time.
fn at_once(first: impl Fn(u16) + Sync, one: impl Fn(u16) + Sync, other: impl Fn(u16) + Sync) {
    let together = Spin::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..CLIENTS {
                first(number);
                together.wait();
                one(number);
                together.wait();
            }
        });
        for number in 0..CLIENTS {
            together.wait();
            other(number);
            together.wait();
        }
    });
}

/// A SYN and an ACK come again while the backend answers: every connection works afterwards, and
/// every flow is in one table, whole.
fn handshakes<F: Net>(kernel: &Kernel) {
    let client = |number, flags: &[u8]| {
        for flags in flags {
            forward::<F>(kernel, number, *flags);
        }
    };
    at_once(
        |number| client(number, &[SYN]),
        |number| client(number, &[SYN, ACK, ACK]),
        |number| {
            for flags in [SYN | ACK, SYN | ACK, ACK] {
                reply::<F>(kernel, number, flags);
            }
        },
    );
    for number in 0..CLIENTS {
        assert_eq!(forward::<F>(kernel, number, SYN), backend::<F>(LOCAL));
        assert_eq!(reply::<F>(kernel, number, SYN | ACK), frontend::<F>(LOCAL));
        assert_eq!(forward::<F>(kernel, number, ACK), backend::<F>(LOCAL));
        assert_eq!(reply::<F>(kernel, number, ACK), frontend::<F>(LOCAL));
    }
    let live = kernel.table::<F>().audit(ENTRIES).live;
    assert_eq!(live, 2 * usize::from(CLIENTS), "both halves of all are there");
    assert_eq!(
        states::<F>(kernel),
        BTreeMap::from([(FlowState::Established as u8, usize::from(CLIENTS))])
    );
}

/// Client and backend close in the same instant: the flow is closed, not half open for hours.
fn ends<F: Net>(kernel: &Kernel) {
    at_once(
        |number| {
            forward::<F>(kernel, number, SYN);
            reply::<F>(kernel, number, SYN | ACK);
            forward::<F>(kernel, number, ACK);
        },
        |number| {
            forward::<F>(kernel, number, FIN | ACK);
        },
        |number| {
            reply::<F>(kernel, number, FIN | ACK);
        },
    );
    let states = states::<F>(kernel);
    let closed = states.get(&(FlowState::Closed as u8)).copied().unwrap_or(0);
    // Between the read and the write of a state lie some nanoseconds.
    assert!(closed >= usize::from(CLIENTS) * 90 / 100, "{states:?}");
}

/// The client resets its connection and begins anew on its port while the backend closes the old one:
/// whenever its FIN comes, the new flow has only begun.
fn renewals<F: Net>(kernel: &Kernel) {
    at_once(
        |number| {
            forward::<F>(kernel, number, SYN);
            reply::<F>(kernel, number, SYN | ACK);
            forward::<F>(kernel, number, ACK);
            forward::<F>(kernel, number, RST);
        },
        |number| {
            forward::<F>(kernel, number, SYN);
        },
        |number| {
            reply::<F>(kernel, number, FIN | ACK);
        },
    );
    let flows = kernel.flows::<F>();
    let is_clients = |key: &FlowKey<F::Addr>| key.src == F::bytes(client::<F>().ip());
    let mut clients = 0;
    for (key, flow) in flows.iter().filter(|(key, _)| is_clients(key)) {
        assert_eq!(FlowState::from_u8(flow.state), FlowState::Opening, "{key:?}");
        clients += 1;
    }
    // Where the answer finds its half alone, it makes the client's anew: that SYN has to come again.
    assert!(clients >= usize::from(CLIENTS) * 90 / 100, "{clients} have begun anew");
    kernel.table::<F>().audit(ENTRIES);
}

/// How many flows are in each state, by what both halves together say. Both must be there.
fn states<F: Net>(kernel: &Kernel) -> BTreeMap<u8, usize> {
    let flows = kernel.flows::<F>();
    let mut states = BTreeMap::new();
    for (key, flow) in &flows {
        let partner = partner_of::<F>(&flows, key, flow);
        if key.src == F::bytes(client::<F>().ip()) {
            let (a, b) = (FlowState::from_u8(flow.state), FlowState::from_u8(partner.state));
            *states.entry(merge(a, b) as u8).or_default() += 1;
        }
    }
    states
}

fn partner_of<'a, F: Net>(
    flows: &'a BTreeMap<FlowKey<F::Addr>, Flow<F::Addr>>,
    key: &FlowKey<F::Addr>,
    flow: &Flow<F::Addr>,
) -> &'a Flow<F::Addr> {
    flows.get(&partner_key(key, flow)).unwrap_or_else(|| panic!("{key:?} has no partner"))
}

/// Two threads that wait for each other, without sleeping if they can.
#[derive(Default)]
struct Spin(AtomicU32);

impl Spin {
    fn wait(&self) {
        let mine = self.0.fetch_add(1, Ordering::AcqRel);
        let all_here = || self.0.load(Ordering::Acquire) > (mine | 1);
        // On a machine that is busy the other one may not even run.
        while !all_here()
            && !(0..1_000).any(|_| {
                std::hint::spin_loop();
                all_here()
            })
        {
            thread::yield_now();
        }
    }
}
