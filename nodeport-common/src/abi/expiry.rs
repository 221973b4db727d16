//! What the agent asks the program that ends flows.

use super::plain;
use crate::core::expiry::Limits;

/// The packet that the program is run with: a part of the table that it shall look at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepRequest {
    /// 4 or 6.
    pub family: u32,
    /// Number of the first entry.
    pub first: u32,
    /// How many entries.
    pub count: u32,
    /// How long flows may be silent.
    pub limits: Limits,
}
plain!(Limits = 4, 4, 4, 4, 4, 4, 4);
plain!(SweepRequest = 4, 4, 4, 28);

/// Part of what the program returns beside the number of flows that it ended: a half lies, or once
/// lay, in one of the entries. Where none ever did, none does behind, since entries are given out
/// from the front.
pub const SWEEP_ANY_USED: u32 = 1 << 31;
