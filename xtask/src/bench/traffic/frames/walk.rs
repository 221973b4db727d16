//! The packet path on live frames, which it sends back where they came from. (In such a run the
//! kernel sends what `XDP_TX` says as it sends what is redirected, for all programs alike.)

use anyhow::Result;

use super::super::super::runner::{DEVICE, PEER, Runner, SPARE};
use super::{FrameRate, Named, rate};

/// What is run, by its name in the benchmark's object.
pub(super) struct Program {
    name: &'static str,
    program: &'static str,
}

/// All of them; the first is the reference.
pub(super) const PROGRAMS: [Program; 3] = [
    Program { name: "empty", program: "empty_xdp" },
    // What the next one does to have the same frame each time.
    Program { name: "a fresh packet alone", program: "fresh4_xdp" },
    Program { name: FrameRate::OURS, program: "walk4_xdp" },
];

impl Named for Program {
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Program {
    /// Frames per second of one run.
    pub(super) fn sample(&self, runner: &mut Runner, frames: u32) -> Result<f64> {
        let places = [(self.program, SPARE)];
        runner.attached(&places, |runner| rate(runner, (self.program, DEVICE), PEER, frames))
    }
}
