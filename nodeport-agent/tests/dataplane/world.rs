//! A world of a test's own: network namespace, mounts, bpf file system, run directory. It goes
//! with the thread that lives in it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nodeport_agent::config::{
    Config, Devices, HostListeners, Instance, LocalMode, Mode, Networks, NoBackend,
    NodePortAddresses, PortRange, Serves, Sizes, Source, SourceRanges, Timeouts,
};
use nodeport_agent::dataplane::status::{self, DeviceMode, DeviceStatus};
use nodeport_agent::health::Ports;
use nodeport_agent::metrics::{Detail, Serving};
use nodeport_common::abi::LAYOUT_VERSION;

pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// Runs a test in a world of its own; says so if it cannot.
pub(crate) fn in_own_world(test: impl FnOnce(&World) + Send + 'static) {
    if !nodeport_agent::dataplane::is_built_in() {
        println!("skipped: the eBPF object is stubbed; run `cargo xtask test`");
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let life = std::thread::spawn(move || test(&World::new()));
    if let Err(panic) = life.join() {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let world = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(world.bpffs()).unwrap();
        mount(Some("bpf"), &world.bpffs(), Some("bpf"), MsFlags::empty(), none).unwrap();
        world.veth("n0", Ipv4Addr::new(10, 9, 0, 1));
        world
    }

    /// A veth with an address, whose other end has the same name with a `p`.
    pub(crate) fn veth(&self, name: &str, address: Ipv4Addr) {
        ip(&format!("link add {name} type veth peer name {name}p"));
        ip(&format!("address add {address}/24 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("link set {name}p up"));
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    pub(crate) fn run_dir(&self, instance: &str) -> PathBuf {
        self.folder.path().join("run").join(instance)
    }

    pub(crate) fn instance(&self, name: &str) -> Instance {
        Instance { name: name.to_owned(), bpffs: self.bpffs(), run_dir: self.run_dir(name) }
    }

    pub(crate) fn config(&self, instance: &str, devices: &[&str]) -> Config {
        Config {
            instance: self.instance(instance),
            source: Source::Manifests(self.folder.path().to_owned()),
            node_name: "node".to_owned(),
            node_ports: PortRange::new(30_000, 32_767).unwrap(),
            node_port_addresses: NodePortAddresses::Primary,
            serves: Serves {
                cluster_ips: false,
                load_balancer_ips: Networks::all(),
                external_ips: Networks::none(),
                source_ranges: SourceRanges::LoadBalancer,
            },
            devices: Devices::Named(devices.iter().map(|name| (*name).to_owned()).collect()),
            mode: Mode::Auto,
            local_mode: LocalMode::Auto,
            no_backend: NoBackend::Refuse,
            host_listeners: HostListeners::Serve,
            health: Ports { own: None, services: false },
            metrics: Serving { at: None, detail: Detail::Backends },
            snat_ports: PortRange::new(10_000, 10_099).unwrap(),
            seed: 1,
            sizes: Sizes { flows: 4_096, slots: 65_536, fragments: 64 },
            timeouts: Timeouts {
                tcp: Duration::from_secs(100),
                tcp_transient: Duration::from_secs(100),
                tcp_closed: Duration::from_secs(100),
                tcp_doubted: Duration::from_secs(100),
                unanswered: Duration::from_secs(100),
                udp: Duration::from_secs(100),
            },
            fragment_timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn pins(&self, instance: &str) -> PathBuf {
        self.bpffs().join("nodeport").join(instance).join(format!("v{LAYOUT_VERSION}"))
    }

    /// Names of the pinned links, with their ids and those of their programs.
    pub(crate) fn links(&self, instance: &str) -> Vec<(String, u32, u32)> {
        let mut links: Vec<_> = names(&self.pins(instance).join("links"))
            .into_iter()
            .filter_map(|name| {
                let path = self.pins(instance).join("links").join(&name);
                let link = match aya::programs::links::PinnedLink::from_pin(&path) {
                    Ok(link) => link,
                    // It was replaced since the folder was listed.
                    Err(_) if !path.exists() => return None,
                    Err(error) => panic!("{}: {error}", path.display()),
                };
                let info = aya::programs::links::FdLink::from(link).info().unwrap();
                Some((name, info.id(), info.program_id()))
            })
            .collect();
        links.sort();
        links
    }

    pub(crate) fn device(&self, instance: &str, name: &str) -> Option<DeviceStatus> {
        let devices = status::read(&self.run_dir(instance)).unwrap();
        devices.into_iter().find(|device| device.name == name)
    }

    /// How an interface is served, and the code of the reason.
    pub(crate) fn mode(&self, instance: &str, name: &str) -> Option<(DeviceMode, String)> {
        let attached = self.device(instance, name)?.attached;
        Some((attached.mode, attached.reason.map(|reason| reason.code).unwrap_or_default()))
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs `ip` with these arguments in this thread's namespaces.
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// Runs a command in this thread's namespaces.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{error}");
    text
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// A network namespace beside this thread's, as a pod's; it goes with this value.
pub(crate) struct Elsewhere(Child);

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let process = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let this = Self(process);
        let namespace = format!("/proc/{}/ns/net", this.0.id());
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        until("it has a namespace of its own", || std::fs::read_link(&namespace).unwrap() != here);
        this
    }

    /// A veth without addresses, whose other end is there.
    pub(crate) fn veth(&self, name: &str) {
        let process = self.0.id();
        ip(&format!("link add {name} type veth peer name {name} netns {process}"));
        ip(&format!("link set {name} up"));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // It has ended by itself, or does now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
