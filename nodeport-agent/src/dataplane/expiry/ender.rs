//! Ends flows, by the program that decides on each once more in the instant of its removal.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use nodeport_common::abi::{EXPIRE_KEYS, ExpireRequest, FlowKey, Plain};
use nodeport_common::core::expiry::Limits;

use super::super::sys::run_program;

/// Asks the program.
#[derive(Debug)]
pub(super) struct Ender {
    program: OwnedFd,
    /// 4 or 6.
    family: u32,
}

/// The request as the program takes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request<A> {
    head: ExpireRequest,
    keys: [FlowKey<A>; EXPIRE_KEYS],
}
impl<A: Plain> Plain for Request<A> {}

impl Ender {
    pub(super) fn new(program: OwnedFd, family: u32) -> Self {
        Self { program, family }
    }

    /// Ends those of these flows that are over; returns how many were.
    pub(super) fn end<A: Plain>(&self, keys: &[FlowKey<A>], limits: &Limits) -> anyhow::Result<u32>
    where
        FlowKey<A>: Plain + Default,
    {
        let mut ended = 0;
        for part in keys.chunks(EXPIRE_KEYS) {
            let head = ExpireRequest {
                family: self.family,
                count: part.len() as u32,
                limits: *limits,
                pad: 0,
            };
            let mut request = Request { head, keys: [FlowKey::default(); EXPIRE_KEYS] };
            for (place, key) in request.keys.iter_mut().zip(part) {
                *place = *key;
            }
            ended +=
                run_program(self.program.as_fd(), &request).context("running nodeport_expire")?;
        }
        Ok(ended)
    }
}
