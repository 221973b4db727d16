//! The lab itself: plain routing works in it, and nothing of it stays.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use xtask::lab::client::{Close, Load, Transport, get};
use xtask::lab::server::{PORT, sha256};
use xtask::lab::{Fabric, Lab, PodLink, Topology};

fn two_nodes() -> Topology {
    Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2", "web-3"])
}

fn build(topology: &Topology) -> Lab {
    assert!(geteuid().is_root(), "the lab needs the rights of root: run the tests with them");
    Lab::build(topology).unwrap_or_else(|error| panic!("{error:#}"))
}

fn targets(lab: &Lab, pod: &str) -> [SocketAddr; 2] {
    lab.pod(pod).address().both().map(|address| SocketAddr::new(address, PORT))
}

/// Every pod answers the client and the other pods, which see each other's own addresses.
fn everyone_reaches_everyone(topology: &Topology) {
    let lab = build(topology);
    for pod in ["web-1", "web-2", "web-3"] {
        for target in targets(&lab, pod) {
            let answers = [lab.client().get(target), lab.client().get_udp(target)];
            for answer in answers {
                let answer = answer.unwrap_or_else(|error| panic!("client to {pod}: {error:#}"));
                assert_eq!(answer.by, pod);
                assert!(answer.source_kept(), "{answer:?}");
            }
            from_pods(&lab, pod, target);
        }
    }
}

fn from_pods(lab: &Lab, pod: &str, target: SocketAddr) {
    for other in lab.pods().iter().filter(|other| other.name() != pod) {
        let answer = get(other.namespace(), None, target);
        let answer = answer.unwrap_or_else(|error| panic!("{} to {pod}: {error:#}", other.name()));
        assert_eq!(answer.by, pod);
        assert!(other.address().both().contains(&answer.saw.ip()), "{answer:?}");
    }
}

#[test]
fn segment_with_veths() {
    everyone_reaches_everyone(&two_nodes());
}

#[test]
fn segment_with_bridges() {
    everyone_reaches_everyone(&two_nodes().pod_link(PodLink::Bridge));
}

#[test]
fn routed() {
    everyone_reaches_everyone(&two_nodes().fabric(Fabric::Routed));
}

#[test]
fn vxlan() {
    everyone_reaches_everyone(&two_nodes().fabric(Fabric::Vxlan));
}

#[test]
fn vxlan_with_bridges_behind_a_router() {
    let topology = two_nodes().fabric(Fabric::Vxlan).pod_link(PodLink::Bridge).narrow(1400);
    everyone_reaches_everyone(&topology);
}

#[test]
fn a_download_passes_the_narrow_router_and_it_is_narrow() {
    for fabric in [Fabric::Segment, Fabric::Routed] {
        let lab = build(&two_nodes().fabric(fabric).narrow(1300));
        for target in targets(&lab, "web-2") {
            let download = lab.client().download(target, 3_000_000).unwrap();
            assert_eq!(download.sha256, sha256(3_000_000));
        }
        // The pod has learnt the path's size from the router: nothing else tells it.
        let client = lab.client().addresses()[0].v4.to_string();
        let route = lab.pod("web-2").namespace().capture("ip", &["route", "get", &client]).unwrap();
        assert!(route.contains("mtu 1300"), "{fabric:?}: {route}");
    }
}

#[test]
fn many_connections_come_from_all_addresses() {
    let lab = build(&two_nodes());
    for (transport, target) in
        [Transport::Tcp, Transport::Udp].into_iter().zip(targets(&lab, "web-1"))
    {
        let load = Load { transport, ..Load::new(target, 800) };
        let outcome = lab.client().load(&load).unwrap();
        outcome.all_answered().unwrap();
        outcome.fair(&["web-1"], 0.0).unwrap();
        assert_eq!(outcome.sources_kept, 800);
        assert_eq!(outcome.seen.len(), 8, "{:?}", outcome.seen);
        assert!(outcome.seen.values().all(|count| *count == 100), "{:?}", outcome.seen);
    }
}

#[test]
fn ports_are_used_again_at_once() {
    let lab = build(&two_nodes());
    for close in [Close::ByServer, Close::Reset] {
        let load = Load {
            close,
            workers: 4,
            one_source: true,
            ports: Some(20_000..=20_019),
            ..Load::new(targets(&lab, "web-1")[0], 400)
        };
        lab.client().load(&load).unwrap().all_answered().unwrap();
    }
}

#[test]
fn failures_are_counted_and_named() {
    let lab = build(&two_nodes());
    let nobody = SocketAddr::new(lab.pod("web-1").address().v4.into(), 81);
    let outcome = lab.client().load(&Load { workers: 2, ..Load::new(nobody, 10) }).unwrap();
    assert_eq!((outcome.answered(), outcome.failed()), (0, 10), "{outcome}");
    let text = format!("{:#}", outcome.all_answered().unwrap_err());
    assert!(text.contains("10 of 10") && text.contains("refused"), "{text}");
}

#[test]
fn pods_come_and_go() {
    let mut lab = build(&two_nodes());
    let [target, _] = targets(&lab, "web-1");
    lab.client().get(target).unwrap();
    lab.remove_pod("web-1").unwrap();
    assert!(lab.client().get(target).is_err());
    assert!(lab.remove_pod("web-1").is_err());
    lab.add_pod("node1", "web-4").unwrap();
    let [again, _] = targets(&lab, "web-4");
    assert_ne!(again, target, "addresses are not given twice");
    assert_eq!(lab.client().get(again).unwrap().by, "web-4");
}

/// What a lab leaves, by the traces that it could leave.
fn traces(lab: &Path) -> Vec<String> {
    let name = lab.file_name().unwrap().to_string_lossy().into_owned();
    let mut traces = Vec::new();
    if lab.exists() {
        traces.push(format!("folder {}", lab.display()));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned));
    let groups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let groups = groups.map(|root| Path::new(root).join("nodeport-lab").join(&name));
    traces.extend(groups.iter().filter(|group| group.exists()).map(|group| format!("{group:?}")));
    traces
}

fn gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z"))
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    let lab = build(&two_nodes());
    let path = lab.path().to_path_buf();
    let before = traces(&path);
    // Folder, its tmpfs, 7 namespaces, 2 BPF file systems, a group.
    assert_eq!(before.len(), 12, "{before:#?}");
    drop(lab);
    assert_eq!(traces(&path), Vec::<String>::new());
}

#[test]
fn a_panic_leaves_nothing() {
    let test = || {
        let lab = build(&two_nodes());
        std::panic::panic_any(lab.path().to_path_buf());
    };
    let panic = std::thread::spawn(test).join().unwrap_err();
    let path = panic.downcast::<PathBuf>().unwrap();
    assert_eq!(traces(&path), Vec::<String>::new());
}

/// A lab in another process, and the process of one of its servers.
struct Other {
    child: Child,
    lab: PathBuf,
    server: u32,
}

fn another_process() -> Other {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["lab", "up", "--foreground", "--nodes", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.into_iter().find(|line| line.starts_with("its folder is ")).unwrap();
    let lab = PathBuf::from(line["its folder is ".len()..].split(';').next().unwrap());
    let server = server_of(&lab);
    Other { child, lab, server }
}

fn server_of(lab: &Path) -> u32 {
    let namespace = fs::metadata(lab.join("ns/web-1-1")).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&namespace);
    let link = format!("net:[{inode}]");
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let inside = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|found| found.to_string_lossy() == link)
    };
    pids.into_iter().find(inside).expect("a server runs in the pod")
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_interrupt_leaves_nothing() {
    let Other { mut child, lab, server } = another_process();
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(traces(&lab), Vec::<String>::new());
    wait_until("the server ends", || gone(server));
}

#[test]
fn what_a_killed_process_leaves_goes_with_the_next_lab() {
    let Other { mut child, lab, server } = another_process();
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    drop(build(&Topology::new(1)));
    assert_eq!(traces(&lab), Vec::<String>::new());
    wait_until("the server ends", || gone(server));
}

#[test]
fn the_rest_of_the_machine_is_untouched() {
    let look = || {
        let calls: [&[&str]; 4] =
            [&["-brief", "addr"], &["-brief", "link"], &["route"], &["-6", "route"]];
        calls.map(|call| {
            let output = Command::new("ip").args(call).output().unwrap();
            assert!(output.status.success(), "ip {call:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    };
    let before = look();
    let lab = build(&two_nodes().fabric(Fabric::Vxlan));
    let during = look();
    drop(lab);
    assert_eq!(before, during);
    assert_eq!(before, look());
}
