//! Listeners of the node: real sockets, processes and control groups.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nodeport_agent::listeners::diag::Listing;
use nodeport_agent::listeners::{Owner, Socket, Watch, cgroup_paths, holders};
use nodeport_agent::model::{Family, Protocol};

use crate::world::{in_own_world, ip, until};

const POD: &str = "7d1a2b3c-4e5f-4a6b-8c7d-9e0f1a2b3c4d";

fn sockets() -> Vec<Socket> {
    let mut listing = Listing::default();
    listing.renew().unwrap();
    listing.sockets().cloned().collect()
}

/// Protocol, address, and in which families all addresses are meant.
fn told(sockets: &[Socket]) -> Vec<(Protocol, String, Vec<Family>)> {
    let families = |socket: &Socket| {
        Family::ALL.into_iter().filter(|family| socket.takes_all(*family)).collect()
    };
    let mut told: Vec<_> = sockets
        .iter()
        .map(|socket| (socket.protocol, socket.at.to_string(), families(socket)))
        .collect();
    told.sort();
    told
}

#[test]
fn every_socket_at_which_others_arrive_is_listed_as_what_it_is() {
    in_own_world(|_| {
        ip("link set lo up");
        ip("address add fd00:9::1/64 dev n0 nodad");
        assert_eq!(sockets(), [], "a new network namespace has none");
        let tcp = |at: &str| TcpListener::bind(at).unwrap();
        let udp = |at: &str| UdpSocket::bind(at).unwrap();
        let listening = [
            tcp("0.0.0.0:30001"),
            tcp("[::]:30002"),
            tcp("10.9.0.1:30003"),
            tcp("[fd00:9::1]:30004"),
            tcp("[::ffff:10.9.0.1]:30005"),
        ];
        let open = [udp("0.0.0.0:30001"), udp("[::]:30002"), udp("127.0.0.1:30003")];
        fs::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
        let narrow = (tcp("[::]:30006"), udp("[::]:30006"));

        // What has one peer is no listener.
        let stream = TcpStream::connect("127.0.0.1:30001").unwrap();
        let accepted = listening[0].accept().unwrap();
        let connected = udp("127.0.0.1:30009");
        connected.connect("127.0.0.1:30003").unwrap();

        let (v4, v6) = (Family::V4, Family::V6);
        let mut expected = Vec::new();
        for (protocol, at, families) in [
            (Protocol::Tcp, "0.0.0.0:30001", &[v4][..]),
            (Protocol::Tcp, "10.9.0.1:30003", &[]),
            (Protocol::Tcp, "10.9.0.1:30005", &[]),
            (Protocol::Tcp, "[::]:30002", &[v4, v6]),
            (Protocol::Tcp, "[::]:30006", &[v6]),
            (Protocol::Tcp, "[fd00:9::1]:30004", &[]),
            (Protocol::Udp, "0.0.0.0:30001", &[v4]),
            (Protocol::Udp, "127.0.0.1:30003", &[]),
            (Protocol::Udp, "[::]:30002", &[v4, v6]),
            (Protocol::Udp, "[::]:30006", &[v6]),
        ] {
            expected.push((protocol, at.to_owned(), families.to_vec()));
        }
        let all = sockets();
        assert_eq!(told(&all), expected);
        assert!(all.iter().all(|socket| (socket.uid, socket.interface) == (0, 0)));
        drop((stream, accepted, connected, narrow, open, listening));
        until("all are gone", || sockets().is_empty());
    });
}

#[test]
fn a_socket_at_one_interface_is_told_apart() {
    in_own_world(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind_device(Some(b"n0")).unwrap();
            socket.bind("0.0.0.0:30001".parse().unwrap()).unwrap();
            let _listener = socket.listen(1).unwrap();
            let links = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
            let [socket] = &sockets()[..] else { panic!("{:?}, {links}", sockets()) };
            assert_ne!(socket.interface, 0);
        });
    });
}

#[test]
fn the_process_that_has_a_socket_open_is_found() {
    in_own_world(|_| {
        let _listener = TcpListener::bind("0.0.0.0:30001").unwrap();
        let [socket] = &sockets()[..] else { panic!("{:?}", sockets()) };
        let found = holders(&[socket.inode, u32::MAX].into());
        assert_eq!(found.len(), 1);
        assert_eq!(found[&socket.inode].pid, std::process::id());
    });
}

/// A control group with one below it, which go with this value.
struct Group {
    root: PathBuf,
    inner: PathBuf,
}

impl Group {
    /// None if the machine has no cgroup2.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounts.into_iter().find(|fields| fields.get(2) == Some(&"cgroup2"))?;
        let root = Path::new(mount[1]).join(format!("nodeport-test-{}", std::process::id()));
        let inner = root.join("kubepods").join(format!("pod{POD}"));
        fs::create_dir_all(&inner).unwrap();
        Some(Self { root, inner })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in [&self.inner, &self.root.join("kubepods"), &self.root] {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A process that listens; it ends with this value.
struct Process(Child);

impl Process {
    /// Waits for a word before it opens its socket, on all of the IPv4 addresses.
    fn start(port: u16) -> Self {
        // Until it is killed, or whoever started it has gone.
        const LISTEN: &str = "use Socket; $| = 1; <STDIN>; \
            socket(my $socket, PF_INET, SOCK_STREAM, 0) or die $!; \
            bind($socket, sockaddr_in(shift, INADDR_ANY)) or die $!; \
            listen($socket, 1) or die $!; print \"listening\\n\"; <STDIN>";
        let mut command = Command::new("perl");
        command.args(["-e", LISTEN, &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn listen(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        let told = lines.map_while(Result::ok).any(|line| line.contains("listening"));
        assert!(told, "it ended before it listened");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_control_group_leads_from_a_socket_to_its_pod() {
    in_own_world(|_| {
        let Some(group) = Group::new() else {
            println!("skipped: no cgroup2 is mounted");
            return;
        };
        let mut process = Process::start(30_001);
        fs::write(group.inner.join("cgroup.procs"), process.0.id().to_string()).unwrap();
        process.listen();
        let [socket] = &sockets()[..] else { panic!("{:?}", sockets()) };
        let id = socket.cgroup.expect("the kernel tells the group from 5.8 on");
        assert_eq!(id, fs::metadata(&group.inner).unwrap().ino());

        let paths = cgroup_paths(&HashSet::from([id, u64::MAX]));
        assert_eq!(paths.len(), 1);
        let name = format!("/nodeport-test-{}/kubepods/pod{POD}", std::process::id());
        assert_eq!(paths[&id], name);
        let owner = Owner { cgroup: paths.get(&id).cloned(), ..Owner::default() };
        assert_eq!(owner.pod().as_deref(), Some(POD));
        assert_eq!(holders(&[socket.inode].into())[&socket.inode].pid, process.0.id());
        drop(process);
    });
}

#[test]
fn what_matters_is_found_while_it_is_there() {
    in_own_world(|_| {
        let told = Arc::new(AtomicU32::new(0));
        let count = told.clone();
        let old = UdpSocket::bind("0.0.0.0:30002").unwrap();
        let tell = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let watch = Watch::start(tell).unwrap();
        let (tcp, udp) = ((30_001, Protocol::Tcp), (30_002, Protocol::Udp));
        let at = |watch: &Watch| -> Vec<SocketAddr> {
            watch.found().iter().map(|found| found.socket.at).collect()
        };
        assert!(!watch.ask([tcp]), "nothing listens there");
        assert!(watch.ask([tcp, udp]), "but there it does");
        assert!(!watch.ask([udp]), "it is asked for already");
        watch.settle(std::time::Duration::from_secs(10));
        assert_eq!(at(&watch), [SocketAddr::new(IpAddr::from([0; 4]), 30_002)]);
        assert_eq!(told.load(Ordering::Relaxed), 1);

        let (listener, other) =
            (TcpListener::bind("[::]:30001").unwrap(), TcpListener::bind("[::]:30003").unwrap());
        until("the listener is found", || at(&watch).len() == 2);
        let found = watch.found();
        let process = found[0].owner.process.as_ref().unwrap();
        assert_eq!((found[0].socket.at.port(), process.pid), (30_001, std::process::id()));
        drop((listener, old, other));
        until("both are gone", || at(&watch).is_empty());
        assert!(told.load(Ordering::Relaxed) >= 3);
        watch.check().unwrap();
    });
}
