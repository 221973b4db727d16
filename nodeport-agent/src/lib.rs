//! The agent: watches Services and EndpointSlices and keeps the eBPF maps true to them.
pub mod args;
pub mod config;
pub mod dataplane;
pub mod model;
pub mod plan;
pub mod sync;
