//! `Fragments` over maps and helpers: frames are copied into a map, and sent on by the skb of the
//! first fragment, which is filled with each of them in turn and cloned.

use core::arch::asm;
use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::bindings::{BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_loop, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use nodeport_common::abi::{
    Addr4, Addr6, DatagramSet, Fragments as Settings, Reason, WAITING_BUSY, WAITING_BYTES, Waiting,
};
use nodeport_common::core::env::Env;
use nodeport_common::core::family::{V4, V6};
use nodeport_common::core::fragment::{Fragments, Kept, Limits, MOST_WAITING, Set};

use crate::env::{EGRESS, Kernel};
use crate::maps;
use crate::packet::skb::Skb;
use crate::route::RouteContext as _;

/// How often a set that another CPU has is asked for: each has it for some tens of nanoseconds.
const TRIES: u32 = 64;
/// How often a ticket is drawn.
const DRAWS: u32 = 8;
/// Bytes of the shortest frame: an Ethernet header.
const SHORTEST: usize = 14;
/// A mask that no length of a frame that can wait exceeds.
const LENGTH_MASK: usize = 0x3fff;
const _: () = assert!(WAITING_BYTES - SHORTEST <= LENGTH_MASK);

/// Exchanges a word in a map if it is `old`; whether it was.
///
/// # Safety
/// `word` must be an aligned word of a map's element.
#[inline(always)]
unsafe fn swap(word: *mut u64, old: u64, new: u64) -> bool {
    const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: the caller's promise.
    let (found, _) = unsafe { atomic_cxchg::<u64, ORDER, ORDER>(word, old, new) };
    found == old
}

/// A length, as the verifier believes it: between that of the shortest frame and the room there is.
/// The mask, which changes nothing, is hidden from the compiler.
#[inline(always)]
fn bounded(length: u32) -> Option<u32> {
    if !(SHORTEST..=WAITING_BYTES).contains(&(length as usize)) {
        return None;
    }
    let mut more = length as usize - SHORTEST;
    // SAFETY: one instruction on a register.
    unsafe {
        asm!("{0} &= {1}", inout(reg) more, const LENGTH_MASK, options(pure, nomem, nostack));
    }
    (more <= WAITING_BYTES - SHORTEST).then_some((more + SHORTEST) as u32)
}

/// Lends a set to `body`.
#[inline(always)]
fn with_set<A, R>(set: *mut DatagramSet<A>, body: impl FnOnce(&mut Set<A>) -> R) -> Option<R> {
    // SAFETY: the pointer is to an element of an array map, which lives as long as the program.
    let lock = unsafe { &raw mut (*set).lock };
    let mut is_ours = false;
    for _ in 0..TRIES {
        // SAFETY: the word is the first of an element.
        is_ours = unsafe { swap(lock, 0, 1) };
        if is_ours {
            break;
        }
    }
    if !is_ours {
        return None;
    }
    // SAFETY: as above; whoever has not swapped the lock leaves the set alone. Programs at these
    // hooks are not interrupted by each other on one CPU.
    let result = body(unsafe { &mut (*set).datagrams });
    // SAFETY: as above.
    let _ = unsafe { swap(lock, 1, 0) };
    Some(result)
}

/// The place of a ticket.
#[inline(always)]
fn place(ticket: u64, count: u32) -> Option<*mut Waiting> {
    let place = ticket.checked_rem(count as u64)?;
    maps::WAITING.get_ptr_mut(place as u32)
}

#[inline(always)]
fn draw() -> Option<u64> {
    let settings: *mut Settings = maps::FRAGMENTS.get_ptr_mut(0)?;
    // SAFETY: the pointer is to an element of an array map, which lives as long as the program.
    let word = unsafe { &raw mut (*settings).ticket };
    for _ in 0..DRAWS {
        // SAFETY: the word is aligned, and read as a whole.
        let last = unsafe { word.read_volatile() };
        // SAFETY: as above.
        if unsafe { swap(word, last, last + 1) } {
            return Some(last + 1);
        }
    }
    None
}

/// Copies a frame into a place of the ring.
#[inline(never)]
fn keep(skb: Skb, kernel: &impl Env, count: u32, timeout: u32) -> u64 {
    // SAFETY: the kernel gave the context to the program that runs now.
    let length = unsafe { (*skb.0).len };
    let Some(length) = bounded(length) else { return 0 };
    let Some(ticket) = draw() else { return 0 };
    let Some(waiting) = place(ticket, count) else { return 0 };
    // SAFETY: the pointer is to an element of an array map, which lives as long as the program; the
    // words are aligned. While the ticket is marked as busy, nobody else writes to the rest.
    unsafe {
        let word = &raw mut (*waiting).ticket;
        let old = word.read_volatile();
        if old & WAITING_BUSY != 0 || !swap(word, old, ticket | WAITING_BUSY) {
            return 0;
        }
        let now = kernel.now();
        let age = now.wrapping_sub((*waiting).since);
        (*waiting).since = now;
        (*waiting).previous = 0;
        (*waiting).length = length;
        let frame = (&raw mut (*waiting).frame).cast();
        let copied = bpf_skb_load_bytes(skb.0.cast(), 0, frame, length) == 0;
        let _ = swap(word, ticket | WAITING_BUSY, if copied { ticket } else { 0 });
        if old != 0 {
            let ousted = age < timeout;
            kernel.count(if ousted { Reason::FragmentOusted } else { Reason::FragmentLate });
            if ousted && copied {
                return ticket | OUSTED;
            }
        }
        if copied { ticket } else { 0 }
    }
}

/// In what [`keep`] returns: the frame took the place of one whose time was not over. Tickets do not
/// come so far.
const OUSTED: u64 = 1 << 62;

/// Fills the skb with a frame that waits. False if that frame is not there any more; then the skb
/// holds anything.
#[inline(always)]
fn fill(skb: Skb, ticket: u64, waiting: *mut Waiting) -> bool {
    // SAFETY: the pointer is to an element of an array map, which lives as long as the program; that
    // the frame is still the same is seen afterwards. The context is the program's own.
    unsafe {
        let word = &raw mut (*waiting).ticket;
        if word.read_volatile() != ticket {
            return false;
        }
        let Some(length) = bounded((&raw const (*waiting).length).read_volatile()) else {
            return false;
        };
        let frame = (&raw const (*waiting).frame).cast();
        bpf_skb_change_tail(skb.0, length, 0) == 0
            && bpf_skb_store_bytes(skb.0, 0, frame, length, BPF_F_RECOMPUTE_CSUM as u64) == 0
            && swap(word, ticket, 0)
    }
}

/// What is carried from frame to frame while they are sent on.
#[repr(C)]
struct Sending {
    skb: Skb,
    next: u64,
    count: u32,
    flags: u32,
    sent: u32,
}

#[inline(never)]
extern "C" fn send_one(_: u32, sending: *mut Sending) -> i64 {
    // SAFETY: `send_on` lends it for the time of its loop.
    let sending = unsafe { &mut *sending };
    let ticket = sending.next;
    if ticket == 0 {
        return 1;
    }
    let Some(waiting) = place(ticket, sending.count) else { return 1 };
    // SAFETY: as in `fill`.
    sending.next = unsafe { (&raw const (*waiting).previous).read_volatile() };
    if !fill(sending.skb, ticket, waiting) {
        return 1;
    }
    let flags = sending.flags as u64;
    // SAFETY: the context is the program's own.
    if unsafe { bpf_clone_redirect(sending.skb.0, sending.skb.ifindex(), flags) } == 0 {
        sending.sent += 1;
    }
    0
}

/// Sends frames on, and gives the skb back what it held.
#[inline(never)]
fn send_on(sending: &mut Sending, own: u64) -> bool {
    let step: extern "C" fn(u32, *mut Sending) -> i64 = send_one;
    // SAFETY: the callback takes what it is given here, and nothing else holds it meanwhile.
    unsafe { bpf_loop(MOST_WAITING as u32, step as *mut c_void, (&raw mut *sending).cast(), 0) };
    match place(own, sending.count) {
        Some(waiting) => fill(sending.skb, own, waiting),
        None => false,
    }
}

macro_rules! fragments {
    ($family:ty, $addr:ty, $datagrams:ident) => {
        impl<const HOOK: u8> Fragments<$family, Skb> for Kernel<Skb, HOOK> {
            #[inline(always)]
            fn limits(&self) -> Option<Limits> {
                let Settings { seed, sets, waiting, timeout, .. } = *maps::FRAGMENTS.get(0)?;
                (sets != 0).then_some(Limits { seed, sets, waiting, timeout })
            }

            #[inline(always)]
            fn with_set<R>(&self, set: u32, body: impl FnOnce(&mut Set<$addr>) -> R) -> Option<R> {
                with_set(maps::$datagrams.get_ptr_mut(set)?, body)
            }

            #[inline(always)]
            fn keep(&self, packet: &mut Skb, limits: &Limits) -> Option<Kept> {
                let kept = keep(*packet, self, limits.waiting, limits.timeout);
                let ticket = kept & !OUSTED;
                (ticket != 0).then_some(Kept { ticket, ousted: kept != ticket })
            }

            #[inline(always)]
            fn link(&self, ticket: u64, previous: u64) {
                let Some(Settings { waiting, .. }) = maps::FRAGMENTS.get(0) else { return };
                if let Some(waiting) = place(ticket, *waiting) {
                    // SAFETY: as in `keep`. If the place is another frame's by now, that one leads
                    // to frames of another packet, which are met again as any other.
                    unsafe { (&raw mut (*waiting).previous).write_volatile(previous) };
                }
            }

            #[inline(always)]
            fn let_go(&self, ticket: u64) {
                let Some(Settings { waiting, .. }) = maps::FRAGMENTS.get(0) else { return };
                if let Some(waiting) = place(ticket, *waiting) {
                    // SAFETY: as in `keep`.
                    let _ = unsafe { swap(&raw mut (*waiting).ticket, ticket, 0) };
                }
            }

            #[inline(always)]
            fn send_on(&self, packet: &mut Skb, head: u64, limits: &Limits) -> bool {
                // The frame at hand is kept while others are sent by its means.
                let own = keep(*packet, self, limits.waiting, limits.timeout) & !OUSTED;
                if own == 0 {
                    return true;
                }
                let flags = if HOOK == EGRESS { 0 } else { BPF_F_INGRESS as u32 };
                let (skb, count) = (*packet, limits.waiting);
                let mut sending = Sending { skb, next: head, count, flags, sent: 0 };
                let is_whole = send_on(&mut sending, own);
                self.count_many(Reason::FragmentSent, sending.sent);
                is_whole
            }
        }
    };
}

fragments!(V4, Addr4, DATAGRAMS4);
fragments!(V6, Addr6, DATAGRAMS6);

impl<const HOOK: u8> Kernel<Skb, HOOK> {
    /// Counts so many packets.
    #[inline(always)]
    fn count_many(&self, reason: Reason, packets: u32) {
        if let Some(counter) = maps::COUNTERS.get_ptr_mut(reason as u32) {
            // SAFETY: as in `count`.
            unsafe { *counter += packets as u64 };
        }
    }
}
