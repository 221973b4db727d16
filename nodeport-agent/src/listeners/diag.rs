//! The listening sockets of this thread's network namespace, as the kernel's `sock_diag` lists them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload, Nla as _};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::Socket;
use crate::model::{Family, Protocol};
use crate::netlink::{Messages, ask};

/// Attribute with the id of a socket's control group, from Linux 5.8 on.
const INET_DIAG_CGROUP_ID: u16 = 21;

/// What is asked for, one request each.
const KINDS: [(Protocol, Family); 4] = [
    (Protocol::Tcp, Family::V4),
    (Protocol::Tcp, Family::V6),
    (Protocol::Udp, Family::V4),
    (Protocol::Udp, Family::V6),
];

/// The sockets that were listed last.
#[derive(Debug, Default)]
pub struct Listing(HashMap<(Protocol, Family), Vec<Socket>>);

impl Listing {
    /// Lists them anew. Of a kind that cannot be listed, those stay that were listed before; the first
    /// error says why.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or lacks what answers.
    pub fn renew(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for kind in KINDS {
            match list(kind.0, kind.1) {
                Ok(sockets) => drop(self.0.insert(kind, sockets)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// All of them.
    pub fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.0.values().flatten()
    }
}

/// Lists the sockets of one kind.
fn list(protocol: Protocol, family: Family) -> anyhow::Result<Vec<Socket>> {
    list_unnamed(protocol, family).with_context(|| {
        format!(
            "listing the sockets of {protocol} over {family} (sock_diag; where the kernel has it as \
             modules: inet_diag, tcp_diag, udp_diag)"
        )
    })
}

fn list_unnamed(protocol: Protocol, family: Family) -> anyhow::Result<Vec<Socket>> {
    let request = SockDiagMessage::InetRequest(request(protocol, family));
    let socket = ask(NETLINK_SOCK_DIAG, request)?;
    let mut found = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for message in Messages(&bytes) {
            match NetlinkMessage::<SockDiagMessage>::deserialize(message?)?.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    found.extend(socket_of(protocol, &response));
                }
                _ => {}
            }
        }
    }
}

fn request(protocol: Protocol, family: Family) -> InetRequest {
    InetRequest {
        family: if family == Family::V4 { AF_INET } else { AF_INET6 },
        protocol: protocol.number(),
        extensions: ExtensionFlags::empty(),
        states: match protocol {
            Protocol::Tcp => StateFlags::LISTEN,
            // What is connected gets packets of one peer alone.
            Protocol::Udp => StateFlags::CLOSE,
        },
        socket_id: match family {
            Family::V4 => SocketId::new_v4(),
            Family::V6 => SocketId::new_v6(),
        },
    }
}

/// None for one that is bound to no port.
fn socket_of(protocol: Protocol, response: &InetResponse) -> Option<Socket> {
    let id = &response.header.socket_id;
    if id.source_port == 0 {
        return None;
    }
    let is_any6 = id.source_address == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let is_v6_only = response.nlas.contains(&Nla::SkV6Only(true));
    Some(Socket {
        protocol,
        at: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
        takes_ipv4: is_any6 && !is_v6_only,
        interface: id.interface_id,
        inode: response.header.inode,
        uid: response.header.uid,
        cgroup: response.nlas.iter().find_map(cgroup),
    })
}

fn cgroup(attribute: &Nla) -> Option<u64> {
    let Nla::Other(other) = attribute else { return None };
    let mut id = [0; 8];
    if other.kind() != INET_DIAG_CGROUP_ID || other.value_len() != id.len() {
        return None;
    }
    other.emit_value(&mut id);
    Some(u64::from_ne_bytes(id))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable as _, Parseable as _};
    use netlink_packet_sock_diag::inet::InetResponseHeader;
    use netlink_packet_sock_diag::{TCP_LISTEN, inet};

    use super::*;

    fn response(address: &str, port: u16, nlas: &[Nla]) -> InetResponse {
        let source_address: IpAddr = address.parse().unwrap();
        let family = if source_address.is_ipv4() { AF_INET } else { AF_INET6 };
        let id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
        let header = InetResponseHeader {
            family,
            state: TCP_LISTEN,
            timer: None,
            socket_id: SocketId { source_port: port, source_address, interface_id: 3, ..id },
            recv_queue: 0,
            send_queue: 128,
            uid: 33,
            inode: 4711,
        };
        let response = InetResponse { header, nlas: nlas.iter().cloned().collect() };
        let mut bytes = vec![0; response.buffer_len()];
        response.emit(&mut bytes);
        inet::InetResponse::parse(bytes.as_slice()).unwrap()
    }

    fn socket(address: &str, nlas: &[Nla]) -> Socket {
        socket_of(Protocol::Tcp, &response(address, 30_007, nlas)).unwrap()
    }

    #[test]
    fn a_socket_is_read_with_all_that_tells_whose_it_is() {
        let id = Nla::Other(DefaultNla::new(INET_DIAG_CGROUP_ID, 987_654_u64.to_ne_bytes().into()));
        let expected = Socket {
            protocol: Protocol::Tcp,
            at: "10.0.0.1:30007".parse().unwrap(),
            takes_ipv4: false,
            interface: 3,
            inode: 4711,
            uid: 33,
            cgroup: Some(987_654),
        };
        assert_eq!(socket("10.0.0.1", &[Nla::Shutdown(0), id]), expected);
        assert_eq!(socket("10.0.0.1", &[]).cgroup, None, "before Linux 5.8");
        let short = Nla::Other(DefaultNla::new(INET_DIAG_CGROUP_ID, vec![1, 2, 3, 4]));
        assert_eq!(socket("10.0.0.1", &[short]).cgroup, None);
    }

    #[test]
    fn which_families_a_socket_takes() {
        for (address, v6_only, v4, v6) in [
            ("::", false, true, true),
            ("::", true, false, true),
            ("0.0.0.0", false, true, false),
            ("::ffff:0.0.0.0", false, true, false),
            ("fd00::1", false, false, false),
            ("::ffff:10.0.0.1", false, false, false),
        ] {
            let socket = socket(address, &[Nla::SkV6Only(v6_only)]);
            let takes = [Family::V4, Family::V6].map(|family| socket.takes_all(family));
            assert_eq!(takes, [v4, v6], "{address}, of IPv6 alone: {v6_only}");
        }
        assert_eq!(socket("::ffff:10.0.0.1", &[]).at, "10.0.0.1:30007".parse().unwrap());
    }

    #[test]
    fn one_without_a_port_is_none() {
        assert_eq!(socket_of(Protocol::Udp, &response("0.0.0.0", 0, &[])), None);
    }
}
