//! What the control side knows of the numbers in the maps.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Name of the file in the run directory.
pub const FILE: &str = "names.json";

/// Names of service ports, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// `namespace/name:port`, by the id that counters and flows carry.
    pub services: BTreeMap<u32, String>,
}

impl Names {
    /// Reads what the agent has written last; nothing if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be read, or is something else.
    pub fn read(run_dir: &Path) -> anyhow::Result<Self> {
        let path = run_dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The name of a service port, or its number if the name is not known.
    #[must_use]
    pub fn service(&self, id: u32) -> String {
        self.services.get(&id).cloned().unwrap_or_else(|| format!("#{id}"))
    }
}
