//! Taking frames apart, and looking for what is wrong with them.

use std::format;
use std::net::{IpAddr, SocketAddr};
use std::string::{String, ToString};
use std::vec::Vec;

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, SingleVlanHeader, TcpHeader,
    UdpHeader,
};

use super::{Pair, by_family};
use crate::core::state::{ACK, FIN, RST, SYN};

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Ethernet destination.
    pub dst_mac: [u8; 6],
    /// Ethernet source.
    pub src_mac: [u8; 6],
    /// Number of VLAN tags.
    pub tags: usize,
    /// Source; port 0 if it is neither TCP nor UDP.
    pub src: SocketAddr,
    /// Destination; port 0 if it is neither TCP nor UDP.
    pub dst: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Protocol number of what follows the IP headers.
    pub protocol: u8,
    /// TCP flags; 0 if it is not TCP.
    pub flags: u8,
    /// UDP's checksum; `None` if it is not UDP.
    pub udp_checksum: Option<u16>,
    /// What stands behind the transport header; of an ICMP message, the whole message.
    pub payload: Vec<u8>,
    faults: Vec<String>,
}

/// What is wrong with a frame: wrong checksums, and headers that cannot be read.
pub fn faults(frame: &[u8]) -> Vec<String> {
    match View::new(frame) {
        Ok(view) => view.faults,
        Err(error) => std::vec![error],
    }
}

/// What is wrong with a packet that an ICMP error quotes: of what the quote reaches to. It may
/// end anywhere behind the ports.
pub fn quote_faults(quote: &[u8]) -> Vec<String> {
    let whole = match quote.first().map(|byte| byte >> 4) {
        Some(4) => Ipv4Header::from_slice(quote).map(|(header, _)| usize::from(header.total_len)),
        _ => return quote6_faults(quote),
    };
    let Ok(whole) = whole else { return std::vec!["the quoted header is cut short".to_string()] };
    if quote.len() >= whole {
        return ip_faults(quote);
    }
    match Ipv4Header::from_slice(quote) {
        Ok((header, _)) if header.header_checksum != header.calc_header_checksum() => {
            std::vec!["quoted IPv4 header checksum".to_string()]
        }
        _ => Vec::new(),
    }
}

fn quote6_faults(quote: &[u8]) -> Vec<String> {
    match Ipv6Header::from_slice(quote) {
        Ok((header, rest)) if rest.len() >= usize::from(header.payload_length) => ip_faults(quote),
        Ok(_) => Vec::new(),
        Err(error) => std::vec![format!("quoted header: {error}")],
    }
}

fn ip_faults(packet: &[u8]) -> Vec<String> {
    let kind = if packet[0] >> 4 == 4 { EtherType::IPV4 } else { EtherType::IPV6 };
    let header = Ethernet2Header { source: [0; 6], destination: [0; 6], ether_type: kind };
    faults(&[&header.to_bytes(), packet].concat())
}

/// The addresses, for the pseudo-header.
impl View {
    /// Takes a frame apart.
    ///
    /// # Errors
    /// If a header cannot be read; the message says which.
    pub fn new(frame: &[u8]) -> Result<Self, String> {
        let (ethernet, mut rest) = Ethernet2Header::from_slice(frame).map_err(text("Ethernet"))?;
        let (mut kind, mut tags) = (ethernet.ether_type, 0);
        while matches!(kind, EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING) {
            let (tag, behind) = SingleVlanHeader::from_slice(rest).map_err(text("VLAN"))?;
            (kind, rest, tags) = (tag.ether_type, behind, tags + 1);
        }
        let unspecified = SocketAddr::from(([0; 4], 0));
        let mut view = Self {
            dst_mac: ethernet.destination,
            src_mac: ethernet.source,
            tags,
            src: unspecified,
            dst: unspecified,
            ttl: 0,
            protocol: 0,
            flags: 0,
            udp_checksum: None,
            payload: Vec::new(),
            faults: Vec::new(),
        };
        match kind {
            EtherType::IPV4 => view.ipv4(rest)?,
            EtherType::IPV6 => view.ipv6(rest)?,
            other => return Err(format!("EtherType {other:?}")),
        }
        Ok(view)
    }

    fn ipv4(&mut self, packet: &[u8]) -> Result<(), String> {
        let (header, rest) = Ipv4Header::from_slice(packet).map_err(text("IPv4"))?;
        if header.header_checksum != header.calc_header_checksum() {
            self.faults.push("IPv4 header checksum".to_string());
        }
        let length = usize::from(header.payload_len().map_err(text("IPv4 length"))?);
        let payload = rest.get(..length).ok_or("the frame ends inside the IPv4 packet")?;
        self.ttl = header.time_to_live;
        let pair = (IpAddr::from(header.source), IpAddr::from(header.destination));
        if header.is_fragmenting_payload() {
            return Err("a fragment".to_string());
        }
        self.transport(header.protocol, pair, payload)
    }

    fn ipv6(&mut self, packet: &[u8]) -> Result<(), String> {
        let (header, rest) = Ipv6Header::from_slice(packet).map_err(text("IPv6"))?;
        let length = usize::from(header.payload_length);
        let payload = rest.get(..length).ok_or("the frame ends inside the IPv6 packet")?;
        let next = header.next_header;
        let (protocol, payload) = Ipv6Header::skip_all_header_extensions_in_slice(payload, next)
            .map_err(text("IPv6 extensions"))?;
        self.ttl = header.hop_limit;
        let pair = (IpAddr::from(header.source), IpAddr::from(header.destination));
        self.transport(protocol, pair, payload)
    }

    fn transport(&mut self, kind: IpNumber, pair: Pair, message: &[u8]) -> Result<(), String> {
        self.protocol = kind.0;
        (self.src, self.dst) = (SocketAddr::new(pair.0, 0), SocketAddr::new(pair.1, 0));
        match kind {
            IpNumber::TCP => self.tcp(pair, message),
            IpNumber::UDP => self.udp(pair, message),
            IpNumber::ICMP | IpNumber::IPV6_ICMP => {
                self.icmp(kind, pair, message);
                Ok(())
            }
            _ => {
                self.payload = message.to_vec();
                Ok(())
            }
        }
    }

    fn tcp(&mut self, pair: Pair, message: &[u8]) -> Result<(), String> {
        let (header, payload) = TcpHeader::from_slice(message).map_err(text("TCP"))?;
        self.src.set_port(header.source_port);
        self.dst.set_port(header.destination_port);
        for (set, bit) in
            [(header.syn, SYN), (header.ack, ACK), (header.fin, FIN), (header.rst, RST)]
        {
            self.flags |= if set { bit } else { 0 };
        }
        let right = by_family(
            pair,
            |src, dst| header.calc_checksum_ipv4_raw(src, dst, payload),
            |src, dst| header.calc_checksum_ipv6_raw(src, dst, payload),
        )
        .map_err(text("TCP length"))?;
        if header.checksum != right {
            self.faults.push(format!("TCP checksum {:#06x}, not {right:#06x}", header.checksum));
        }
        self.payload = payload.to_vec();
        Ok(())
    }

    fn udp(&mut self, pair: Pair, message: &[u8]) -> Result<(), String> {
        let (header, payload) = UdpHeader::from_slice(message).map_err(text("UDP"))?;
        self.src.set_port(header.source_port);
        self.dst.set_port(header.destination_port);
        let right = by_family(
            pair,
            |src, dst| header.calc_checksum_ipv4_raw(src, dst, payload),
            |src, dst| header.calc_checksum_ipv6_raw(src, dst, payload),
        )
        .map_err(text("UDP length"))?;
        self.udp_checksum = Some(header.checksum);
        let none = header.checksum == 0;
        if none && pair.0.is_ipv6() {
            self.faults.push("UDP over IPv6 without a checksum".to_string());
        } else if !none && header.checksum != right {
            self.faults.push(format!("UDP checksum {:#06x}, not {right:#06x}", header.checksum));
        }
        self.payload = payload.to_vec();
        Ok(())
    }

    fn icmp(&mut self, kind: IpNumber, pair: Pair, message: &[u8]) {
        let mut sum = Sum16BitWords::new();
        if let (IpAddr::V6(src), IpAddr::V6(dst)) = pair {
            sum = sum
                .add_16bytes(src.octets())
                .add_16bytes(dst.octets())
                .add_4bytes((message.len() as u32).to_be_bytes())
                .add_2bytes([0, kind.0]);
        }
        if sum.add_slice(message).ones_complement() != 0 {
            self.faults.push("ICMP checksum".to_string());
        }
        self.payload = message.to_vec();
    }
}

fn text<E: ToString>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {}", error.to_string())
}
