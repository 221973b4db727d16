//! The services that have a place in the maps, by name: the loop writes, whoever shows them reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::PortName;
use crate::plan::GroupKey;
use crate::state_file::Service;

/// All of them.
#[derive(Debug, Default)]
pub struct Directory(Mutex<Inner>);

/// A service port in one family, as it is told.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What names it.
    pub key: GroupKey,
    /// What other commands are told.
    pub service: Arc<Service>,
    /// Its policy excludes all the endpoints there are.
    pub no_local: bool,
}

#[derive(Debug, Default)]
struct Inner {
    listed: BTreeMap<GroupKey, (Arc<Service>, bool)>,
    /// Whose an id was last.
    holders: HashMap<u32, PortName>,
    /// Ids that have another holder since somebody asked.
    renewed: Vec<u32>,
}

impl Directory {
    /// It has this place now; `no_local`, its policy excludes all the endpoints there are.
    pub(super) fn put(&self, key: GroupKey, service: Service, no_local: bool) {
        let mut inner = self.lock();
        let before = inner.holders.insert(service.id, key.port.clone());
        if before.is_some_and(|before| before != key.port) {
            inner.renewed.push(service.id);
        }
        inner.listed.insert(key, (Arc::new(service), no_local));
    }

    /// It has none.
    pub(super) fn remove(&self, key: &GroupKey) {
        self.lock().listed.remove(key);
    }

    /// The service port that has this id.
    pub(super) fn find(&self, id: u32) -> Option<Arc<Service>> {
        let inner = self.lock();
        inner.listed.values().find(|(service, _)| service.id == id).map(|(it, _)| it.clone())
    }

    /// All of them, sorted by name.
    #[must_use]
    pub fn all(&self) -> Vec<Listed> {
        let listed = |(key, (service, no_local)): (&GroupKey, &(Arc<Service>, bool))| Listed {
            key: key.clone(),
            service: service.clone(),
            no_local: *no_local,
        };
        self.lock().listed.iter().map(listed).collect()
    }

    /// What other commands are told.
    pub(super) fn services(&self) -> Vec<Arc<Service>> {
        self.lock().listed.values().map(|(service, _)| service.clone()).collect()
    }

    /// Ids that were given to another service port since the last call: what was counted for them is
    /// not its own.
    pub(crate) fn take_renewed(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().renewed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked has left whole values behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
