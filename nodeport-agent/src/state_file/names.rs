//! What the agent knows by name of the numbers in the maps.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nodeport_common::abi::LAYOUT_VERSION;

use super::{Service, State};
use crate::config::Instance;
use crate::model::Family;

/// Names of services and backends. Where the agent's file is not there, numbers stand for them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    services: BTreeMap<u32, String>,
    backends: BTreeMap<(Family, u32), BackendName>,
}

/// What a backend's index stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendName {
    /// The service port.
    pub(crate) service: String,
    /// The node that it is on, if that is known.
    pub(crate) node: Option<String>,
    /// Another generation is another backend.
    pub(crate) generation: u32,
}

impl Names {
    /// Reads what the agent has written last.
    pub(crate) fn of(instance: &Instance) -> Self {
        State::load(instance).map(|state| Self::from(&state)).unwrap_or_default()
    }

    /// The name of a service port; of what is of none, since 0 is not given out: the node's own.
    pub(crate) fn service(&self, id: u32) -> Cow<'_, str> {
        if id == 0 {
            return Cow::Borrowed("(the node's own)");
        }
        let name = self.services.get(&id).map(|name| Cow::Borrowed(name.as_str()));
        name.unwrap_or_else(|| Cow::Owned(format!("#{id}")))
    }

    /// What a backend's index stands for.
    pub(crate) fn backend(
        &self,
        family: Family,
        index: u32,
        generation: u32,
    ) -> Option<&BackendName> {
        self.backends.get(&(family, index)).filter(|name| name.generation == generation)
    }
}

impl From<&State> for Names {
    fn from(state: &State) -> Self {
        let mut names = Self::default();
        if state.layout != LAYOUT_VERSION {
            return names;
        }
        for service in &state.services {
            let shown = shown(service);
            for backend in &service.backends {
                let name = BackendName {
                    service: shown.clone(),
                    node: backend.node.clone(),
                    generation: backend.generation,
                };
                names.backends.insert((service.family, backend.index), name);
            }
            names.services.insert(service.id, shown);
        }
        names
    }
}

/// `namespace/name:port/PROTOCOL`; the port by its name if it has one.
fn shown(service: &Service) -> String {
    let Service { service, port_name, port, protocol, .. } = service;
    if port_name.is_empty() {
        format!("{service}:{port}/{protocol}")
    } else {
        format!("{service}:{port_name}/{protocol}")
    }
}
