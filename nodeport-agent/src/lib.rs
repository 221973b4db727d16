//! The agent: watches Services and EndpointSlices and keeps the eBPF maps true to them.

#![deny(unsafe_code)]

pub mod addresses;
pub mod app;
pub mod args;
pub mod config;
pub mod dataplane;
pub mod events;
pub mod health;
pub mod http;
pub mod inspect;
pub mod listeners;
pub mod metrics;
pub mod model;
mod netlink;
pub mod plan;
pub mod reconcile;
mod run_dir;
pub mod state_file;
pub mod sync;
pub mod telemetry;
pub mod watch;
