//! What the agent knows of the cluster, in its own words.
//!
//! Objects of the API become these types as they arrive, whichever source they come from. What
//! cannot be served is no error: it becomes a [`Finding`], and the rest of the object counts.

pub mod address;
mod annotations;
mod exposure;
mod finding;
mod name;
mod node;
mod raw;
mod service;
mod slice;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use foldhash::HashMap;

pub use annotations::{Algorithm, PREFIX as ANNOTATIONS, Weights};
pub use exposure::{AddressKind, ServiceAddress};
pub use finding::{Finding, Findings, Kind, Origin, Severity};
pub use name::{Family, Name, PortName, Protocol};
pub use node::Node;
pub use raw::RawSlice;
pub use service::{Rules, Service, ServicePort};
pub use slice::{Endpoint, SERVICE_NAME_LABEL, Slice, SlicePort, Trigger};

/// A service together with its slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The Service; slices may come before it.
    pub service: Option<Arc<Service>>,
    /// Its slices, sorted by name.
    pub slices: Vec<Arc<Slice>>,
}

/// The whole world, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Services with their slices.
    pub entries: HashMap<Name, Entry>,
    /// This machine's node.
    pub node: Option<Arc<Node>>,
}
