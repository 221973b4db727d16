//! What is exposed, read back; and that documents, dashboards and alerts speak of that.

mod exposition;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nodeport_common::abi::ServiceStats;
use nodeport_common::core::table::half::backend_word;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;

use self::exposition::{Exposition, read};
use super::sheet::Sheet;
use super::{Detail, Sources, catalog, services};
use crate::config::Instance;
use crate::dataplane::{Carried, Opened, Traffic, TrafficBoard};
use crate::model::Family;
use crate::model::testing::{name, ready, service, slice};
use crate::plan::SeedRule;
use crate::reconcile::{Listed, Reconciler};
use crate::sync::Sync;
use crate::sync::fake::Fake;
use crate::watch::Store;

/// Of an agent that has not begun and whose maps are not there.
pub(super) fn sources(store: &Arc<Store>) -> Sources {
    sources_of(&agent(store), store)
}

fn agent(store: &Arc<Store>) -> Reconciler {
    let sync = Sync::start(Box::new(Fake::new(1 << 16))).unwrap();
    let settings = crate::plan::testing::settings();
    Reconciler::new(store.clone(), settings, sync, SeedRule::Given(1))
}

fn sources_of(agent: &Reconciler, store: &Arc<Store>) -> Sources {
    let nowhere = std::path::PathBuf::from("/nonexistent");
    Sources {
        instance: Instance { name: "t".into(), bpffs: nowhere.clone(), run_dir: nowhere },
        detail: Detail::Backends,
        store: store.clone(),
        health: agent.health().clone(),
        progress: agent.progress().clone(),
        directory: agent.directory().clone(),
        traffic: Arc::new(TrafficBoard::default()),
    }
}

fn exposed(collector: impl Collector) -> Exposition {
    let (mut registry, mut text) = (Registry::default(), String::new());
    registry.register_collector(Box::new(collector));
    encode(&mut text, &registry).unwrap();
    read(&text)
}

/// A store with a service of two endpoints, one of them elsewhere alone and with the policy Local.
fn world() -> Arc<Store> {
    let store = Arc::new(Store::default());
    let web = service("web", json!([{"port": 80, "nodePort": 30007, "name": "http"}]));
    store.list_services(vec![web]);
    let endpoints = json!([ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2")]);
    store.list_slices(vec![slice("web", 1, json!([{"port": 8080, "name": "http"}]), endpoints)]);
    store.list_node();
    store
}

const WEB: [(&str, &str); 5] = [
    ("service_namespace", "default"),
    ("service_name", "web"),
    ("port_name", "http"),
    ("port", "80"),
    ("protocol", "TCP"),
];

fn web<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    WEB.iter().chain(more).copied().collect()
}

#[test]
fn the_loops_work_is_told_by_kube_proxys_names() {
    let store = world();
    let mut agent = agent(&store);
    let before = exposed(sources_of(&agent, &store));
    let value = |seen: &Exposition, name: &str| seen.value(name, &[]);
    assert_eq!(value(&before, "kubeproxy_sync_proxy_rules_service_changes_pending"), 1.0);
    assert_eq!(value(&before, "kubeproxy_sync_proxy_rules_last_timestamp_seconds"), 0.0);
    assert_eq!(value(&before, "nodeport_started"), 0.0);
    agent.step(Instant::now());
    let after = exposed(sources_of(&agent, &store));
    for (name, expected) in [
        ("kubeproxy_sync_proxy_rules_service_changes_total", 1.0),
        ("kubeproxy_sync_proxy_rules_service_changes_pending", 0.0),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_total", 1.0),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", 0.0),
        ("kubeproxy_sync_proxy_rules_duration_seconds_count", 1.0),
        ("kubeproxy_network_programming_duration_seconds_count", 0.0),
        ("nodeport_started", 1.0),
        ("nodeport_write_failures", 0.0),
    ] {
        assert_eq!(value(&after, name), expected, "{name}");
    }
    assert!(value(&after, "kubeproxy_sync_proxy_rules_last_timestamp_seconds") > 1e9);
    assert!(value(&after, "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds") > 1e9);
    assert!(value(&after, "nodeport_map_writes_total") > 3.0);
    assert!(value(&after, "nodeport_scrape_failures") > 0.0, "there are no maps here");
    agent.step(Instant::now());
    let idle = exposed(sources_of(&agent, &store));
    assert_eq!(value(&idle, "kubeproxy_sync_proxy_rules_duration_seconds_count"), 1.0);
}

#[test]
fn latency_is_of_what_changed_after_the_first_listing() {
    let store = world();
    let mut agent = agent(&store);
    agent.step(Instant::now());
    let changed = |address: &str, trigger| {
        let ports = json!([{"port": 8080, "name": "http"}]);
        let slice = slice("web", 1, ports, json!([ready(address, "n1")]));
        Arc::new(crate::model::Slice { trigger, ..(*slice).clone() })
    };
    let now = jiff::Timestamp::now();
    store.set_slice(changed("10.0.0.3", crate::model::Trigger(Some(now))));
    agent.step(Instant::now());
    store.set_slice(changed("10.0.0.4", crate::model::Trigger(None)));
    agent.step(Instant::now());
    let long_ago = jiff::Timestamp::from_second(1).unwrap();
    store.set_slice(changed("10.0.0.5", crate::model::Trigger(Some(long_ago))));
    agent.step(Instant::now());
    let seen = exposed(sources_of(&agent, &store));
    let name = "kubeproxy_network_programming_duration_seconds";
    assert_eq!(seen.value(&format!("{name}_count"), &[]), 1.0);
    assert_eq!(seen.value(&format!("{name}_bucket"), &[("le", "300.0")]), 1.0);
    assert_eq!(seen.value(&format!("{name}_bucket"), &[("le", "+Inf")]), 1.0);
}

/// Writes what there is to tell of services.
#[derive(Debug)]
struct Of(Vec<Listed>, Traffic, Detail);

impl Collector for Of {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Self(listed, traffic, detail) = self;
        let stats = ServiceStats { opened: 9, no_backend: 1, no_port: 2, table_full: 3, denied: 4 };
        services::encode(&mut Sheet(encoder), listed, traffic, |_| Some(stats), *detail)
    }
}

/// What is listed once the world is served, and traffic of its flows.
fn traffic(store: &Arc<Store>) -> (Vec<Listed>, Traffic) {
    let mut agent = agent(store);
    agent.step(Instant::now());
    let listed = agent.directory().all();
    let mut traffic =
        Traffic { at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)), ..Traffic::default() };
    for one in &listed {
        let carried = Carried { live: 2, packets: [10, 20], bytes: [1_000, 1 << 40] };
        traffic.ports.insert(one.service.id, carried);
        for (opened, backend) in (5..).zip(&one.service.backends) {
            let word = backend_word(backend.index, backend.generation);
            let family = Family::of(backend.address);
            traffic.backends.insert((family, word), Opened { live: 1, opened });
        }
    }
    (listed, traffic)
}

#[test]
fn a_service_port_tells_what_its_flows_carry() {
    let (listed, traffic) = traffic(&world());
    let seen = exposed(Of(listed, traffic, Detail::Backends));
    let value = |name: &str, more: &[(&str, &str)]| seen.value(name, &web(more));
    assert_eq!(value("nodeport_service_connections_total", &[]), 9.0);
    assert_eq!(value("nodeport_service_connections_live", &[]), 2.0);
    let (there, back) = ([("direction", "to_backend")], [("direction", "to_client")]);
    assert_eq!(value("nodeport_service_packets_total", &there), 10.0);
    assert_eq!(value("nodeport_service_packets_total", &back), 20.0);
    assert_eq!(value("nodeport_service_bytes_total", &there), 1_000.0);
    assert_eq!(value("nodeport_service_bytes_total", &back), (1_u64 << 40) as f64);
    for (reason, count) in
        [("no_backend", 1.0), ("no_port", 2.0), ("table_full", 3.0), ("source_range", 4.0)]
    {
        assert_eq!(value("nodeport_service_drops_total", &[("reason", reason)]), count);
    }
    assert_eq!(value("nodeport_service_backends", &[("state", "usable")]), 2.0);
    assert_eq!(value("nodeport_service_backends", &[("state", "draining")]), 0.0);
    let opened = ["10.0.0.1:8080", "10.0.0.2:8080"]
        .map(|at| value("nodeport_backend_connections_total", &[("backend", at)]));
    assert_eq!(opened[0] + opened[1], 11.0);
    assert_eq!(value("nodeport_backend_connections_live", &[("backend", "10.0.0.1:8080")]), 1.0);
    assert_eq!(seen.value("nodeport_flows_counted_timestamp_seconds", &[]), 5.0);
    assert_eq!(seen.value("nodeport_backends_left_out", &[]), 0.0);
}

#[test]
fn backends_may_be_left_out_and_a_removed_service_is() {
    let (listed, flows) = traffic(&world());
    let seen = exposed(Of(listed, flows, Detail::Services));
    assert!(seen.has("nodeport_service_connections_total"));
    assert!(!seen.has("nodeport_backend_connections_total"));

    let store = world();
    let mut agent = agent(&store);
    agent.step(Instant::now());
    assert!(!agent.directory().all().is_empty());
    store.remove_service(&name("web"));
    agent.step(Instant::now());
    assert!(agent.directory().all().is_empty());
}

#[test]
fn there_is_an_end_to_how_many_backends_are_told_of() {
    let (listed, traffic) = traffic(&world());
    let first = &listed[0];
    let backend = &first.service.backends[0];
    let many = (0..30_000_u32).map(|number| {
        let at = SocketAddr::new(std::net::Ipv4Addr::from_bits(number).into(), 80);
        crate::state_file::Backend { address: at.ip(), index: number, ..backend.clone() }
    });
    let service =
        crate::state_file::Service { backends: many.collect(), ..(*first.service).clone() };
    let listed = vec![Listed { service: Arc::new(service), ..first.clone() }];
    let seen = exposed(Of(listed, traffic, Detail::Backends));
    assert_eq!(seen.count("nodeport_backend_connections_total"), 20_000);
    assert_eq!(seen.value("nodeport_backends_left_out", &[]), 10_000.0);
}

/// Labels of any text.
#[derive(Debug)]
struct Odd;

impl Collector for Odd {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let labels = ["a\"} 7\nb", "\\", "ü€", "", "{x=\"y\"}"];
        Sheet(encoder).rows(&catalog::SERVICE_LIVE, [(labels, 5_u64)])
    }
}

#[test]
fn any_text_may_be_a_label() {
    let seen = exposed(Odd);
    let names = WEB.map(|(name, _)| name);
    let values = ["a\"} 7\nb", "\\", "ü€", "", "{x=\"y\"}"];
    let labels: Vec<_> = names.into_iter().zip(values).collect();
    assert_eq!(seen.value("nodeport_service_connections_live", &labels), 5.0);
    assert_eq!(seen.count("nodeport_service_connections_live"), 1);
}

#[test]
fn no_two_metrics_have_a_series_in_common_and_names_end_as_they_should() {
    let mut all: Vec<String> = catalog::ALL.iter().flat_map(catalog::Metric::series).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    for metric in catalog::ALL {
        let is_counter = metric.kind == catalog::Kind::Counter;
        let is_kube_proxys_gauge = metric.name.ends_with("_no_local_endpoints_total");
        assert_eq!(
            metric.name.ends_with("_total"),
            is_counter || is_kube_proxys_gauge,
            "{metric:?}"
        );
        assert!(!metric.help.ends_with('.') && !metric.help.contains('\n'), "{metric:?}");
    }
}
