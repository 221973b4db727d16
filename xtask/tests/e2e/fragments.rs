//! Datagrams in fragments, to a server that sends them back, in fragments as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nodeport_common::frames::{cut, udp};
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::{Mode, Namespace, PodLink, Topology};

use super::Case;
use super::site::{Site, check, wait};

pub(crate) const CASES: &[Case] = &[
    ("fragments: datagrams of 4,000 to 60,000 bytes, both families, local and remote", veths),
    ("fragments: pods on a bridge", bridge),
    ("fragments: VXLAN between nodes", vxlan),
    ("fragments: to a load balancer's address, with the first one last", balancer),
    ("fragments: many clients at once, with the first one last", crowd),
    ("fragments: those of others get through, and the first one need not come first", others),
];

/// The service's nodePort, and its target.
const PORT: u16 = 30_009;
const TARGET: u16 = 9_000;

/// The service's load balancer.
const BALANCER: [&str; 2] = ["203.0.113.50", "2001:db8:50::1"];

/// Lengths of datagrams; one fits into a packet.
const LENGTHS: [usize; 4] = [1_000, 4_000, 20_000, 60_000];

/// How many client ports there are for each length: enough to meet both pods.
const PORTS: u16 = 8;

/// The first byte of a datagram whose answer comes with its first fragment last.
const REVERSED: u8 = 1;

/// A server in a namespace that sends datagrams back; it ends when this is dropped.
struct Echo {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Result<()>>>>,
}

impl Echo {
    fn start(namespace: &Namespace) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let start = |address| {
            let ends = Arc::clone(&ends);
            namespace.spawn(move || echo(SocketAddr::new(address, TARGET), &ends))
        };
        let threads = any.map(start).into();
        Self { ends, threads }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(Ok(()))) => {}
                other => eprintln!("the echo server: {other:?}"),
            }
        }
    }
}

fn echo(at: SocketAddr, ends: &AtomicBool) -> Result<()> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // All that a crowd asks at a time.
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20))?;
    socket.bind(&at.into()).with_context(|| format!("bind {at}"))?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut buffer = vec![0; 1 << 16];
    while !ends.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        let payload = &buffer[..length];
        if payload.first() == Some(&REVERSED) {
            let own = UdpSocket::bind(SocketAddr::new(at.ip(), 0))?;
            own.connect(peer)?;
            let from = SocketAddr::new(own.local_addr()?.ip(), at.port());
            send_reversed(from, peer, payload)?;
        } else {
            // One that is too long for the way there would be lost, and missed by who waits for it.
            let _ = socket.send_to(payload, peer);
        }
    }
    Ok(())
}

/// Sends a datagram in fragments, the first one last.
fn send_reversed(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    // 1,400 bytes fit through a tunnel as well.
    let frames = cut(&udp(from, to).payload(payload).build(), 1_360, id);
    let raw = Protocol::from(nix::libc::IPPROTO_RAW);
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(raw))?;
    let peer = SocketAddr::new(to.ip(), 0);
    for frame in frames.iter().rev() {
        let packet = frame.get(14..).context("a frame without a packet")?;
        socket.send_to(packet, &peer.into()).with_context(|| format!("send to {to}"))?;
    }
    Ok(())
}

fn payload(length: usize, first: u8) -> Vec<u8> {
    let byte = |at: usize| if at == 0 { first } else { (at * 7 + at / 251) as u8 };
    (0..length).map(byte).collect()
}

/// Asks from one port of the client, and if no answer comes once more from another; what came back. Ids of
/// packets are 16 bits in IPv4, and those that the kernel draws may be ones that [`send_reversed`] gave
/// a moment ago: then nobody can tell the fragments of both apart (RFC 6864).
fn ask(site: &Site, target: SocketAddr, question: &[u8], reversed: bool) -> Result<Vec<u8>> {
    ask_once(site, target, question, reversed)
        .or_else(|_| ask_once(site, target, question, reversed))
}

fn ask_once(site: &Site, target: SocketAddr, question: &[u8], reversed: bool) -> Result<Vec<u8>> {
    let from = site.lab.client().sources(target.ip())[0];
    site.lab.client().namespace().run(|| -> Result<Vec<u8>> {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        if reversed {
            send_reversed(socket.local_addr()?, target, question)?;
        } else {
            socket.send(question)?;
        }
        let mut buffer = vec![0; 1 << 16];
        let length = socket.recv(&mut buffer).context("no answer")?;
        buffer.truncate(length);
        Ok(buffer)
    })?
}

fn serve(topology: &Topology, mode: Mode) -> Result<(Vec<Echo>, Site)> {
    let site = Site::new(topology, mode)?;
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: big}}\nspec:\n  type: LoadBalancer\n  ports:\n    \
         - {{name: big, port: {TARGET}, targetPort: {TARGET}, nodePort: {PORT}, protocol: UDP}}\n\
         status:\n  loadBalancer:\n    ingress: [{{ip: '{}'}}, {{ip: '{}'}}]\n",
        BALANCER[0], BALANCER[1]
    );
    for family in ["IPv4", "IPv6"] {
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: big-{}\n  \
             labels: {{kubernetes.io/service-name: big}}\naddressType: {family}\nports:\n  \
             - {{name: big, port: {TARGET}, protocol: UDP}}\nendpoints:\n",
            family.to_lowercase()
        );
        for pod in site.lab.pods() {
            let [v4, v6] = pod.address().both();
            let address = if family == "IPv4" { v4 } else { v6 };
            text += &format!(
                "  - addresses: [\"{address}\"]\n    nodeName: {}\n    conditions: {{ready: true}}\n",
                pod.node()
            );
        }
    }
    let servers = site.lab.pods().iter().map(|pod| Echo::start(pod.namespace())).collect();
    site.lab.apply("big", &text)?;
    for address in site.addresses("node1") {
        let target = SocketAddr::new(address, PORT);
        wait("the echo service", || ask(&site, target, b"0", false).map(|_| ()))?;
    }
    Ok((servers, site))
}

fn everything(topology: &Topology, mode: Mode) -> Result<()> {
    let (_servers, site) = serve(topology, mode)?;
    let is_narrow = topology.pod_mtu() < topology.mtu;
    for address in site.addresses("node1") {
        let target = SocketAddr::new(address, PORT);
        if is_narrow {
            // The client learns from a Packet Too Big how long its fragments may be.
            wait("smaller fragments", || {
                ask(&site, target, &payload(4_000, 0), false).map(|_| ())
            })?;
        }
        for length in LENGTHS {
            for (reversed, first) in [(false, 0), (false, REVERSED), (true, 0), (true, REVERSED)] {
                for _ in 0..PORTS {
                    let question = payload(length, first);
                    let answer = ask(&site, target, &question, reversed).with_context(|| {
                        let order = format!("reversed there {reversed}, back {first}");
                        format!("{length} bytes to {target}, {order}; {}", site.counters("node1"))
                    })?;
                    check(answer == question, || {
                        format!("{length} bytes to {target} came back changed")
                    })?;
                }
            }
        }
    }
    let counted = site.counters("node1");
    for reason in ["fragment_kept", "fragment_sent"] {
        check(counted.contains(reason), || format!("no {reason}: {counted}"))?;
    }
    let bad = ["fragment_ousted", "raced", "failed", "fragment_dropped"];
    for reason in bad.into_iter().take(if is_narrow { 3 } else { 4 }) {
        check(!counted.contains(reason), || counted.clone())?;
    }
    Ok(())
}

/// An address that is not the node's, and to which it has a route elsewhere: it is not to be told from
/// one that the node forwards to, but by its being a load balancer's.
fn balancer(mode: Mode) -> Result<()> {
    let (_servers, site) = serve(&two_nodes(), mode)?;
    for ((address, own), other) in
        BALANCER.iter().zip(site.addresses("node1")).zip(site.addresses("node2"))
    {
        let route = |via: IpAddr| [format!("route add {address} via {via}")];
        site.lab.client().namespace().ip(&route(own))?;
        site.lab.node("node1").namespace().ip(&route(other))?;
    }
    for address in BALANCER {
        let target = SocketAddr::new(address.parse()?, TARGET);
        wait("the load balancer's address", || ask(&site, target, b"0", false).map(|_| ()))?;
        for length in LENGTHS {
            let question = payload(length, REVERSED);
            let answer = ask(&site, target, &question, true).with_context(|| {
                format!("{length} bytes to {target}; {}", site.counters("node1"))
            })?;
            check(answer == question, || format!("{length} bytes to {target} came back changed"))?;
        }
    }
    Ok(())
}

fn two_nodes() -> Topology {
    Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2"])
}

fn veths(mode: Mode) -> Result<()> {
    everything(&two_nodes(), mode)
}

fn bridge(mode: Mode) -> Result<()> {
    everything(&two_nodes().pod_link(PodLink::Bridge), mode)
}

fn vxlan(mode: Mode) -> Result<()> {
    everything(&two_nodes().fabric(xtask::lab::Fabric::Vxlan), mode)
}

/// Fragments of many packets come side by side, on all processors.
fn crowd(mode: Mode) -> Result<()> {
    const CLIENTS: usize = 8;
    const QUESTIONS: usize = 25;
    let (_servers, site) = serve(&two_nodes(), mode)?;
    let targets = site.addresses("node1").map(|address| SocketAddr::new(address, PORT));
    // Few enough fragments at a time for a receiver, which gives packets up between whose parts there
    // are 64 of others (`net.ipv4.ipfrag_max_dist`).
    let question = payload(6_000, REVERSED);
    let talk = |number: usize| -> Result<()> {
        let target = targets[number % 2];
        (0..QUESTIONS).try_for_each(|_| {
            let answer = ask(&site, target, &question, true).with_context(|| target.to_string())?;
            check(answer == question, || format!("an answer from {target} is not the question"))
        })
    };
    std::thread::scope(|scope| {
        let talk = &talk;
        let threads: Vec<_> = (0..CLIENTS).map(|at| scope.spawn(move || talk(at))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome.with_context(|| site.counters("node1")),
            Err(_) => anyhow::bail!("a client panicked"),
        })
    })
}

/// To a socket of the node itself, by its own address.
fn others(mode: Mode) -> Result<()> {
    let site = Site::new(&two_nodes(), mode)?;
    let _server = Echo::start(site.lab.node("node1").namespace());
    for address in site.addresses("node1") {
        let target = SocketAddr::new(address, TARGET);
        for length in LENGTHS {
            for (reversed, first) in [(false, 0), (true, 0), (true, REVERSED)] {
                let question = payload(length, first);
                let answer = ask(&site, target, &question, reversed).with_context(|| {
                    format!("{length} bytes to {target}; {}", site.counters("node1"))
                })?;
                check(answer == question, || {
                    format!("{length} bytes to {target} came back changed")
                })?;
            }
        }
    }
    Ok(())
}
