//! The command line, checked: every value here can be relied on, and every error says what to
//! change.

mod networks;
mod node_addresses;
mod ports;
mod time;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nodeport_common::core::table::slot::ENTRY_BITS;

pub use networks::Networks;
pub use node_addresses::NodePortAddresses;
pub use ports::PortRange;
use time::duration;

use crate::args::{
    Common, HostListenersArg, LocalModeArg, MetricsDetailArg, ModeArg, NoBackendArg, Run,
    SourceRangesArg, SwitchArg,
};
use crate::health::Ports;
use crate::http::Listen;
use crate::metrics::{Detail, Serving};

/// Folder of all instances' runtime files, if the user names none.
pub(crate) const RUN_DIR: &str = "/run/nodeport";
/// A fixed seed, so that nodes started alike choose alike.
const DEFAULT_SEED: u32 = 1_852_793_957;

/// Flows whose halves the table of flows can name.
pub(crate) const MOST_FLOWS: u32 = ((1 << ENTRY_BITS) - 2) / 2;

/// Fragments that may be told to wait: 576 MiB of them.
const MOST_FRAGMENTS: u32 = 65_536;

/// What names an instance: its maps and its runtime files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Mount point of the bpf file system.
    pub bpffs: PathBuf,
    /// Folder of the runtime files.
    pub run_dir: PathBuf,
}

/// All that `run` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which instance this is.
    pub instance: Instance,
    /// Where the objects come from.
    pub source: Source,
    /// Name of this machine's Node object.
    pub node_name: String,
    /// Ports that may be nodePorts.
    pub node_ports: PortRange,
    /// Addresses of the node on which they are served.
    pub node_port_addresses: NodePortAddresses,
    /// Which addresses of Services are served beside nodePorts.
    pub serves: Serves,
    /// Interfaces to serve.
    pub devices: Devices,
    /// Hook to use.
    pub mode: Mode,
    /// How packets get to pods on this node.
    pub local_mode: LocalMode,
    /// What packets get that no backend is there for.
    pub no_backend: NoBackend,
    /// Who gets packets where a process of the node listens.
    pub host_listeners: HostListeners,
    /// Where health is told.
    pub health: Ports,
    /// Where metrics are told.
    pub metrics: Serving,
    /// Ports for connections to backends on other nodes; apart from `node_ports`.
    pub snat_ports: PortRange,
    /// Seed of the choice of backends, unless the source gives one.
    pub seed: u32,
    /// Sizes of the maps.
    pub sizes: Sizes,
    /// How long flows may be silent.
    pub timeouts: Timeouts,
    /// How long fragments wait for the first one of their packet, and others may follow it.
    pub fragment_timeout: Duration,
}

/// Which addresses of Services are served beside nodePorts, for packets that arrive at the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serves {
    /// ClusterIPs.
    pub cluster_ips: bool,
    /// Addresses of load balancers in these networks.
    pub load_balancer_ips: Networks,
    /// `externalIPs` in these networks: whoever may write Services can ask for any address
    /// (CVE-2020-8554).
    pub external_ips: Networks,
    /// What `loadBalancerSourceRanges` guard.
    pub source_ranges: SourceRanges,
}

/// What `loadBalancerSourceRanges` guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRanges {
    /// Addresses of load balancers, as with kube-proxy.
    LoadBalancer,
    /// All addresses that clients outside use: nodePorts and external IPs as well.
    All,
}

/// Where the objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// A cluster's API.
    Cluster(Cluster),
}

/// A cluster as a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Credentials for its API; without a file, those of the pod that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// It gives the seed of the choice of backends: the user gave none.
    pub gives_seed: bool,
}

/// Interfaces to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Those that look like the node's NICs.
    Auto,
    /// Those of these names.
    Named(Vec<String>),
}

/// Hook to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// XDP where it attaches, else TC.
    Auto,
    /// XDP or fail.
    Xdp,
    /// TC only.
    Tc,
}

/// How packets get to pods on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalMode {
    /// In fast mode, past the node's network stack, where a pod has a veth of its own; else in slow mode.
    Auto,
    /// In slow mode, through the stack. Flows that were opened in fast mode stay in it.
    Slow,
}

/// What packets get that no backend is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBackend {
    /// They are refused with Port Unreachable.
    Refuse,
    /// TCP to an address of the node is reset by its stack; all else is refused.
    Reset,
    /// They are dropped.
    Drop,
}

/// Who gets packets for a service where a process of the node listens on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostListeners {
    /// The service, as with kube-proxy; the process is reported.
    Serve,
    /// The process, as long as it listens.
    Yield,
    /// The service; processes are not looked for.
    Ignore,
}

/// Sizes of the maps that the user chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Flows of each family.
    pub flows: u32,
    /// Slots of all services' tables.
    pub slots: u32,
    /// Fragments that may wait for the first one of their packet.
    pub fragments: u32,
}

/// How long flows may be silent before they are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// An established TCP connection.
    pub tcp: Duration,
    /// A TCP connection that is opening or closing.
    pub tcp_transient: Duration,
    /// A TCP connection that both sides have closed, or one has reset.
    pub tcp_closed: Duration,
    /// A TCP connection after a reset that something followed, or whose backend is gone.
    pub tcp_doubted: Duration,
    /// A flow that its backend has not answered.
    pub unanswered: Duration,
    /// A UDP flow.
    pub udp: Duration,
}

impl Timeouts {
    /// The longest that a flow lives without a packet when its backend is gone, with a minute for the sweep.
    #[must_use]
    pub fn without_backend(&self) -> Duration {
        let Self { tcp: _, tcp_transient, tcp_closed, tcp_doubted, unanswered, udp } = self;
        let longest = [tcp_transient, tcp_closed, tcp_doubted, unanswered, udp].into_iter().max();
        longest.copied().unwrap_or_default() + Duration::from_secs(60)
    }
}

impl Instance {
    /// Checks what every command was given.
    ///
    /// # Errors
    /// If the name cannot be the name of a folder.
    pub fn new(common: &Common) -> anyhow::Result<Self> {
        let name = &common.instance;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure!(
            !name.is_empty() && name.len() <= 63 && name.chars().all(fits),
            "--instance {name:?}: use 1 to 63 letters, digits, '-' and '_'"
        );
        let run_dir = common.run_dir.clone().unwrap_or_else(|| Path::new(RUN_DIR).join(name));
        Ok(Self { name: name.clone(), bpffs: common.bpffs.clone(), run_dir })
    }
}

impl Config {
    /// Checks what `run` was given.
    ///
    /// # Errors
    /// Names the option, what is wrong with it, and what would be right.
    pub fn new(common: &Common, run: &Run) -> anyhow::Result<Self> {
        let node_ports = PortRange::option("--node-port-range", &run.node_port_range)?;
        let snat_ports = PortRange::option("--snat-ports", &run.snat_ports)?;
        ensure!(
            !node_ports.overlaps(snat_ports),
            "--snat-ports {snat_ports} and --node-port-range {node_ports} overlap: a reply to a \
             SNAT port would be taken for a request to a nodePort; choose ranges apart"
        );
        Ok(Self {
            instance: Instance::new(common)?,
            source: source(run)?,
            node_name: node_name(run)?,
            node_ports,
            node_port_addresses: NodePortAddresses::option(&run.nodeport_addresses)?,
            serves: serves(run)?,
            devices: devices(&run.devices)?,
            mode: mode(run.mode),
            local_mode: match run.local_mode {
                LocalModeArg::Auto => LocalMode::Auto,
                LocalModeArg::Slow => LocalMode::Slow,
            },
            no_backend: match run.no_backend {
                NoBackendArg::Refuse => NoBackend::Refuse,
                NoBackendArg::Reset => NoBackend::Reset,
                NoBackendArg::Drop => NoBackend::Drop,
            },
            host_listeners: match run.host_listeners {
                HostListenersArg::Serve => HostListeners::Serve,
                HostListenersArg::Yield => HostListeners::Yield,
                HostListenersArg::Ignore => HostListeners::Ignore,
            },
            health: health(run)?,
            metrics: metrics(run)?,
            snat_ports,
            seed: run.seed.unwrap_or(DEFAULT_SEED),
            sizes: sizes(run)?,
            timeouts: timeouts(run)?,
            fragment_timeout: duration("--fragment-timeout", &run.fragment_timeout)?,
        })
    }
}

fn health(run: &Run) -> anyhow::Result<Ports> {
    let own = listen("--healthz-address", &run.healthz_address)?;
    Ok(Ports { own, services: run.service_health_checks == SwitchArg::On })
}

fn metrics(run: &Run) -> anyhow::Result<Serving> {
    let at = listen("--metrics-address", &run.metrics_address)?;
    ensure!(
        at.is_none() || run.metrics_address != run.healthz_address,
        "--metrics-address and --healthz-address are both {}: choose another port for one",
        run.metrics_address
    );
    let detail = match run.metrics_detail {
        MetricsDetailArg::Node => Detail::Node,
        MetricsDetailArg::Services => Detail::Services,
        MetricsDetailArg::Backends => Detail::Backends,
    };
    Ok(Serving { at, detail })
}

/// Where a server listens, if anywhere.
fn listen(option: &str, text: &str) -> anyhow::Result<Option<Listen>> {
    let wrong = |problem| anyhow::anyhow!("{option} {problem}, or off");
    match text {
        "off" => Ok(None),
        text => Ok(Some(text.parse().map_err(wrong)?)),
    }
}

fn source(run: &Run) -> anyhow::Result<Source> {
    let Some(folder) = &run.manifests else {
        let (kubeconfig, gives_seed) = (run.kubeconfig.clone(), run.seed.is_none());
        return Ok(Source::Cluster(Cluster { kubeconfig, gives_seed }));
    };
    ensure!(
        folder.is_dir(),
        "--manifests {}: there is no such folder; make it, or name another",
        folder.display()
    );
    Ok(Source::Manifests(folder.clone()))
}

fn node_name(run: &Run) -> anyhow::Result<String> {
    let name = match &run.node_name {
        Some(name) => name.clone(),
        // A Node's name is the host's name in lower case, unless the kubelet was told otherwise.
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("reading the host's name; give --node-name")?
            .trim()
            .to_lowercase(),
    };
    ensure!(!name.is_empty(), "--node-name is empty: give the name of this machine's Node object");
    Ok(name)
}

fn devices(value: &str) -> anyhow::Result<Devices> {
    if value == "auto" {
        return Ok(Devices::Auto);
    }
    let mut names = Vec::new();
    for name in value.split(',').map(str::trim) {
        // IFNAMSIZ is 16 with the terminating zero.
        ensure!(
            !name.is_empty() && name.len() <= 15 && !name.contains(['/', ' ']),
            "--devices {value:?}: {name:?} cannot be an interface's name; give names such as \
             eth0,eth1, or auto"
        );
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(Devices::Named(names))
}

fn serves(run: &Run) -> anyhow::Result<Serves> {
    Ok(Serves {
        cluster_ips: run.cluster_ips,
        load_balancer_ips: Networks::option("--load-balancer-ips", &run.load_balancer_ips)?,
        external_ips: Networks::option("--external-ips", &run.external_ips)?,
        source_ranges: match run.source_ranges {
            SourceRangesArg::LoadBalancer => SourceRanges::LoadBalancer,
            SourceRangesArg::All => SourceRanges::All,
        },
    })
}

fn mode(mode: ModeArg) -> Mode {
    match mode {
        ModeArg::Auto => Mode::Auto,
        ModeArg::Xdp => Mode::Xdp,
        ModeArg::Tc => Mode::Tc,
    }
}

fn sizes(run: &Run) -> anyhow::Result<Sizes> {
    let flows = run.max_flows;
    ensure!(
        (1_024..=MOST_FLOWS).contains(&flows),
        "--max-flows {flows}: choose between 1024 and {MOST_FLOWS}"
    );
    let slots = run.max_slots;
    ensure!(
        (1 << 16..=1 << 28).contains(&slots),
        "--max-slots {slots}: choose between {} (one service with the longest table) and {}",
        1 << 16,
        1 << 28
    );
    let fragments = run.max_fragments;
    ensure!(
        (MOST_FRAGMENTS / 4_096..=MOST_FRAGMENTS).contains(&fragments),
        "--max-fragments {fragments}: choose between {} and {MOST_FRAGMENTS} (9 KiB of memory each)",
        MOST_FRAGMENTS / 4_096
    );
    Ok(Sizes { flows, slots, fragments })
}

fn timeouts(run: &Run) -> anyhow::Result<Timeouts> {
    Ok(Timeouts {
        tcp: duration("--tcp-timeout", &run.tcp_timeout)?,
        tcp_transient: duration("--tcp-transient-timeout", &run.tcp_transient_timeout)?,
        tcp_closed: duration("--tcp-closed-timeout", &run.tcp_closed_timeout)?,
        tcp_doubted: duration("--tcp-doubted-timeout", &run.tcp_doubted_timeout)?,
        unanswered: duration("--unanswered-timeout", &run.unanswered_timeout)?,
        udp: duration("--udp-timeout", &run.udp_timeout)?,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use anyhow::bail;

    use super::*;
    use crate::args::{Cli, Command};

    fn config(options: &[&str]) -> anyhow::Result<Config> {
        let cli = Cli::try_parse_from(["nodeport-agent", "run"].iter().chain(options))?;
        match cli.command {
            Command::Run(run) => Config::new(&cli.common, &run),
            other => bail!("{other:?}"),
        }
    }

    fn error(options: &[&str]) -> String {
        format!("{:#}", config(options).expect_err("must be refused"))
    }

    fn cluster(kubeconfig: Option<&str>, gives_seed: bool) -> Source {
        Source::Cluster(Cluster { kubeconfig: kubeconfig.map(PathBuf::from), gives_seed })
    }

    #[test]
    fn defaults_are_valid() {
        let config = config(&["--node-name", "n1"]).unwrap();
        assert_eq!(config.source, cluster(None, true));
        assert_eq!(config.devices, Devices::Auto);
        assert_eq!((config.node_ports.first(), config.node_ports.last()), (30000, 32767));
        assert_eq!(config.snat_ports.count(), 20_000);
        assert_eq!(config.host_listeners, HostListeners::Serve);
        assert_eq!(config.timeouts.tcp, Duration::from_secs(8000));
        assert_eq!(config.instance.run_dir, Path::new("/run/nodeport/default"));
    }

    #[test]
    fn refusals_name_the_option_and_a_way_out() {
        for (options, part) in [
            (&["--node-port-range", "5-4"][..], "--node-port-range \"5-4\": 5 is above 4"),
            (&["--node-port-range", "0-4"], "port 0"),
            (&["--node-port-range", "1-70000"], "\"70000\" is not a port"),
            (&["--node-port-range", "30000"], "FIRST-LAST"),
            (&["--snat-ports", "10000-30000"], "overlap"),
            (&["--devices", "eth0,,eth1"], "--devices"),
            (&["--devices", "a-name-that-is-too-long"], "cannot be an interface's name"),
            (&["--udp-timeout", "soon"], "--udp-timeout \"soon\""),
            (&["--udp-timeout", "5"], "120s"),
            (&["--udp-timeout", "0s"], "between 1s and 168h"),
            (&["--max-flows", "1"], "between 1024"),
            (&["--max-flows", "2097152"], "between 1024 and 2097151"),
            (&["--max-fragments", "1"], "between 16 and 65536"),
            (&["--fragment-timeout", "0s"], "--fragment-timeout \"0s\""),
            (&["--manifests", "/does/not/exist"], "no such folder"),
            (&["--instance", "a/b"], "--instance"),
            (&["--healthz-address", "localhost"], "--healthz-address \"localhost\": write a port"),
            (&["--node-name", ""], "--node-name"),
        ] {
            let text = error(options);
            assert!(text.contains(part), "{options:?}: {text}");
        }
    }

    #[test]
    fn a_cluster_gives_the_seed_unless_one_is_given() {
        for (options, source, seed) in [
            (&[][..], cluster(None, true), DEFAULT_SEED),
            (&["--kubeconfig", "k"], cluster(Some("k"), true), DEFAULT_SEED),
            (&["--seed", "5"], cluster(None, false), 5),
            (&["--manifests", "/"], Source::Manifests("/".into()), DEFAULT_SEED),
            (&["--manifests", "/", "--seed", "5"], Source::Manifests("/".into()), 5),
        ] {
            let config = config(options).unwrap();
            assert_eq!((config.source, config.seed), (source, seed), "{options:?}");
        }
    }

    #[test]
    fn the_help_names_the_default_seed() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        let help = cli.find_subcommand_mut("run").unwrap().render_long_help().to_string();
        assert!(help.contains(&DEFAULT_SEED.to_string()), "{help}");
    }

    #[test]
    fn who_gets_the_port_of_a_listener_is_the_users_choice() {
        for (value, expected) in [
            ("serve", HostListeners::Serve),
            ("yield", HostListeners::Yield),
            ("ignore", HostListeners::Ignore),
        ] {
            assert_eq!(config(&["--host-listeners", value]).unwrap().host_listeners, expected);
        }
        assert!(error(&["--host-listeners", "both"]).contains("serve, yield, ignore"));
    }

    #[test]
    fn interfaces_are_named_once() {
        let config = config(&["--devices", "eth0, eth1,eth0"]).unwrap();
        assert_eq!(config.devices, Devices::Named(vec!["eth0".into(), "eth1".into()]));
    }
}
