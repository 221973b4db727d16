//! Where the objects come from: a cluster's API or a folder of manifests. Both fill one
//! [`Store`]; what reads it cannot tell them apart.

mod kube;
pub mod manifests;
mod store;
mod tally;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub use store::{Snapshot, Store};
pub use tally::{Tally, Watch, Watches};

use crate::config::{self, Config};
use crate::events::{self, Events};
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
        let rules = Rules { node_ports: config.node_ports, serves: config.serves.clone() };
        Ok(Self { kind, node_name: config.node_name.as_str().into(), rules })
    }

    /// Begins to watch, before it is known what the maps hold: a large cluster's lists take as long
    /// as the making of the maps.
    #[must_use]
    pub fn watch(self) -> Watching {
        let Self { kind, node_name, rules } = self;
        let (store, mut tasks) = (Arc::new(Store::default()), JoinSet::new());
        let (adopted, told) = oneshot::channel();
        let mut events = Events::default();
        match kind {
            Kind::Manifests(folder) => {
                let store = store.clone();
                tasks.spawn(async move {
                    // Not told, nobody is there any more who could follow.
                    let adopted = told.await.unwrap_or(true);
                    manifests::Folder::new(folder, node_name, rules, adopted).watch(store).await;
                });
            }
            Kind::Api(client) => {
                let (tell, telling) = events::start(client.clone(), &node_name);
                events = tell;
                tasks.spawn(telling);
                tasks.spawn(kube::services(client.clone(), rules, store.clone()));
                tasks.spawn(kube::slices(client.clone(), store.clone()));
                tasks.spawn(kube::node(client, node_name, store.clone()));
            }
        }
        Watching { store, tasks, adopted, events }
    }
}

/// Watches that have begun. They go on for as long as this lives.
pub struct Watching {
    store: Arc<Store>,
    tasks: JoinSet<()>,
    adopted: oneshot::Sender<bool>,
    events: Events,
}

impl Watching {
    /// Where to say what is wrong with the source's objects.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// What they fill, and their tasks, which end only if they are aborted. `adopted` says that an
    /// agent before this one has left something in the maps: then an empty folder is not believed
    /// at once.
    #[must_use]
    pub fn follow(self, adopted: bool) -> (Arc<Store>, JoinSet<()>) {
        let Self { store, tasks, adopted: tell, events: _ } = self;
        // Only a folder wants to know.
        let _ = tell.send(adopted);
        (store, tasks)
    }
}
