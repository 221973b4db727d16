//! Every program at once on two processors, over few keys: flows are opened, answered, closed,
//! lost and swept while others do the same. The table must be whole afterwards.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use nodeport_common::abi::{
    FLOW_LOCAL, FLOW_REPLY, HOP_SEND, HOP_STACK, IPPROTO_TCP, IPPROTO_UDP, PORT_SNAT,
};
use nodeport_common::core::checksum;
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::flow::partner_key;
use nodeport_common::core::state::{ACK, FIN, RST, SYN};
use nodeport_common::frames::{Draft, Net, View, faults, key, tcp, udp};

use crate::ending::{LONG, limits};
use crate::kernel::Kernel;
use crate::network::{IN, OUT, ROUTER, mac, own_mac};
use crate::random::Random;
use crate::state::*;
use crate::step::Twins;
use crate::table::{ENTRIES, LINES};
use crate::trials::Trials;

/// Steps of all threads together in each test.
const STEPS: u64 = 200_000;
/// Threads on each processor.
const THREADS: usize = 2;
/// Clients, each with a flow of every kind.
const CLIENTS: u32 = 24;
/// Port of the first client.
const FIRST: u16 = 10_000;
/// Ports of the SNAT range: too few for all.
const SNATS: u16 = 12;

/// The tests.
pub(crate) fn add(trials: &mut Trials) {
    trials.add("stress::ipv4::with_room", |twins| stress::<V4>(twins, ENTRIES, LINES));
    trials.add("stress::ipv6::with_room", |twins| stress::<V6>(twins, ENTRIES, LINES));
    trials.add("stress::ipv4::few_lines", |twins| stress::<V4>(twins, 512, 4));
    trials.add("stress::ipv6::few_lines", |twins| stress::<V6>(twins, 512, 4));
    trials.add("stress::ipv4::few_entries", |twins| stress::<V4>(twins, 48, 16));
    trials.add("stress::ipv6::few_entries", |twins| stress::<V6>(twins, 48, 16));
}

fn state() -> State {
    let mut state = State::new();
    state.control.snat_count = SNATS;
    for port in SNAT..SNAT + SNATS {
        state.ports.insert(port, PORT_SNAT);
    }
    state
}

fn stress<F: Net>(twins: &mut Twins, entries: u32, lines: u32) {
    twins.write(state());
    let kernel = twins.kernel();
    kernel.clear_tables(entries, lines);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let taken = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..processors * THREADS {
            let taken = &taken;
            scope.spawn(move || {
                pin(number % processors);
                let mut random = Random((number as u32 + 1) << 24);
                // None ends before the others, so that all meet all the time.
                while taken.fetch_add(1, Ordering::Relaxed) < STEPS {
                    step::<F>(kernel, &mut random);
                }
            });
        }
    });
    let audit = kernel.table::<F>().audit(entries);
    partners_agree::<F>(kernel);
    ways_are_right::<F>(kernel);
    // All ends where nothing was lost on the way.
    thread::sleep(Duration::from_millis(50));
    let ended = kernel.sweep::<F>(0, ENTRIES, limits(0, 0));
    assert!(ended as usize <= audit.live && ended as usize >= audit.live / 2, "{ended}: {audit:?}");
    // What was stray may have been behind the sweep's back.
    kernel.sweep::<F>(0, ENTRIES, limits(0, 0));
    let rest = kernel.table::<F>().audit(entries);
    assert_eq!((rest.live, rest.free, rest.stray), (0, entries as usize, 0), "{audit:?} before");
}

fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).expect("there are so many");
    sched_setaffinity(Pid::from_raw(0), &set).expect("one may choose");
}

fn client_of<F: Net>(number: u32) -> SocketAddr {
    SocketAddr::new(client::<F>().ip(), FIRST + number as u16)
}

/// Something happens to some flow.
fn step<F: Net>(kernel: &Kernel, random: &mut Random) {
    let client = client_of::<F>(random.below(CLIENTS));
    match random.below(64) {
        0 => drop(kernel.sweep::<F>(0, ENTRIES, limits(0, 0))),
        1 => drop(kernel.sweep::<F>(0, ENTRIES, limits(LONG, LONG))),
        2..6 => lose::<F>(kernel, random, client),
        6..16 => local_handshake::<F>(kernel, random, client),
        16..24 => remote_handshake::<F>(kernel, random, client),
        _ => packet::<F>(kernel, random, client),
    }
}

/// A half goes, as by a program that ends flows.
fn lose<F: Net>(kernel: &Kernel, random: &mut Random, client: SocketAddr) {
    let protocol = random.of(&[IPPROTO_TCP, IPPROTO_UDP]);
    let snat = SocketAddr::new(snat::<F>(8).ip(), SNAT + random.below(u32::from(SNATS)) as u16);
    let (src, dst) = match random.below(4) {
        0 => (client, frontend::<F>(LOCAL)),
        1 => (client, frontend::<F>(REMOTE)),
        2 => (backend::<F>(LOCAL), client),
        _ => (backend::<F>(REMOTE), snat),
    };
    kernel.table::<F>().remove(&key::<F>(protocol, src, dst));
}

fn local_handshake<F: Net>(kernel: &Kernel, random: &mut Random, client: SocketAddr) {
    send::<F>(kernel, random, &tcp(client, frontend::<F>(LOCAL), SYN));
    answer::<F>(kernel, random, &tcp(backend::<F>(LOCAL), client, SYN | ACK));
    send::<F>(kernel, random, &tcp(client, frontend::<F>(LOCAL), ACK));
    answer::<F>(kernel, random, &tcp(backend::<F>(LOCAL), client, ACK));
}

fn remote_handshake<F: Net>(kernel: &Kernel, random: &mut Random, client: SocketAddr) {
    let Some(seen) = send::<F>(kernel, random, &tcp(client, frontend::<F>(REMOTE), SYN)) else {
        return;
    };
    send::<F>(kernel, random, &tcp(backend::<F>(REMOTE), seen, SYN | ACK));
    send::<F>(kernel, random, &tcp(client, frontend::<F>(REMOTE), ACK));
    send::<F>(kernel, random, &tcp(backend::<F>(REMOTE), seen, ACK));
}

fn packet<F: Net>(kernel: &Kernel, random: &mut Random, client: SocketAddr) {
    let flags = random.of(&[SYN, ACK, ACK, ACK, ACK, ACK, FIN | ACK, RST]);
    let datagram = random.below(4) == 0;
    let draft = |src, dst| if datagram { udp(src, dst) } else { tcp(src, dst, flags) };
    let snat = SocketAddr::new(snat::<F>(8).ip(), SNAT + random.below(u32::from(SNATS)) as u16);
    match random.below(4) {
        0 => drop(send::<F>(kernel, random, &draft(client, frontend::<F>(LOCAL)))),
        1 => drop(send::<F>(kernel, random, &draft(client, frontend::<F>(REMOTE)))),
        2 => answer::<F>(kernel, random, &draft(backend::<F>(LOCAL), client)),
        _ => drop(send::<F>(kernel, random, &draft(backend::<F>(REMOTE), snat))),
    }
}

/// A packet arrives. Where it was sent on to another node: whom it seems to be from.
fn send<F: Net>(kernel: &Kernel, random: &mut Random, draft: &Draft) -> Option<SocketAddr> {
    let hook = random.of(&[Hook::Xdp, Hook::Ingress]);
    let frame = draft.build();
    let ran = kernel.run(hook, &frame, 0).expect("the kernel takes the frame");
    if ran.bytes == frame {
        return None;
    }
    let (old, new) = (View::new(&frame).expect("a frame"), View::new(&ran.bytes).expect("a frame"));
    assert_eq!(faults(&ran.bytes), Vec::<String>::new());
    let (macs, as_it_was) = ((new.dst_mac, new.src_mac), (old.dst_mac, old.src_mac));
    let is_snat = |address: SocketAddr| {
        address.ip() == snat::<F>(8).ip() && (SNAT..SNAT + SNATS).contains(&address.port())
    };
    if old.dst == frontend::<F>(LOCAL) {
        assert!(new.dst == backend::<F>(LOCAL), "{} for {}", new.dst, old.dst);
        assert!(new.src == old.src || (SNAT..SNAT + SNATS).contains(&new.src.port()));
        assert_eq!(macs, as_it_was);
    } else if old.dst == frontend::<F>(REMOTE) {
        assert!(new.dst == backend::<F>(REMOTE) && is_snat(new.src), "{} {}", new.src, new.dst);
        assert_eq!(macs, (mac(8, 20), own_mac(8)));
    } else {
        let is_client = new.dst.ip() == client::<F>().ip();
        assert!(new.src == frontend::<F>(REMOTE) && is_client, "{} {}", new.src, new.dst);
        assert_eq!(macs, (mac(1, ROUTER), own_mac(1)));
    }
    Some(new.src)
}

/// A packet of the backend on this node leaves.
fn answer<F: Net>(kernel: &Kernel, _: &mut Random, draft: &Draft) {
    let frame = draft.build();
    let ran = kernel.run(Hook::Egress, &frame, 0).expect("the kernel takes the frame");
    if ran.bytes != frame {
        let new = View::new(&ran.bytes).expect("a frame");
        assert!(new.src == frontend::<F>(LOCAL) && new.dst.ip() == client::<F>().ip());
        assert_eq!(faults(&ran.bytes), Vec::<String>::new());
    }
}

/// Where both halves of a flow are there, they are halves of one flow.
fn partners_agree<F: Net>(kernel: &Kernel) {
    let flows = kernel.flows::<F>();
    for (key, flow) in &flows {
        let Some(other) = flows.get(&partner_key(key, flow)) else { continue };
        if partner_key(&partner_key(key, flow), other) != *key {
            continue;
        }
        let what = format!("{key:?}: {flow:?} and {other:?}");
        assert_eq!(flow.flags & FLOW_REPLY, !other.flags & FLOW_REPLY, "{what}");
        assert_eq!(flow.backend, other.backend, "{what}");
        assert_eq!(flow.generation, other.generation, "{what}");
        assert_eq!(flow.service, other.service, "{what}");
        assert_eq!(flow.address_diff, checksum::inverse(other.address_diff), "{what}");
        assert_eq!(flow.port_diff, checksum::inverse(other.port_diff), "{what}");
    }
}

/// What each half knows of its way is right, unless it is to be looked up.
fn ways_are_right<F: Net>(kernel: &Kernel) {
    for (key, flow) in kernel.flows::<F>() {
        let (ifindex, dst_mac, kind) = match flow.flags & (FLOW_LOCAL | FLOW_REPLY) {
            0 => (IN, mac(8, 20), HOP_SEND),
            FLOW_REPLY => (OUT, mac(1, ROUTER), HOP_SEND),
            _ => (0, [0; 6], HOP_STACK),
        };
        let hop = flow.hop;
        assert!(
            hop.epoch == 0 || (hop.ifindex, hop.dst_mac, hop.kind) == (ifindex, dst_mac, kind),
            "{key:?}: {flow:?}"
        );
    }
}
