//! Every metric there is: its name, kind, labels and meaning. What is exposed, documented and used by
//! dashboards and alerts is held to this list.

/// What kind of a metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the agent (or, where that is said, the data path) starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How values are spread; series `_bucket`, `_sum` and `_count`.
    Histogram,
    /// Always 1: its labels are what it says.
    Info,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name of its series; of a histogram, without what its series have behind it.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence without a full stop at the end.
    pub help: &'static str,
}

impl Metric {
    /// The names of its series.
    pub fn series(&self) -> Vec<String> {
        match self.kind {
            Kind::Histogram => {
                ["bucket", "sum", "count"].map(|end| format!("{}_{end}", self.name)).into()
            }
            _ => vec![self.name.to_owned()],
        }
    }
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal $labels:expr, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: $labels, help: $help };
        )+

        /// All of them, in the order in which they are exposed.
        pub const ALL: &[Metric] = &[$($id),+];
    };
}

/// What names a service port.
const PORT: &[&str] = &["service_namespace", "service_name", "port_name", "port", "protocol"];
const PORT_AND_DIRECTION: &[&str] =
    &["service_namespace", "service_name", "port_name", "port", "protocol", "direction"];
const PORT_AND_REASON: &[&str] =
    &["service_namespace", "service_name", "port_name", "port", "protocol", "reason"];
const PORT_AND_STATE: &[&str] =
    &["service_namespace", "service_name", "port_name", "port", "protocol", "state"];
const PORT_AND_BACKEND: &[&str] =
    &["service_namespace", "service_name", "port_name", "port", "protocol", "backend"];

metrics! {
    SYNC_DURATION: Histogram "kubeproxy_sync_proxy_rules_duration_seconds" &[],
        "How long it took to plan and write what had changed";
    PROGRAMMING: Histogram "kubeproxy_network_programming_duration_seconds" &[],
        "From a change of an endpoint (the EndpointSlice's annotation endpoints.kubernetes.io/last-change-trigger-time) until it was in the maps; without the first listing and what changed before it";
    LAST_SYNC: Gauge "kubeproxy_sync_proxy_rules_last_timestamp_seconds" &[],
        "When all that was known was last in the maps, in seconds since 1970; 0 before that";
    LAST_QUEUED: Gauge "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds" &[],
        "When a Service or EndpointSlice last changed, in seconds since 1970; 0 before that";
    ENDPOINT_CHANGES: Counter "kubeproxy_sync_proxy_rules_endpoint_changes_total" &[],
        "Changes of EndpointSlices";
    ENDPOINT_CHANGES_PENDING: Gauge "kubeproxy_sync_proxy_rules_endpoint_changes_pending" &[],
        "Changes of EndpointSlices that wait to be taken up";
    SERVICE_CHANGES: Counter "kubeproxy_sync_proxy_rules_service_changes_total" &[],
        "Changes of Services";
    SERVICE_CHANGES_PENDING: Gauge "kubeproxy_sync_proxy_rules_service_changes_pending" &[],
        "Changes of Services that wait to be taken up";
    NO_LOCAL_ENDPOINTS: Gauge "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
        &["ip_family", "traffic_policy"],
        "Service ports whose policy is Local and that have endpoints, but none here; internal ones only with --cluster-ips";
    HEALTHZ: Counter "kubeproxy_proxy_healthz_total" &["code"],
        "Answers of /healthz, by HTTP status";
    LIVEZ: Counter "kubeproxy_proxy_livez_total" &["code"],
        "Answers of /livez, by HTTP status";

    BUILD: Info "nodeport_build_info" &["version", "layout"],
        "The agent's version, and that of the layout of its maps";
    STARTED: Gauge "nodeport_started" &[],
        "1 once all is listed and in the maps";
    WATCH_UP: Gauge "nodeport_watch_up" &["resource"],
        "Whether the API server's watch of these objects works; with manifests, there are none";
    WATCH_ERRORS: Counter "nodeport_watch_errors_total" &["resource"],
        "Failures of the API server's watch of these objects; each is tried again";
    FINDINGS: Gauge "nodeport_findings" &["kind", "severity"],
        "What is wrong with objects at present, as status lists it";
    WRITE_FAILURES: Gauge "nodeport_write_failures" &[],
        "Parts of the plan that could not be written to the maps; they are tried again";
    MAP_WRITES: Counter "nodeport_map_writes_total" &[],
        "Writes to the maps; the slots of a table are one";
    SCRAPE_FAILURES: Gauge "nodeport_scrape_failures" &[],
        "Things that could not be read for this scrape and are left out; the log says why";
    DRAINING: Gauge "nodeport_draining" &[],
        "1 while new connections are refused because the data path drains";
    DEVICE: Info "nodeport_device_info" &["device", "mode", "reason"],
        "By which hook an interface of the node is served (xdp, tc, none), and why it is not XDP";
    POD_DEVICES: Gauge "nodeport_pod_devices" &["mode"],
        "Pods' interfaces: pod, served past the node's stack; none, left to it";
    HOST_LISTENER: Info "nodeport_host_listener_conflict"
        &["service", "port_name", "port", "protocol", "outcome"],
        "A process of the node listens where a service is; outcome: served, left, placeholder or one_interface";
    MAP_ENTRIES: Gauge "nodeport_map_entries" &["map"],
        "Entries of a map that are in use; of flows4 and flows6 halves, two a connection";
    MAP_CAPACITY: Gauge "nodeport_map_capacity" &["map"],
        "Entries that a map has room for";
    SNAT_PORTS: Gauge "nodeport_snat_ports" &[],
        "Ports for connections to one backend on another node";
    SNAT_PORTS_BUSIEST: Gauge "nodeport_snat_ports_busiest" &[],
        "Of these ports, those in use towards the backend that takes most";
    PACKETS_BY_REASON: Counter "nodeport_packets_by_reason_total" &["reason"],
        "Packets that were not simply forwarded, since the data path began; the README lists the reasons";

    SERVICE_CONNECTIONS: Counter "nodeport_service_connections_total" PORT,
        "Connections (UDP: flows) opened, since the service port got its place in the maps";
    SERVICE_LIVE: Gauge "nodeport_service_connections_live" PORT,
        "Connections that are not over";
    SERVICE_PACKETS: Counter "nodeport_service_packets_total" PORT_AND_DIRECTION,
        "Packets of connections, since the agent started; direction: to_backend or to_client";
    SERVICE_BYTES: Counter "nodeport_service_bytes_total" PORT_AND_DIRECTION,
        "Bytes of these packets, from the IP header on";
    SERVICE_DROPS: Counter "nodeport_service_drops_total" PORT_AND_REASON,
        "Packets that opened no connection: no_backend, no_port, table_full, source_range";
    SERVICE_BACKENDS: Gauge "nodeport_service_backends" PORT_AND_STATE,
        "Backends on any node: usable, or draining (they keep their connections)";
    BACKEND_CONNECTIONS: Counter "nodeport_backend_connections_total" PORT_AND_BACKEND,
        "Connections (UDP: flows) to a backend that a count has met as new, since the agent started";
    BACKEND_LIVE: Gauge "nodeport_backend_connections_live" PORT_AND_BACKEND,
        "Connections to a backend that are not over";
    BACKENDS_LEFT_OUT: Gauge "nodeport_backends_left_out" &[],
        "Backends without series of their own, because there are too many";
    FLOWS_COUNTED: Gauge "nodeport_flows_counted_timestamp_seconds" &[],
        "When the table of flows was last counted: live connections, packets and bytes are of then";

    CPU: Counter "process_cpu_seconds_total" &[],
        "CPU time of the agent";
    RESIDENT: Gauge "process_resident_memory_bytes" &[],
        "Memory of the agent, with the parts of its maps that it has looked at";
    VIRTUAL: Gauge "process_virtual_memory_bytes" &[],
        "Address space of the agent";
    OPEN_FDS: Gauge "process_open_fds" &[],
        "File descriptors that the agent has open";
    MAX_FDS: Gauge "process_max_fds" &[],
        "File descriptors that it may have open";
    START_TIME: Gauge "process_start_time_seconds" &[],
        "When the agent was started, in seconds since 1970";
}
