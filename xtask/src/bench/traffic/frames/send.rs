//! Ways for XDP to send a frame: frames come over the veth to a program in its driver, which sends
//! them back. What it takes to make them and to bring them there is part of all figures; a program
//! that drops them shows how much that is.

use anyhow::Result;

use super::super::super::runner::{DEVICE, PEER, Runner, SPARE};
use super::{Named, rate};

/// A way to send, and the program of the benchmark's object that does it.
pub(super) struct Way {
    name: &'static str,
    program: &'static str,
    /// Whose driver drops the frame in the end.
    end: &'static str,
}

/// What the frames are made with.
const MAKER: &str = "empty_xdp";

/// All of them; the first is the reference.
pub(super) const WAYS: [Way; 4] = [
    Way { name: "XDP_TX", program: "empty_xdp", end: PEER },
    Way { name: "redirect, interface's number", program: "send_by_number", end: PEER },
    Way { name: "redirect, devmap", program: "send_by_map", end: PEER },
    Way { name: "nothing sent", program: "send_nothing", end: DEVICE },
];

impl Named for Way {
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Way {
    /// Frames per second of one run.
    pub(super) fn sample(&self, runner: &mut Runner, frames: u32) -> Result<f64> {
        let places = [(MAKER, SPARE), (self.program, DEVICE)];
        runner.attached(&places, |runner| rate(runner, (MAKER, PEER), self.end, frames))
    }
}
