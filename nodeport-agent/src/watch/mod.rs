//! Where the objects come from: a cluster's API or a folder of manifests. Both fill one
//! [`Store`]; what reads it cannot tell them apart.

mod kube;
pub mod manifests;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;

pub use store::{Snapshot, Store};

use crate::config::{self, Config};
use crate::model::Rules;

/// A source that can be watched: what could be checked about it has been.
pub struct Source {
    kind: Kind,
    node_name: Arc<str>,
    rules: Rules,
}

enum Kind {
    Manifests(PathBuf),
    Api(::kube::Client),
}

impl Source {
    /// Makes ready what the configuration names. A cluster that does not answer is no error: it
    /// may yet, and until then the data path goes on as it is.
    ///
    /// # Errors
    /// If the credentials for a cluster cannot be read.
    pub async fn new(config: &Config) -> anyhow::Result<Self> {
        let kind = match &config.source {
            config::Source::Manifests(folder) => Kind::Manifests(folder.clone()),
            config::Source::Cluster(cluster) => {
                Kind::Api(kube::client(cluster.kubeconfig.as_deref()).await?)
            }
        };
        let rules = Rules { node_ports: config.node_ports };
        Ok(Self { kind, node_name: config.node_name.as_str().into(), rules })
    }

    /// Watches for as long as the tasks live. They end only if they are aborted. `adopted` says
    /// that an agent before this one has left something in the maps.
    #[must_use]
    pub fn watch(self, store: &Arc<Store>, adopted: bool) -> JoinSet<()> {
        let Self { kind, node_name, rules } = self;
        let mut tasks = JoinSet::new();
        match kind {
            Kind::Manifests(folder) => {
                let folder = manifests::Folder::new(folder, node_name, rules, adopted);
                tasks.spawn(folder.watch(store.clone()));
            }
            Kind::Api(client) => {
                tasks.spawn(kube::services(client.clone(), rules, store.clone()));
                tasks.spawn(kube::slices(client.clone(), store.clone()));
                tasks.spawn(kube::node(client, node_name, store.clone()));
            }
        }
        tasks
    }
}
