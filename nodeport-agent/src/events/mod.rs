//! What is wrong with an object, told where its owner looks: as an Event beside it in the cluster.
//!
//! The loop says what holds now ([`Events::set`]) and goes on at once. A task of its own tells the
//! API server, as seldom as [`ledger`] has it; a server that is away or refuses costs Events and
//! nothing else. Agents of other nodes find the same things wrong: they give an Event the same name,
//! so that the first of them makes it and the cluster keeps one.

mod ledger;
mod publish;
mod remark;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kube::Client;
use tokio::sync::Notify;

use crate::telemetry::Scope;
use ledger::Ledger;
pub(crate) use remark::{RESERVED, SOURCE_PORTS};
pub use remark::{Regarding, Remark, Uids};

/// A part of what is wrong that is said at once and replaces what was said of it before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// What the plan found.
    Findings(Scope),
    /// Processes of the node where services are.
    Listeners,
    /// What could not be written into the maps.
    Failures,
    /// Interfaces that are served otherwise than they could be.
    Interfaces,
}

/// Takes what shall be told; without a cluster it goes nowhere.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    news: Notify,
}

impl Events {
    /// Whether anybody is told.
    #[must_use]
    pub const fn are_told(&self) -> bool {
        self.0.is_some()
    }

    /// All that is wrong now about the topic. Never waits for the API server.
    pub fn set(&self, topic: &Topic, remarks: Vec<Remark>) {
        let Some(shared) = &self.0 else { return };
        let is_news = !remarks.is_empty();
        shared.ledger().set(topic, remark::combine(remarks), Instant::now());
        if is_news {
            shared.news.notify_one();
        }
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // What a panic may have left half done is an Event told once more or once less.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where to say what is wrong, and the task that tells the cluster, which never ends.
pub fn start(client: Client, node: &str) -> (Events, impl Future<Output = ()> + use<>) {
    let shared = Arc::<Shared>::default();
    let task = publish::run(shared.clone(), client, node.to_owned());
    (Events(Some(shared)), task)
}

/// Remarks of one kind about one object, as one text.
type Combined = BTreeMap<remark::Key, remark::Told>;
