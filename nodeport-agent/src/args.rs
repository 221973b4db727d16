//! The command line as it is typed; [`crate::config`] makes it into values that can be relied on.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// NodePort load balancing in the kernel's earliest hooks.
#[derive(Debug, Parser)]
#[command(name = "nodeport-agent", version, about)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Name of this instance: several can live on one machine, each with its own maps.
    #[arg(long, global = true, default_value = "default", env = "NODEPORT_INSTANCE")]
    pub instance: String,
    /// Where the bpf file system is mounted.
    #[arg(long, global = true, default_value = "/sys/fs/bpf", value_name = "PATH")]
    pub bpffs: PathBuf,
    /// Where the agent keeps what it knows for the other commands [default: /run/nodeport/INSTANCE].
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// How to log.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,kube=debug.
    #[arg(
        long,
        global = true,
        default_value = "info",
        env = "NODEPORT_LOG",
        value_name = "FILTER"
    )]
    pub log: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch Services and EndpointSlices and keep the data path true to them.
    Run(Box<Run>),
    /// Show the service ports that are served.
    Services,
    /// Show the backends.
    Backends,
    /// Show the flows.
    Flows,
    /// Show interfaces, modes, counters and problems.
    Status,
    /// Detach the programs and remove everything that was pinned.
    Cleanup,
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Folder of manifests (Service, EndpointSlice, Node) to serve, instead of a cluster's API.
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,
    /// Credentials for a cluster's API; without this and --manifests, those of the pod.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this machine's Node object [default: the host's name].
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Ports that Services may use as nodePort.
    #[arg(long, default_value = "30000-32767", value_name = "FIRST-LAST")]
    pub node_port_range: String,
    /// Addresses of this node on which nodePorts are served: primary (the Node object's first InternalIP
    /// of each family), all that its interfaces have, or those of them that are in networks separated by
    /// commas. Packets for others are left to the node's own stack.
    #[arg(long, default_value = "primary", env = "NODEPORT_ADDRESSES", value_name = "NETWORKS")]
    pub nodeport_addresses: String,
    /// Load balancers' addresses (status.loadBalancer.ingress) to serve: all, none, or networks separated
    /// by commas.
    #[arg(long, default_value = "all", value_name = "NETWORKS")]
    pub load_balancer_ips: String,
    /// External IPs (spec.externalIPs) to serve: none, all, or networks. Whoever may write Services can
    /// ask for any address in them.
    #[arg(long, default_value = "none", value_name = "NETWORKS")]
    pub external_ips: String,
    /// Serve ClusterIPs to whoever reaches them through this node from outside.
    #[arg(long)]
    pub cluster_ips: bool,
    /// What spec.loadBalancerSourceRanges guard: the load balancer's addresses, as with kube-proxy, or
    /// nodePorts and external IPs as well.
    #[arg(long, value_enum, default_value_t = SourceRangesArg::LoadBalancer)]
    pub source_ranges: SourceRangesArg,
    /// Interfaces to serve, separated by commas, or auto.
    #[arg(long, default_value = "auto", value_name = "NAMES")]
    pub devices: String,
    /// Hook to use: xdp, tc, or on each interface the better one that works there.
    #[arg(long, value_enum, default_value_t = ModeArg::Auto)]
    pub mode: ModeArg,
    /// How packets get to pods on this node: past the node's own network stack, and so past its firewall,
    /// where a pod has a veth of its own; or all through the stack.
    #[arg(long, value_enum, default_value_t = LocalModeArg::Auto)]
    pub local_mode: LocalModeArg,
    /// What a packet gets for which a service has no backend: refuse it with Port Unreachable, reset
    /// TCP, or drop it.
    #[arg(long, value_enum, default_value_t = NoBackendArg::Refuse)]
    pub no_backend: NoBackendArg,
    /// What to do where a process of this node listens on a port that a service has: the service is
    /// served all the same, and the process told of; the port is left to the process while it listens
    /// (where kube-proxy runs beside, its rules take the port); or nothing is looked for.
    #[arg(
        long,
        value_enum,
        default_value_t = HostListenersArg::Serve,
        env = "NODEPORT_HOST_LISTENERS"
    )]
    pub host_listeners: HostListenersArg,
    /// Where to tell of this agent's health (/healthz, /livez): a port, at all addresses; an address and
    /// a port; or off. Where kube-proxy runs beside, it has port 10256: give another one.
    #[arg(long, default_value = "10256", env = "NODEPORT_HEALTHZ_ADDRESS", value_name = "ADDRESS")]
    pub healthz_address: String,
    /// Answer load balancers that ask at a Service's healthCheckNodePort. Where kube-proxy runs beside,
    /// it does that.
    #[arg(
        long,
        value_enum,
        default_value_t = SwitchArg::On,
        env = "NODEPORT_SERVICE_HEALTH_CHECKS"
    )]
    pub service_health_checks: SwitchArg,
    /// Where to tell of metrics (/metrics): an address and a port; a port, at all addresses; or off. They
    /// name Services, so others than this node see them only if that is asked for.
    #[arg(
        long,
        default_value = "127.0.0.1:10269",
        env = "NODEPORT_METRICS_ADDRESS",
        value_name = "ADDRESS"
    )]
    pub metrics_address: String,
    /// Of what metrics tell: of the node alone; of Services too; or of each backend as well.
    #[arg(
        long,
        value_enum,
        default_value_t = MetricsDetailArg::Backends,
        env = "NODEPORT_METRICS_DETAIL"
    )]
    pub metrics_detail: MetricsDetailArg,
    /// Ports for connections to backends on other nodes.
    #[arg(long, default_value = "10000-29999", value_name = "FIRST-LAST")]
    pub snat_ports: String,
    /// Seed of the choice of backends; the same on all nodes that serve the same addresses
    /// [default: from the UID of the cluster's Service default/kubernetes; 1852793957 without a
    /// cluster, or where that Service is not visible].
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u32>,
    /// Largest number of flows, in each family, at most 2,097,151; memory for all is taken at the start.
    #[arg(long, default_value_t = 262_144, value_name = "NUMBER")]
    pub max_flows: u32,
    /// Largest number of slots in all services' tables; a service with 10 backends takes 1024.
    #[arg(long, default_value_t = DEFAULT_SLOTS, value_name = "NUMBER")]
    pub max_slots: u32,
    /// Largest number of fragments that wait for the first one of their packet; each takes 9 KiB.
    #[arg(long, default_value_t = DEFAULT_FRAGMENTS, value_name = "NUMBER")]
    pub max_fragments: u32,
    /// How long an established TCP connection may be silent (RFC 5382 asks for 2h4m at least).
    #[arg(long, default_value = "8000s", value_name = "TIME")]
    pub tcp_timeout: String,
    /// How long a TCP connection that is opening or closing may be silent.
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub tcp_transient_timeout: String,
    /// How long a TCP connection may be silent after both sides have closed it, or one has reset it;
    /// at most --tcp-transient-timeout.
    #[arg(long, default_value = "10s", value_name = "TIME")]
    pub tcp_closed_timeout: String,
    /// How long a TCP connection may be silent that went on after a reset, or whose client was reset
    /// because the backend is gone; at most --tcp-timeout.
    #[arg(long, default_value = "120s", value_name = "TIME")]
    pub tcp_doubted_timeout: String,
    /// How long a backend may take for its first answer; at most --tcp-transient-timeout or
    /// --udp-timeout.
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub unanswered_timeout: String,
    /// How long a UDP flow may be silent (RFC 4787 asks for 2m at least).
    #[arg(long, default_value = "120s", value_name = "TIME")]
    pub udp_timeout: String,
    /// How long fragments wait for the first one of their packet, and others may follow it.
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub fragment_timeout: String,
}

/// What the `waiting` map is built with.
const DEFAULT_FRAGMENTS: u32 = nodeport_common::abi::maps::WAITING_FRAMES as u32;

/// What the `slots` map is built with.
const DEFAULT_SLOTS: u32 = {
    use nodeport_common::abi::{SLOTS_PER_LINE, maps};
    (maps::SLOT_LINES * SLOTS_PER_LINE) as u32
};

/// Value of `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// XDP where it attaches, else TC.
    Auto,
    /// XDP or fail.
    Xdp,
    /// TC only.
    Tc,
}

/// Value of `--local-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LocalModeArg {
    /// Past the stack where a pod has a veth of its own.
    Auto,
    /// Through the stack.
    Slow,
}

/// Value of `--no-backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NoBackendArg {
    /// Port Unreachable, as kube-proxy.
    Refuse,
    /// RST for TCP to the node's own addresses, Port Unreachable for all else.
    Reset,
    /// Nothing.
    Drop,
}

/// Value of `--source-ranges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceRangesArg {
    /// The load balancer's addresses.
    LoadBalancer,
    /// All addresses that clients outside use.
    All,
}

/// Value of `--host-listeners`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostListenersArg {
    /// The service is served; log and status name the process.
    Serve,
    /// The port is left to the process.
    Yield,
    /// Nothing is looked for.
    Ignore,
}

/// Value of `--metrics-detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricsDetailArg {
    /// Of the node alone.
    Node,
    /// Of Services too.
    Services,
    /// Of backends as well.
    Backends,
}

/// Value of what is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SwitchArg {
    /// Done.
    On,
    /// Not done.
    Off,
}

/// Value of `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Value of `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}
