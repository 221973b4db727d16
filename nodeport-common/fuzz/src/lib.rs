//! The fuzzers' targets as plain functions. The tests of `nodeport-common` include them as well:
//! an input that once failed is an ordinary test there (`tests/core/regression.rs`).
#![allow(dead_code, unused_macros, unused_imports, reason = "the tests use more of `support`")]

#[path = "../../tests/core/support.rs"]
mod support;
mod targets;

/// Any bytes, at any hook of a node that has flows.
pub fn walk(data: &[u8]) {
    targets::walk(data);
}

/// ICMP errors about flows.
pub fn icmp_error(data: &[u8]) {
    targets::icmp_error(data);
}

/// A packet of any client, there and back.
pub fn rewrite_roundtrip(data: &[u8]) {
    targets::rewrite_roundtrip(data);
}

/// Sequences of packets, losses and changes.
pub fn flow_state(data: &[u8]) {
    targets::flow_state(data);
}
