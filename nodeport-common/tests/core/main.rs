//! The walk of a packet on the host: every rule that the kernel programs follow, held against
//! packets that an independent library builds and checks.

mod support;

mod affinity;
mod algorithm;
mod checksum;
mod ending;
mod expiry;
mod fast;
mod flow;
mod fragment;
mod gone;
mod hop;
mod icmp_error;
mod icmp_reply;
mod no_backend;
mod open;
mod own;
mod parse;
mod proof;
mod regression;
mod renewed;
mod rewrite;
mod robust;
mod snat;
mod state;
mod tables;
#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;
