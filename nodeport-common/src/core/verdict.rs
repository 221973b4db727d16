//! What becomes of a packet.

/// What becomes of a packet, in one word so that it can be returned in a register.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(u64);

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
    /// Nowhere.
    Drop,
}

impl Verdict {
    /// To the stack, as it came.
    pub const PASS: Self = Self(0);
    /// To the stack, rewritten.
    pub const STACK: Self = Self(1 << 32);
    /// Nowhere.
    pub const DROP: Self = Self(2 << 32);

    /// Out of the interface, with its Ethernet header written.
    #[inline(always)]
    pub const fn send(ifindex: u32) -> Self {
        Self((3 << 32) | ifindex as u64)
    }

    /// Out of the interface, by the kernel's neighbour table.
    #[inline(always)]
    pub const fn neighbour(ifindex: u32) -> Self {
        Self((4 << 32) | ifindex as u64)
    }

    /// Takes it apart.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self.0 >> 32 {
            1 => Action::Stack,
            2 => Action::Drop,
            3 => Action::Send(self.0 as u32),
            4 => Action::Neighbour(self.0 as u32),
            _ => Action::Pass,
        }
    }
}
