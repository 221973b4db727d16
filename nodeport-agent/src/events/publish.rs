//! Tells the API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::{info, warn};

use super::Shared;
use super::ledger::{Message, Step};
use super::remark::{Regarding, event_name};
use crate::model::Kind;

/// Who tells.
const CONTROLLER: &str = "nodeport-agent";
/// Where Events about objects without a namespace are.
const NAMESPACE_OF_NODES: &str = "default";
/// How long the API server may take for one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failure; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Tells what is due, for ever.
pub(super) async fn run(shared: Arc<Shared>, client: Client, node: String) {
    let mut teller = Teller { client, node, pause: None };
    loop {
        let (step, left_out) = {
            let mut ledger = shared.ledger();
            (ledger.next(Instant::now()), ledger.take_left_out())
        };
        if left_out > 0 {
            warn!(
                "too much is wrong to tell all of it by Events: {left_out} were left out; \
                 `nodeport-agent status` lists everything"
            );
        }
        match step {
            Step::Tell(message) => teller.tell(&message, &shared).await,
            Step::Wait(until) => {
                let due = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = due => {}
                    () = shared.news.notified() => {}
                }
            }
        }
    }
}

struct Teller {
    client: Client,
    node: String,
    /// How long it waited after the last failure, if that was the last time.
    pause: Option<Duration>,
}

impl Teller {
    async fn tell(&mut self, message: &Message, shared: &Shared) {
        let answer = tokio::time::timeout(PATIENCE, self.request(message)).await;
        let problem = match answer {
            Ok(Ok(())) => {
                shared.ledger().done(message, Instant::now());
                if self.pause.take().is_some() {
                    info!("the cluster takes Events again");
                }
                return;
            }
            Ok(Err(kube::Error::Api(status))) if is_final(status.code) => {
                // This one it will not take, the next one it may.
                shared.ledger().done(message, Instant::now());
                let name = &message.key.regarding.name;
                warn!("the cluster does not take the Event about {name}: {status}");
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        if self.pause.is_none() {
            warn!(
                "the cluster takes no Events, what is wrong is in the log and in `nodeport-agent \
                 status`: {problem}; the agent's role needs `create` and `patch` of \
                 events.k8s.io/events, see deploy/base/rbac.yaml"
            );
        }
        shared.ledger().put_off(message, Instant::now());
        let pause = self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.pause = Some(pause);
        tokio::time::sleep(pause).await;
    }

    async fn request(&self, message: &Message) -> kube::Result<()> {
        let namespace = namespace(&message.key.regarding);
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let name = event_name(&message.key, &message.told);
        let now = MicroTime(Timestamp::now());
        if message.times > 0 {
            let series = EventSeries { count: message.times + 1, last_observed_time: now.clone() };
            let patch = Patch::Merge(json!({ "series": series }));
            match events.patch_metadata(&name, &PatchParams::default(), &patch).await {
                // It was forgotten.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                outcome => return outcome.map(|_| ()),
            }
        }
        let event = event(message, name, namespace, &self.node, now);
        match events.create(&PostParams::default(), &event).await {
            // Another node has told it, or an agent before this one.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}

/// Whether the server has understood the request and will not take it.
const fn is_final(code: u16) -> bool {
    matches!(code, 400..=499) && !matches!(code, 401 | 403 | 408 | 429)
}

fn namespace(regarding: &Regarding) -> &str {
    match &*regarding.name.namespace {
        "" => NAMESPACE_OF_NODES,
        namespace => namespace,
    }
}

fn event(message: &Message, name: String, namespace: &str, node: &str, now: MicroTime) -> Event {
    let Message { key, told, .. } = message;
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(now),
        type_: Some("Warning".to_owned()),
        reason: Some(key.reason.to_owned()),
        action: Some(told.action.to_owned()),
        note: Some(told.note.clone()),
        regarding: Some(reference(&key.regarding)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        // At most 128 bytes of it are taken, and a Node's name may be longer.
        reporting_instance: Some(node[..node.floor_char_boundary(128)].to_owned()),
        ..Event::default()
    }
}

fn reference(regarding: &Regarding) -> ObjectReference {
    let Regarding { kind, name, uid } = regarding;
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let version = match kind {
        Kind::EndpointSlice => "discovery.k8s.io/v1",
        Kind::Service | Kind::Node | Kind::File | Kind::Agent => "v1",
    };
    ObjectReference {
        api_version: text(version),
        kind: Some(format!("{kind:?}")),
        name: text(&name.name),
        namespace: text(&name.namespace),
        uid: text(uid),
        ..ObjectReference::default()
    }
}
