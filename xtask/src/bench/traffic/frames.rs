//! Frames that XDP sends back over a veth: live ones, that the kernel makes and really sends.

use serde::Serialize;

use super::figures::Spread;

/// What one program reached.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FrameRate {
    /// Which program.
    pub program: &'static str,
    /// Frames per second.
    pub value: Spread,
    /// The rounds' ratios to the empty program.
    pub ratio: Spread,
    /// Whether the rounds differ too much to tell small differences.
    pub unsteady: bool,
}

impl FrameRate {
    /// The whole packet path, with one flow.
    pub(super) const OURS: &'static str = "nodeport, established";
    /// The least ratio to the empty program.
    pub(super) const GOAL: f64 = 0.88;
}
