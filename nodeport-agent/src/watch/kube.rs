//! A cluster's API as a source: three watches, each with its own list at the start and after
//! every interruption.

mod reduced;

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1 as core;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use tracing::{info, warn};

use self::reduced::{ReducedService, ReducedSlice};
use super::Store;
use crate::model::{Finding, Kind, Name, Node, Origin, Rules, Service, Severity};

/// Objects that another proxy serves, or none: the API server need not send them.
const OURS: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// A client with the credentials of the file, or of the pod that this runs in.
///
/// # Errors
/// If the credentials cannot be read.
pub(super) async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(file) => from_file(file).await?,
        None => Config::incluster().context(
            "this is no pod of a cluster: give --kubeconfig FILE, or --manifests DIR to run \
             without a cluster",
        )?,
    };
    Client::try_from(config).context("making a client for the cluster's API")
}

async fn from_file(file: &Path) -> anyhow::Result<Config> {
    let wrong = || format!("--kubeconfig {}: it cannot be used", file.display());
    let kubeconfig = Kubeconfig::read_from(file).with_context(wrong)?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(wrong)
}

/// Watches Services.
pub(super) async fn services(client: Client, rules: Rules, store: Arc<Store>) {
    let read = |service: ReducedService| Arc::new(Service::new(service.get(), Origin::Api, &rules));
    let config = watcher::Config::default().labels(OURS);
    let mut listed = Vec::new();
    let events = events::<ReducedService>(Api::all(client), config, "Services", &store);
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(service) => listed.push(read(service)),
            Event::InitDone => store.list_services(std::mem::take(&mut listed)),
            Event::Apply(service) => store.set_service(read(service)),
            Event::Delete(service) => store.remove_service(&read(service).name),
        }
    }
}

/// Watches EndpointSlices.
pub(super) async fn slices(client: Client, store: Arc<Store>) {
    let config = watcher::Config::default().labels(OURS);
    let mut listed = Vec::new();
    let events = events::<ReducedSlice>(Api::all(client), config, "EndpointSlices", &store);
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(slice) => listed.push(slice.into_slice()),
            Event::InitDone => store.list_slices(std::mem::take(&mut listed)),
            Event::Apply(slice) => store.set_slice(slice.into_slice()),
            Event::Delete(slice) => store.remove_slice(&slice.into_slice().name),
        }
    }
}

/// Watches this machine's Node.
pub(super) async fn node(client: Client, name: Arc<str>, store: Arc<Store>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = events::<core::Node>(Api::all(client), config, "the Node", &store);
    pin_mut!(events);
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed = false,
            Event::InitApply(node) | Event::Apply(node) => {
                listed = true;
                store.set_node(Arc::new(Node::new(&node, Origin::Api)));
                store.set_problems("node", Vec::new());
            }
            Event::InitDone => {
                if !listed {
                    store.set_problems("node", vec![missing(&name)]);
                }
                store.list_node();
            }
            Event::Delete(node) => {
                // Its last state tells whether it was to go.
                store.set_node(Arc::new(Node::new(&node, Origin::Api)));
                store.set_problems("node", vec![missing(&name)]);
            }
        }
    }
}

fn missing(name: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        origin: Origin::Api,
        kind: Kind::Node,
        object: Name::new("", name),
        field: String::new(),
        problem: "the cluster has no such Node: what was known of it stays; if the name is wrong, \
                  give --node-name"
            .to_owned(),
    }
}

/// What metrics call what is watched.
fn resource<K: kube::Resource<DynamicType = ()>>() -> &'static str {
    match &*K::kind(&()) {
        "Service" => "services",
        "EndpointSlice" => "endpointslices",
        "Node" => "nodes",
        _ => "others",
    }
}

/// What a watch tells, without its failures: they are logged, and it starts again by itself,
/// after a while that grows.
fn events<K>(
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
    store: &Arc<Store>,
) -> impl Stream<Item = Event<K>> + use<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut failing = false;
    let (store, resource) = (store.clone(), resource::<K>());
    watcher(api, config).default_backoff().filter_map(move |event| {
        store.watches().note(resource, event.is_ok());
        let event = match event {
            Ok(event) => {
                if std::mem::take(&mut failing) {
                    info!("watching {what} works again");
                }
                Some(event)
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!("watching {what} failed, what is known stays in force: {error}");
                }
                None
            }
        };
        std::future::ready(event)
    })
}

#[cfg(test)]
mod tests;
