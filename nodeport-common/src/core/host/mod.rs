//! The world around a walk on the host, for tests and simulations: packets over byte vectors,
//! tables over ordered maps, a clock that stands still until it is told, random numbers and
//! routes from a script.
//!
//! It keeps to what the kernel does wherever a decision could tell the difference: the newcomers'
//! table pushes out the one that was not used for longest, the other one is full at some time,
//! and a packet in TC lets "the kernel" finish its checksums.

mod fragments;
mod frame;
mod maps;
mod table;
mod world;

pub use fragments::{Ring, Sets};
pub use frame::{Checksum, Frame, SkbFrame, XdpFrame};
pub use maps::{Answer, Maps, OnHost};
pub use table::{Change, Entry, FlowTable};
pub use world::{At, EGRESS, INGRESS, POD, World, XDP};
