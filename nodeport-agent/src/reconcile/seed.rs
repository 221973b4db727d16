//! The seed of a run: chosen when all is listed for the first time, and kept from then on, as
//! another one would lead the flows of every service to other backends than on the other nodes.

use tracing::{info, warn};

use crate::model::{Model, Name};
use crate::plan::seed::{CLUSTER_NAMESPACE, CLUSTER_SERVICE};
use crate::plan::{Seed, SeedRule};

/// Chooses the seed once, and says when it ought to be another.
#[derive(Debug)]
pub(super) struct SeedKeeper {
    rule: SeedRule,
    service: Name,
    chosen: Option<Seed>,
    /// What was said last that it ought to be.
    other: Option<u32>,
}

impl SeedKeeper {
    pub(super) fn new(rule: SeedRule) -> Self {
        let service = Name::new(CLUSTER_NAMESPACE, CLUSTER_SERVICE);
        Self { rule, service, chosen: None, other: None }
    }

    /// The seed. All must be listed.
    pub(super) fn keep(&mut self, model: &Model) -> u32 {
        let entry = model.entries.get(&self.service);
        let uid = entry.and_then(|entry| entry.service.as_ref()).map(|service| &*service.uid);
        let wanted = self.rule.choose(uid);
        let Some(chosen) = self.chosen else {
            self.chosen = Some(wanted);
            self.tell(wanted);
            return wanted.value;
        };
        // A Service that went says nothing about the cluster.
        if uid.is_some() && wanted.value != chosen.value && self.other != Some(wanted.value) {
            warn!(
                "the UID of the Service {} is not the one that the seed of the choice of backends \
                 came from: {} is kept, {} would be another node's; start the agent again to take \
                 it",
                self.service, chosen.value, wanted.value
            );
            self.other = Some(wanted.value);
        }
        chosen.value
    }

    /// The seed, if it came from the cluster.
    pub(super) fn of_cluster(&self) -> Option<u32> {
        self.chosen.filter(|chosen| chosen.of_cluster).map(|chosen| chosen.value)
    }

    fn tell(&self, chosen: Seed) {
        let Seed { value: seed, of_cluster } = chosen;
        match self.rule {
            SeedRule::OfCluster { .. } if !of_cluster => warn!(
                seed,
                "the Service {} is not visible, or its UID is none: nodes choose backends alike \
                 only if they all have the same --seed",
                self.service
            ),
            _ => info!(seed, of_cluster, "backends are chosen by this seed"),
        }
    }
}
