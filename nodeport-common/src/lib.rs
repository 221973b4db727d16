//! What the kernel programs and the agent share.
//!
//! - [`abi`]: the layout of everything that lies in an eBPF map. A change there is a change of
//!   the interface between a running kernel program and an agent of another version, so it goes
//!   with a raise of [`abi::LAYOUT_VERSION`].
//! - [`core`](mod@core): every decision on a packet, as pure code over three small traits. The same source
//!   runs in the kernel, in unit and property tests, in fuzzers and in simulations.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod abi;
pub mod core;
#[cfg(feature = "frames")]
pub mod frames;
