//! What becomes of a packet.

use core::num::NonZeroU64;

/// What becomes of a packet, in one word so that it, and an `Option` of it, can be returned in a
/// register.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(NonZeroU64);

/// A [`Verdict`], taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the stack, as it came.
    Pass,
    /// To the stack, rewritten.
    Stack,
    /// Out of the interface, with its Ethernet header written.
    Send(u32),
    /// Out of the interface, by the kernel's neighbour table.
    Neighbour(u32),
    /// Into the pod's end of that veth, with its Ethernet header written.
    Pod(u32),
    /// Out of the interface on which it came, with the VLAN tags that it came with.
    Back(u32),
    /// Nowhere.
    Drop,
}

const STACK: u64 = 1;
const DROP: u64 = 2;
const SEND: u64 = 3;
const NEIGHBOUR: u64 = 4;
const PASS: u64 = 5;
const BACK: u64 = 6;
const POD: u64 = 7;
const FRAGMENT: u64 = 8;

impl Verdict {
    /// To the stack, as it came.
    pub const PASS: Self = Self::new(PASS, 0);
    /// To the stack, rewritten.
    pub const STACK: Self = Self::new(STACK, 0);
    /// Nowhere.
    pub const DROP: Self = Self::new(DROP, 0);
    /// A fragment, on which [`fragment::walk`](super::fragment::walk) has the last word; to the stack,
    /// where that is not there.
    pub const FRAGMENT: Self = Self::new(FRAGMENT, 0);

    #[inline(always)]
    const fn new(action: u64, ifindex: u32) -> Self {
        match NonZeroU64::new((action << 32) | ifindex as u64) {
            Some(word) => Self(word),
            // Not reached: no action is 0.
            None => Self(NonZeroU64::MAX),
        }
    }

    /// Out of the interface, with its Ethernet header written.
    #[inline(always)]
    pub const fn send(ifindex: u32) -> Self {
        Self::new(SEND, ifindex)
    }

    /// Out of the interface, by the kernel's neighbour table.
    #[inline(always)]
    pub const fn neighbour(ifindex: u32) -> Self {
        Self::new(NEIGHBOUR, ifindex)
    }

    /// Into the pod's end of that veth, with its Ethernet header written.
    #[inline(always)]
    pub const fn pod(ifindex: u32) -> Self {
        Self::new(POD, ifindex)
    }

    /// Out of the interface on which it came, with the VLAN tags that it came with.
    #[inline(always)]
    pub const fn back(ifindex: u32) -> Self {
        Self::new(BACK, ifindex)
    }

    /// Takes it apart.
    #[inline(always)]
    pub const fn action(self) -> Action {
        let ifindex = self.0.get() as u32;
        match self.0.get() >> 32 {
            STACK => Action::Stack,
            DROP => Action::Drop,
            SEND => Action::Send(ifindex),
            NEIGHBOUR => Action::Neighbour(ifindex),
            BACK => Action::Back(ifindex),
            POD => Action::Pod(ifindex),
            _ => Action::Pass,
        }
    }
}
