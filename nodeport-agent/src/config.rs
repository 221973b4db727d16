//! The command line, checked: every value here can be relied on, and every error says what to
//! change.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::args::{Common, ModeArg, Run};

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
    /// Interfaces to serve.
    pub devices: Devices,
    /// Hook to use.
    pub mode: Mode,
    /// Ports for connections to backends on other nodes; apart from `node_ports`.
    pub snat_ports: PortRange,
    /// Seed of the choice of backends.
    pub seed: u32,
    /// Sizes of the maps.
    pub sizes: Sizes,
    /// How long flows may be silent.
    pub timeouts: Timeouts,
}

/// Where the objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// A cluster's API, with these credentials.
    Kubeconfig(PathBuf),
    /// The API of the cluster in which this runs as a pod.
    InCluster,
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

/// Sizes of the maps that the user chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Established flows of each family.
    pub flows: u32,
    /// Slots of all services' tables.
    pub slots: u32,
}

/// How long flows may be silent before they are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// An established TCP connection.
    pub tcp: Duration,
    /// A TCP connection that is opening or closing.
    pub tcp_transient: Duration,
    /// A UDP flow.
    pub udp: Duration,
}

/// A range of ports, first and last included; never empty, never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
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
        let run_dir =
            common.run_dir.clone().unwrap_or_else(|| Path::new("/run/nodeport").join(name));
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
            devices: devices(&run.devices)?,
            mode: mode(run.mode),
            snat_ports,
            seed: run.seed,
            sizes: sizes(run)?,
            timeouts: timeouts(run)?,
        })
    }
}

fn source(run: &Run) -> anyhow::Result<Source> {
    let Some(folder) = &run.manifests else {
        return Ok(run.kubeconfig.clone().map_or(Source::InCluster, Source::Kubeconfig));
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
        (1_024..=1 << 26).contains(&flows),
        "--max-flows {flows}: choose between 1024 and {}",
        1 << 26
    );
    let slots = run.max_slots;
    ensure!(
        (1 << 16..=1 << 28).contains(&slots),
        "--max-slots {slots}: choose between {} (one service with the longest table) and {}",
        1 << 16,
        1 << 28
    );
    Ok(Sizes { flows, slots })
}

fn timeouts(run: &Run) -> anyhow::Result<Timeouts> {
    Ok(Timeouts {
        tcp: duration("--tcp-timeout", &run.tcp_timeout)?,
        tcp_transient: duration("--tcp-transient-timeout", &run.tcp_transient_timeout)?,
        udp: duration("--udp-timeout", &run.udp_timeout)?,
    })
}

/// A time as people write it: a number with ms, s, m or h, or several of them (`2h4m`).
fn duration(option: &str, value: &str) -> anyhow::Result<Duration> {
    let wrong = || format!("{option} {value:?}: write a time such as 120s, 5m or 2h4m");
    let mut total = Duration::ZERO;
    let mut rest = value.trim();
    ensure!(!rest.is_empty(), wrong());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).with_context(wrong)?;
        let number: u32 = rest[..digits].parse().with_context(wrong)?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += unit(&rest[..letters]).with_context(wrong)? * number;
        rest = &rest[letters..];
    }
    // Flows are looked through about once a second, and their clock has 32 bits.
    let range = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
    ensure!(range.contains(&total), "{option} {value:?}: choose between 1s and 168h");
    Ok(total)
}

fn unit(letters: &str) -> Option<Duration> {
    match letters {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_secs(60)),
        "h" => Some(Duration::from_secs(3600)),
        _ => None,
    }
}

impl PortRange {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// If it is empty or holds port 0.
    pub fn new(first: u16, last: u16) -> anyhow::Result<Self> {
        ensure!(first != 0, "port 0 cannot be used; start at 1 or above");
        ensure!(first <= last, "{first} is above {last}; write the smaller port first");
        Ok(Self { first, last })
    }

    fn option(option: &str, value: &str) -> anyhow::Result<Self> {
        value.parse().with_context(|| format!("{option} {value:?}"))
    }

    /// First port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Last port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// All its ports.
    #[must_use]
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// Whether the port is in it.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        self.ports().contains(&port)
    }

    /// Whether some port is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = anyhow::Error;

    fn from_str(value: &str) -> anyhow::Result<Self> {
        let Some((first, last)) = value.split_once('-') else {
            bail!("write a range as FIRST-LAST, such as 30000-32767");
        };
        let port = |text: &str| {
            text.trim().parse::<u16>().with_context(|| {
                format!("{text:?} is not a port; write a range such as 30000-32767")
            })
        };
        Self::new(port(first)?, port(last)?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

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

    #[test]
    fn defaults_are_valid() {
        let config = config(&["--node-name", "n1"]).unwrap();
        assert_eq!(config.source, Source::InCluster);
        assert_eq!(config.devices, Devices::Auto);
        assert_eq!((config.node_ports.first(), config.node_ports.last()), (30000, 32767));
        assert_eq!(config.snat_ports.count(), 20_000);
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
            (&["--manifests", "/does/not/exist"], "no such folder"),
            (&["--instance", "a/b"], "--instance"),
            (&["--node-name", ""], "--node-name"),
        ] {
            let text = error(options);
            assert!(text.contains(part), "{options:?}: {text}");
        }
    }

    #[test]
    fn times_add_up() {
        assert_eq!(duration("--x", "2h4m").unwrap(), Duration::from_secs(7440));
        assert_eq!(duration("--x", "1500ms").unwrap(), Duration::from_millis(1500));
    }

    #[test]
    fn interfaces_are_named_once() {
        let config = config(&["--devices", "eth0, eth1,eth0"]).unwrap();
        assert_eq!(config.devices, Devices::Named(vec!["eth0".into(), "eth1".into()]));
    }
}
