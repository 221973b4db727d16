//! Building frames.

use std::net::{IpAddr, SocketAddr};
use std::vec::Vec;

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, TcpHeader,
    UdpHeader,
};

use super::{NODE_MAC, PEER_MAC, Pair, by_family};
use crate::core::state::{ACK, FIN, RST, SYN};

/// An ICMP message's type, code and the word behind its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// What stands behind the checksum.
    pub word: [u8; 4],
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP with a checksum.
    Udp,
    /// UDP without one.
    UdpUnsummed,
    /// ICMP or ICMPv6.
    Icmp(Icmp),
}

/// A frame that is being described. Each method changes one thing about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    src: SocketAddr,
    dst: SocketAddr,
    transport: Transport,
    macs: ([u8; 6], [u8; 6]),
    tags: Vec<(u16, u16)>,
    ttl: u8,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    fragment: Option<(u16, bool)>,
    may_fragment: bool,
    own: Option<u8>,
    numbers: (u32, u32),
    payload: Vec<u8>,
}

/// Sequence and acknowledgment number of segments that say nothing else: each acknowledges a SYN
/// that the other side sent with the same numbers.
const NUMBERS: (u32, u32) = (0x0506_0707, 0x0506_0708);

/// A TCP segment with these flags, without payload.
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Draft {
    Draft::new(src, dst, Transport::Tcp(flags))
}

/// A reset that answers with no more than it must: no identification or flow label, no window.
pub fn reset(src: SocketAddr, dst: SocketAddr, flags: u8) -> Draft {
    Draft { own: Some(0), may_fragment: true, ..tcp(src, dst, RST | flags) }
}

/// A UDP datagram with a few bytes.
pub fn udp(src: SocketAddr, dst: SocketAddr) -> Draft {
    Draft::new(src, dst, Transport::Udp).payload(b"nodeport")
}

impl Draft {
    /// A frame from `src` to `dst`, which are of one family.
    pub fn new(src: SocketAddr, dst: SocketAddr, transport: Transport) -> Self {
        Self {
            src,
            dst,
            transport,
            macs: (NODE_MAC, PEER_MAC),
            tags: Vec::new(),
            ttl: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            may_fragment: false,
            own: None,
            numbers: NUMBERS,
            payload: Vec::new(),
        }
    }

    /// An ICMP message that quotes `quote`.
    pub fn icmp(src: IpAddr, dst: IpAddr, message: Icmp, quote: &[u8]) -> Self {
        let (src, dst) = (SocketAddr::new(src, 0), SocketAddr::new(dst, 0));
        Self::new(src, dst, Transport::Icmp(message)).payload(quote)
    }

    /// Ethernet destination and source.
    pub fn macs(self, dst: [u8; 6], src: [u8; 6]) -> Self {
        Self { macs: (dst, src), ..self }
    }

    /// One more VLAN tag, inside those that are there.
    pub fn tag(mut self, kind: u16, id: u16) -> Self {
        self.tags.push((kind, id));
        self
    }

    /// TCP's sequence and acknowledgment number.
    pub fn numbers(self, sequence: u32, acknowledgment: u32) -> Self {
        Self { numbers: (sequence, acknowledgment), ..self }
    }

    /// TTL or hop limit.
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// IPv4 options, a multiple of four bytes.
    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// One more IPv6 extension header of that protocol number; its first byte is filled in.
    pub fn extension(mut self, protocol: u8, header: &[u8]) -> Self {
        self.extensions.push((protocol, header.to_vec()));
        self
    }

    /// An IPv4 fragment: offset in units of 8 bytes, and whether more follow.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        Self { fragment: Some((offset, more)), ..self }
    }

    /// IPv4: routers may fragment it.
    pub fn may_fragment(self) -> Self {
        Self { may_fragment: true, ..self }
    }

    /// A message that a router makes itself: no identification or flow label, internetwork control
    /// as its precedence, and it may be fragmented.
    pub fn from_router(self) -> Self {
        Self { own: Some(0x30), may_fragment: true, ..self }
    }

    /// Payload.
    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// The frame's bytes.
    pub fn build(&self) -> Vec<u8> {
        let (protocol, message) = self.message();
        let header = by_family(
            self.pair(),
            |src, dst| self.ipv4(src, dst, protocol, message.len()).to_bytes().to_vec(),
            |src, dst| self.ipv6(src, dst, protocol, message.len()),
        );
        let mut frame = self.ethernet();
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&message);
        frame
    }

    /// The IP packet without its Ethernet header.
    pub fn packet(&self) -> Vec<u8> {
        self.build().split_off(14 + 4 * self.tags.len())
    }

    fn ethernet(&self) -> Vec<u8> {
        let inner = if self.src.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let kind = self.tags.first().map_or(inner, |tag| EtherType(tag.0));
        let (destination, source) = self.macs;
        let mut bytes =
            Ethernet2Header { source, destination, ether_type: kind }.to_bytes().to_vec();
        for (index, (_, id)) in self.tags.iter().enumerate() {
            let kind = self.tags.get(index + 1).map_or(inner.0, |next| next.0);
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&kind.to_be_bytes());
        }
        bytes
    }

    fn ipv4(&self, src: [u8; 4], dst: [u8; 4], protocol: IpNumber, length: usize) -> Ipv4Header {
        let mut header = Ipv4Header::new(0, self.ttl, protocol, src, dst).expect("fits");
        header.options = self.options.as_slice().try_into().expect("a multiple of 4, at most 40");
        header.set_payload_len(length).expect("fits");
        match self.own {
            Some(dscp) => header.dscp = etherparse::IpDscp::try_new(dscp).expect("6 bits"),
            None => header.identification = 0x1234,
        }
        header.dont_fragment = !self.may_fragment;
        if let Some((offset, more)) = self.fragment {
            header.dont_fragment = false;
            header.more_fragments = more;
            header.fragment_offset = IpFragOffset::try_new(offset).expect("fits");
        }
        header.header_checksum = header.calc_header_checksum();
        header
    }

    fn ipv6(&self, src: [u8; 16], dst: [u8; 16], protocol: IpNumber, length: usize) -> Vec<u8> {
        let kinds = self.extensions.iter().map(|(kind, _)| *kind);
        let mut next = kinds.chain([protocol.0]);
        let extensions: usize = self.extensions.iter().map(|(_, header)| header.len()).sum();
        let label = if self.own.is_some() { 0 } else { 0x12345 };
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: label.try_into().expect("20 bits"),
            payload_length: (length + extensions).try_into().expect("fits"),
            next_header: IpNumber(next.next().unwrap_or(protocol.0)),
            hop_limit: self.ttl,
            source: src,
            destination: dst,
        };
        let mut bytes = header.to_bytes().to_vec();
        for (_, header) in &self.extensions {
            let start = bytes.len();
            bytes.extend_from_slice(header);
            bytes[start] = next.next().unwrap_or(protocol.0);
        }
        bytes
    }

    fn message(&self) -> (IpNumber, Vec<u8>) {
        match self.transport {
            Transport::Tcp(flags) => (IpNumber::TCP, self.tcp(flags)),
            Transport::Udp => (IpNumber::UDP, self.udp(true)),
            Transport::UdpUnsummed => (IpNumber::UDP, self.udp(false)),
            Transport::Icmp(message) => self.icmp_message(message),
        }
    }

    const fn pair(&self) -> Pair {
        (self.src.ip(), self.dst.ip())
    }

    fn tcp(&self, flags: u8) -> Vec<u8> {
        let (sequence, acknowledgment) = self.numbers;
        let window = if self.own.is_some() { 0 } else { 0x1000 };
        let mut header = TcpHeader::new(self.src.port(), self.dst.port(), sequence, window);
        header.acknowledgment_number = acknowledgment;
        header.syn = flags & SYN != 0;
        header.ack = flags & ACK != 0;
        header.fin = flags & FIN != 0;
        header.rst = flags & RST != 0;
        header.checksum = by_family(
            self.pair(),
            |src, dst| header.calc_checksum_ipv4_raw(src, dst, &self.payload),
            |src, dst| header.calc_checksum_ipv6_raw(src, dst, &self.payload),
        )
        .expect("fits");
        [&header.to_bytes(), self.payload.as_slice()].concat()
    }

    fn udp(&self, summed: bool) -> Vec<u8> {
        let mut header = UdpHeader {
            source_port: self.src.port(),
            destination_port: self.dst.port(),
            length: (self.payload.len() + 8).try_into().expect("fits"),
            checksum: 0,
        };
        if summed {
            header.checksum = by_family(
                self.pair(),
                |src, dst| header.calc_checksum_ipv4_raw(src, dst, &self.payload),
                |src, dst| header.calc_checksum_ipv6_raw(src, dst, &self.payload),
            )
            .expect("fits");
        }
        [&header.to_bytes(), self.payload.as_slice()].concat()
    }

    fn icmp_message(&self, Icmp { kind, code, word }: Icmp) -> (IpNumber, Vec<u8>) {
        let mut bytes = [&[kind, code, 0, 0], word.as_slice(), &self.payload].concat();
        let (protocol, sum) = by_family(
            self.pair(),
            |_, _| (IpNumber::ICMP, Sum16BitWords::new()),
            |src, dst| {
                let sum = Sum16BitWords::new()
                    .add_16bytes(src)
                    .add_16bytes(dst)
                    .add_4bytes((bytes.len() as u32).to_be_bytes())
                    .add_2bytes([0, IpNumber::IPV6_ICMP.0]);
                (IpNumber::IPV6_ICMP, sum)
            },
        );
        let checksum = sum.add_slice(&bytes).ones_complement();
        bytes[2..4].copy_from_slice(&checksum.to_ne_bytes());
        (protocol, bytes)
    }
}
