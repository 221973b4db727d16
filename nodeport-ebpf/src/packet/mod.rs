//! `Packet` over the two kinds of context, and the windows that both share.

pub(crate) mod skb;
pub(crate) mod xdp;

use core::arch::asm;
use core::intrinsics::is_val_statically_known;

use nodeport_common::core::env::{Window, Word};

/// Largest offset at which a window may stand: what the verifier is told of offsets that are not
/// constants.
const MAX_OFFSET: usize = 0x3ff;

/// Begin and end of a packet, from the two words of its context. They are read anew for each
/// window: a value that the compiler carried into another function would arrive there as a plain
/// 32-bit number, which the verifier does not take for a pointer.
///
/// # Safety
/// Both must be fields of the context that the running program was given.
#[inline(always)]
unsafe fn bounds(data: *const u32, end: *const u32) -> (usize, usize) {
    // SAFETY: the caller's promise.
    unsafe { (data.read_volatile() as usize, end.read_volatile() as usize) }
}

/// `offset`, at most [`MAX_OFFSET`]. The mask is hidden from the compiler: where it knows from a
/// comparison that the mask does nothing, it leaves it out and adds before it compares, and kernel
/// 6.1 then takes the sum for one that may lie beyond any packet. A constant needs no mask.
#[inline(always)]
fn bounded(offset: usize) -> usize {
    if is_val_statically_known(offset) {
        return offset & MAX_OFFSET;
    }
    let mut bounded = offset;
    // SAFETY: one instruction on a register.
    unsafe {
        asm!("{0} &= {1}", inout(reg) bounded, const MAX_OFFSET, options(pure, nomem, nostack));
    }
    bounded
}

/// `N` bytes of a packet, checked to be there.
pub(crate) struct Bytes<'a, const N: usize> {
    start: *mut u8,
    packet: core::marker::PhantomData<&'a mut [u8; N]>,
}

impl<const N: usize> Bytes<'_, N> {
    /// The window at `offset` of the packet between `data` and `end`.
    #[inline(always)]
    fn new(data: usize, end: usize, offset: usize) -> Option<Self> {
        let start = data + bounded(offset);
        if offset > MAX_OFFSET || start + N > end {
            return None;
        }
        Some(Self { start: start as *mut u8, packet: core::marker::PhantomData })
    }
}

impl<const N: usize> Window<N> for Bytes<'_, N> {
    #[inline(always)]
    fn load<T: Word, const OFF: usize>(&self) -> T {
        const { assert!(OFF + size_of::<T>() <= N, "outside the window") };
        // SAFETY: `new` has checked the N bytes, the assertion that the word lies inside. The
        // architectures that we run on load words from any address.
        unsafe { load(self.start.add(OFF)) }
    }

    #[inline(always)]
    fn store<T: Word, const OFF: usize>(&mut self, value: T) {
        const { assert!(OFF + size_of::<T>() <= N, "outside the window") };
        // SAFETY: as in `load`.
        unsafe { store(self.start.add(OFF), value) }
    }
}

/// Loads a word in as few pieces as its size allows: of a byte array, the compiler would load
/// byte after byte, since it knows nothing of the address.
///
/// # Safety
/// `at` must be readable for the size of `T`.
#[inline(always)]
unsafe fn load<T: Word>(at: *const u8) -> T {
    // SAFETY: the caller's promise; sizes are equal in each branch, and every bit pattern is a
    // value of a `Word`.
    unsafe {
        match size_of::<T>() {
            1 => core::mem::transmute_copy(&*at),
            2 => core::mem::transmute_copy(&*at.cast::<u16>()),
            // Volatile: the compiler would load an address byte by byte where it is compared, hashed
            // and stored in pieces.
            4 => core::mem::transmute_copy(&at.cast::<u32>().read_volatile()),
            6 => {
                let (a, b) = (*at.cast::<u32>(), *at.add(4).cast::<u16>());
                core::mem::transmute_copy(&Six { a, b })
            }
            _ => {
                let pair = [*at.cast::<u64>(), *at.add(8).cast::<u64>()];
                core::mem::transmute_copy(&pair)
            }
        }
    }
}

/// Stores a word in as few pieces as its size allows.
///
/// # Safety
/// `at` must be writable for the size of `T`.
#[inline(always)]
unsafe fn store<T: Word>(at: *mut u8, value: T) {
    // SAFETY: as in `load`.
    unsafe {
        match size_of::<T>() {
            1 => *at = core::mem::transmute_copy(&value),
            2 => *at.cast::<u16>() = core::mem::transmute_copy(&value),
            4 => *at.cast::<u32>() = core::mem::transmute_copy(&value),
            6 => {
                let six: Six = core::mem::transmute_copy(&value);
                *at.cast::<u32>() = six.a;
                *at.add(4).cast::<u16>() = six.b;
            }
            _ => {
                let pair: [u64; 2] = core::mem::transmute_copy(&value);
                *at.cast::<u64>() = pair[0];
                *at.add(8).cast::<u64>() = pair[1];
            }
        }
    }
}

/// An Ethernet address, as two words.
#[repr(C, packed)]
struct Six {
    a: u32,
    b: u16,
}
