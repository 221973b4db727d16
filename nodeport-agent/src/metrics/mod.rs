//! Metrics for Prometheus, as OpenMetrics text: read when they are asked for, from the maps and from
//! what the loop has told.
//!
//! [`catalog`] lists them all; names that begin with `kubeproxy_` are kube-proxy's own, and mean what
//! they mean there.

pub mod catalog;
mod collect;
mod process;
mod progress;
mod serve;
mod services;
mod sheet;
#[cfg(test)]
mod tests;

pub use collect::Sources;
pub use progress::{Progress, Situation, Trigger};
pub use serve::{Metrics, serve};

use crate::http::Listen;

/// What is served, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Where, if anywhere.
    pub at: Option<Listen>,
    /// Of what they tell.
    pub detail: Detail,
}

/// Of what metrics tell. Each has as many series as there are things of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Of the node alone.
    Node,
    /// Of Services too.
    Services,
    /// Of backends as well.
    Backends,
}
