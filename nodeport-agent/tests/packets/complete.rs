//! Frames for which the network card has summed all bytes (the kernel's `CHECKSUM_COMPLETE`): what
//! a program gives to the stack must still have that sum, or the stack finds fault with the card.

use std::ffi::c_long;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nodeport_common::core::env::Hook;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::state::{ACK, SYN};
use nodeport_common::frames::{Draft, Icmp, Net, tcp, udp};

use crate::kernel::Kernel;
use crate::state::*;
use crate::trials::Trials;

/// The command of the `bpf` system call.
const TEST_RUN: c_long = 10;
/// Sum the frame before, and see whether the sum is right after (kernel 6.17, commit
/// a3cfe84cca28).
const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// The tests.
pub(crate) fn add(trials: &mut Trials) {
    let mut add = |name: &str, frames: fn() -> Vec<(Hook, Draft)>| {
        trials.on_kernel(format!("complete::{name}"), move |kernel| {
            sums_stay_right(kernel, &frames());
        });
    };
    add("to_this_node_ipv4", to_this_node::<V4>);
    add("to_this_node_ipv6", to_this_node::<V6>);
    add("errors_ipv4", errors::<V4>);
    add("errors_ipv6", errors::<V6>);
}

fn sums_stay_right(kernel: &Kernel, frames: &[(Hook, Draft)]) {
    for (index, (hook, draft)) in frames.iter().enumerate() {
        let frame = draft.build();
        match run(kernel, *hook, &frame, CHECKSUM_COMPLETE) {
            Ok(()) => {}
            // An older kernel does not know the flag: all else of the call must be right.
            Err(Errno::EINVAL) if index == 0 => {
                run(kernel, *hook, &frame, 0).expect("the kernel takes the frame");
                println!("skipped: this kernel cannot sum frames for a test");
                return;
            }
            Err(error) => panic!("frame {index} at {hook:?}: {error}"),
        }
    }
}

fn to_this_node<F: Net>() -> Vec<(Hook, Draft)> {
    let mut frames = Vec::new();
    for flags in [SYN, ACK] {
        frames
            .push((Hook::Ingress, tcp(client::<F>(), frontend::<F>(LOCAL), flags).payload(b"odd")));
        frames.push((Hook::Egress, tcp(backend::<F>(LOCAL), client::<F>(), SYN | ACK)));
    }
    for _ in 0..2 {
        frames.push((Hook::Ingress, udp(client::<F>(), frontend::<F>(LOCAL))));
        frames.push((Hook::Egress, udp(backend::<F>(LOCAL), client::<F>())));
    }
    frames
}

fn errors<F: Net>() -> Vec<(Hook, Draft)> {
    let kind = if F::VERSION == 4 { 3 } else { 1 };
    let message = Icmp { kind, code: 1, word: [0; 4] };
    let answered = udp(frontend::<F>(LOCAL), client::<F>()).packet();
    let delivered = udp(client::<F>(), backend::<F>(LOCAL)).packet();
    let mut frames = vec![(Hook::Ingress, udp(client::<F>(), frontend::<F>(LOCAL)))];
    for keep in [F::HEADER + 8, answered.len()] {
        let about = &answered[..keep];
        frames.push((Hook::Ingress, Draft::icmp(F::party(77, 1), node::<F>(), message, about)));
        let (from, to) = (backend::<F>(LOCAL).ip(), client::<F>().ip());
        frames.push((Hook::Egress, Draft::icmp(from, to, message, &delivered[..keep])));
    }
    frames
}

/// What the system call takes.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// Runs a program on a frame whose sum the card has told. aya has no way to set the flag.
fn run(kernel: &Kernel, hook: Hook, frame: &[u8], flags: u32) -> nix::Result<()> {
    let context = crate::kernel::skb_context(0);
    let mut attributes = TestRun {
        program: kernel.classifier(hook).as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        context_size_in: context.len() as u32,
        context_in: context.as_ptr() as u64,
        repeat: 1,
        flags,
        ..TestRun::default()
    };
    let size = size_of::<TestRun>();
    // SAFETY: the attributes, the frame and the context live until the call returns, and their
    // sizes are given with them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut attributes, size) };
    Errno::result(result).map(drop)
}
