//! SYNs from addresses that nobody has, as fast as asked for.
//!
//! Sources are of the blocks set aside for benchmarks: 198.18.0.0/15 (RFC 2544, C.2.2) and
//! 2001:2::/48 (RFC 5180, 8). Whoever answers them must have a route there: see
//! [`SOURCES4`] and [`SOURCES6`].

use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use etherparse::{PacketBuilder, TcpOptionElement};
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::Namespace;

/// Where the sources of a flood over IPv4 are.
pub const SOURCES4: &str = "198.18.0.0/15";
/// Where those of one over IPv6 are.
pub const SOURCES6: &str = "2001:2::/48";

/// Packets that are handed to the kernel at a time.
const BATCH: u32 = 32;
/// A flood that was held up for longer does not make up for it: the burst would fill queues that
/// the steady rate does not.
const CATCHES_UP: Duration = Duration::from_millis(5);
/// Source ports of a flood are from here on.
const FIRST_PORT: u16 = 1 << 15;

/// What is sent.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Where to: to each in turn.
    pub targets: Vec<SocketAddr>,
    /// Number of SYNs, no two from one address and port.
    pub count: u32,
    /// At most so many a second.
    pub rate: u32,
    /// Floods of different seeds come from different addresses and ports, as long as they are of
    /// the same `count` and there are no more than 2³² SYNs in all.
    pub seed: u32,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Number of SYNs.
    pub count: u32,
    /// How long it took.
    pub took: Duration,
}

impl Flood {
    /// Sends it from a namespace, by its routes, and waits until all is sent.
    ///
    /// # Errors
    /// If the kernel does not take a packet.
    pub fn run(&self, from: &Namespace) -> Result<Sent> {
        ensure!(self.rate > 0, "a flood needs a rate of at least one packet a second");
        from.run(|| self.send())?.with_context(|| format!("flood {:?}", self.targets))
    }

    fn send(&self) -> Result<Sent> {
        let open = |target: &SocketAddr| raw_socket(*target).map(|socket| (socket, *target));
        let sockets = self.targets.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut turns = sockets.iter().cycle();
        let started = Instant::now();
        let mut due = started;
        let mut sent = 0;
        while sent < self.count {
            let (socket, target) = turns.next().context("it has no target")?;
            let batch = BATCH.min(self.count - sent);
            let first = self.seed.wrapping_mul(self.count).wrapping_add(sent);
            let frames: Vec<Vec<u8>> =
                (0..batch).map(|index| syn(first.wrapping_add(index), *target)).collect();
            send_all(socket, &frames)?;
            sent += batch;
            due += Duration::from_secs(1) * batch / self.rate;
            due = pace(due);
        }
        Ok(Sent { count: sent, took: started.elapsed() })
    }
}

/// Waits until it is due; when the next is due then.
fn pace(due: Instant) -> Instant {
    let now = Instant::now();
    match due.checked_duration_since(now) {
        Some(early) => sleep(early),
        None if now - due > CATCHES_UP => return now,
        None => {}
    }
    due
}

/// A socket that sends IP packets as they are given to it; the kernel fills in IPv4's checksum.
pub(super) fn raw_socket(target: SocketAddr) -> Result<Socket> {
    let raw = Protocol::from(libc::IPPROTO_RAW);
    let socket = Socket::new(Domain::for_address(target), Type::RAW, Some(raw));
    let socket = socket.context("open a raw socket (the lab needs the rights of root)")?;
    // The port means nothing to a raw socket.
    let peer = SocketAddr::new(target.ip(), 0);
    socket.connect(&peer.into()).with_context(|| format!("a route to {}", target.ip()))?;
    Ok(socket)
}

fn send_all(socket: &Socket, frames: &[Vec<u8>]) -> Result<()> {
    let mut sent = 0;
    while let Some(left) = frames.get(sent..).filter(|left| !left.is_empty()) {
        let slices: Vec<[IoSlice<'_>; 1]> = left.iter().map(|f| [IoSlice::new(f)]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(left.len(), None);
        let nobody = vec![None; left.len()];
        let flags = MsgFlags::empty();
        let results = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, nobody, [], flags);
        let count = results.context("send packets")?.count();
        ensure!(count > 0, "the kernel took none of {} packets", left.len());
        sent += count;
    }
    Ok(())
}

/// The SYN of that number: numbers that differ have sources that differ.
fn syn(number: u32, target: SocketAddr) -> Vec<u8> {
    let mixed = mix(number);
    let (address, port) = (mixed >> 15, FIRST_PORT | (mixed & 0x7fff) as u16);
    let builder = match target {
        SocketAddr::V4(target) => {
            let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) | address);
            PacketBuilder::ipv4(source.octets(), target.ip().octets(), 64)
        }
        SocketAddr::V6(target) => {
            let block = u128::from(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0));
            // One of the block's 65,536 subnets, and in it one for each number.
            let subnet = u128::from(address & 0xffff) << 64;
            let source = Ipv6Addr::from(block | subnet | u128::from(mixed));
            PacketBuilder::ipv6(source.octets(), target.ip().octets(), 64)
        }
    };
    let builder = builder.tcp(port, target.port(), mix(mixed), 64_240).syn();
    let builder = builder
        .options(&[TcpOptionElement::MaximumSegmentSize(1_400)])
        .expect("one option fits a header");
    let mut packet = Vec::with_capacity(builder.size(0));
    // It fails for payloads that are too long, and there is none.
    builder.write_to_vec(&mut packet, &[]).expect("a vector takes any packet");
    packet
}

/// Exchanges all 32-bit numbers with each other, such that neighbours are far apart (the finish of
/// MurmurHash3).
const fn mix(number: u32) -> u32 {
    let mixed = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::IpAddr;

    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    /// Source address and port, as another library reads them; panics if a checksum is wrong.
    fn source(packet: &[u8]) -> SocketAddr {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP") };
        assert!(tcp.syn() && !tcp.ack());
        let header = tcp.to_header();
        match sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                let sum = header.calc_checksum_ipv4(&ip.header().to_header(), &[]).unwrap();
                assert_eq!(sum, header.checksum);
                SocketAddr::from((ip.header().source_addr(), header.source_port))
            }
            Some(NetSlice::Ipv6(ip)) => {
                let sum = header.calc_checksum_ipv6(&ip.header().to_header(), &[]).unwrap();
                assert_eq!(sum, header.checksum);
                SocketAddr::from((ip.header().source_addr(), header.source_port))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_two_syns_have_the_same_source_and_all_are_of_the_block() {
        for target in ["10.0.0.1:80", "[fd00::1]:80"].map(|text| text.parse().unwrap()) {
            let sources: HashSet<_> = (0..20_000).map(|n| source(&syn(n, target))).collect();
            assert_eq!(sources.len(), 20_000);
            let addresses: HashSet<_> = sources.iter().map(SocketAddr::ip).collect();
            assert!(addresses.len() > 15_000, "{}", addresses.len());
            for address in addresses {
                let is_inside = match address {
                    IpAddr::V4(address) => {
                        address.octets()[0] == 198 && address.octets()[1] & !1 == 18
                    }
                    IpAddr::V6(address) => address.segments()[..3] == [0x2001, 2, 0],
                };
                assert!(is_inside, "{address}");
            }
        }
    }

    #[test]
    fn mixing_loses_nothing() {
        let mixed: HashSet<u32> = (0..100_000).map(mix).collect();
        assert_eq!(mixed.len(), 100_000);
    }
}
