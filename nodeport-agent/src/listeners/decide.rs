//! What it means that a process listens where a service is, and what is done about it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Found, LOOPBACK, Owner, Process, Socket};
use crate::config::HostListeners;
use crate::model::{Family, PortName, Protocol};
use crate::plan::FrontendAt;

/// A process that listens where a service is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostListener {
    /// Namespace and name of the Service.
    pub service: String,
    /// Name of its port; may be empty.
    pub port_name: String,
    /// The port that both have.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The families in which they meet.
    pub families: Vec<Family>,
    /// Where the process listens; the unspecified address for all of the node.
    pub address: IpAddr,
    /// The process, if it can be seen.
    pub process: Option<Process>,
    /// Path of its control group, if that can be seen.
    pub cgroup: Option<String>,
    /// UID of its pod, if it is in one.
    pub pod: Option<String>,
    /// The user who opened the socket.
    pub uid: u32,
    /// Who gets the packets, and why.
    pub outcome: Outcome,
    /// The owner in words.
    #[serde(skip)]
    pub(crate) owner: String,
}

/// Who gets the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The service, as the user chose.
    Served,
    /// The process, as the user chose.
    Left,
    /// The service: kube-proxy only keeps the port from others, and reads nothing.
    Placeholder,
    /// The service: the process listens at one interface alone, and a port is left at addresses.
    OneInterface,
}

/// Whether packets for the frontend would come to the socket, if we were not there.
pub(crate) fn meets(
    socket: &Socket,
    at: &FrontendAt,
    is_node_address: impl Fn(IpAddr) -> bool,
) -> bool {
    let (address, family) = (socket.at.ip(), at.family());
    if (socket.protocol, socket.at.port()) != (at.protocol, at.port) || socket.interface == LOOPBACK
    {
        return false;
    }
    match at.address.is_unspecified() {
        true => {
            socket.takes_all(family) || (Family::of(address) == family && is_node_address(address))
        }
        false => address == at.address || (socket.takes_all(family) && is_node_address(at.address)),
    }
}

/// Who gets the packets where both are.
pub(crate) fn outcome(found: &Found, rule: HostListeners) -> Outcome {
    match rule {
        _ if found.owner.is_kube_proxy() => Outcome::Placeholder,
        HostListeners::Yield if found.socket.interface != 0 => Outcome::OneInterface,
        HostListeners::Yield => Outcome::Left,
        HostListeners::Serve | HostListeners::Ignore => Outcome::Served,
    }
}

/// The addresses that a socket takes, each family's unspecified one for all of it.
pub(crate) fn addresses(socket: &Socket) -> impl Iterator<Item = IpAddr> {
    let any = |family| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let all = Family::ALL.into_iter().filter(|family| socket.takes_all(*family)).map(any);
    let own = Some(socket.at.ip()).filter(|address| !address.is_unspecified());
    all.chain(own)
}

impl HostListener {
    /// Puts it together.
    pub(crate) fn new(
        service: &PortName,
        families: Vec<Family>,
        found: &Found,
        outcome: Outcome,
    ) -> Self {
        let Found { socket, owner } = found;
        let Owner { process, cgroup, uid, is_beside_kube_proxy: _ } = &**owner;
        Self {
            service: service.service.to_string(),
            port_name: service.port.to_string(),
            port: socket.at.port(),
            protocol: socket.protocol,
            families,
            address: socket.at.ip(),
            process: process.clone(),
            cgroup: cgroup.clone(),
            pod: owner.pod(),
            uid: *uid,
            outcome,
            owner: owner.to_string(),
        }
    }

    /// What follows from it, and what to do.
    fn consequence(&self) -> &'static str {
        match self.outcome {
            Outcome::Served => {
                "the service gets what comes from outside, and the process nothing: give one of them \
                 another port, or leave this one to the process by --host-listeners yield"
            }
            Outcome::Left => {
                "the port is left to the process until that ends (--host-listeners yield); \
                 connections that the service has go on"
            }
            Outcome::Placeholder => {
                "a placeholder, which only keeps the port from others: harmless, the service is served"
            }
            Outcome::OneInterface => {
                "it listens at one interface alone, so the port is not left to it, and the service \
                 is served: give one of them another port"
            }
        }
    }
}

impl fmt::Display for HostListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families: Vec<_> = self.families.iter().map(|family| family.label()).collect();
        write!(
            f,
            "nodePort {}/{} ({}) of Service {}: {} listens on {}: {}",
            self.port,
            self.protocol,
            families.join(", "),
            self.service,
            self.owner,
            SocketAddr::new(self.address, self.port),
            self.consequence()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Name;

    fn socket(address: &str) -> Socket {
        let at = SocketAddr::new(address.parse().unwrap(), 30_007);
        Socket {
            protocol: Protocol::Tcp,
            at,
            takes_ipv4: address == "::",
            interface: 0,
            inode: 1,
            uid: 0,
            cgroup: None,
        }
    }

    fn found(interface: u32, command: &str) -> Found {
        let process = Some(Process { pid: 7, command: command.to_owned() });
        let owner = Owner { process, ..Owner::default() };
        Found { socket: Socket { interface, ..socket("::") }, owner: Arc::new(owner) }
    }

    fn exact(address: &str) -> FrontendAt {
        FrontendAt { address: address.parse().unwrap(), port: 30_007, protocol: Protocol::Tcp }
    }

    #[test]
    fn where_a_socket_and_a_frontend_meet() {
        let node: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let (four, six) = (
            FrontendAt::node_port(Family::V4, 30_007, Protocol::Tcp),
            FrontendAt::node_port(Family::V6, 30_007, Protocol::Tcp),
        );
        let (own, foreign) = (exact("10.0.0.1"), exact("192.0.2.9"));
        for (address, expected) in [
            ("0.0.0.0", [true, false, true, false]),
            ("::", [true, true, true, false]),
            ("10.0.0.1", [true, false, true, false]),
            ("fd00::1", [false, true, false, false]),
            // A load balancer's address may be on the node without nodePorts being served there.
            ("192.0.2.9", [false, false, false, true]),
            ("127.0.0.1", [false; 4]),
            ("fd00::2", [false; 4]),
        ] {
            let met = [four, six, own, foreign]
                .map(|at| meets(&socket(address), &at, |one| node.contains(&one)));
            assert_eq!(met, expected, "{address}");
        }
        let udp = FrontendAt { protocol: Protocol::Udp, ..four };
        let other = FrontendAt { port: 30_008, ..four };
        let inner = Socket { interface: LOOPBACK, ..socket("::") };
        assert!(!meets(&socket("::"), &udp, |_| true) && !meets(&socket("::"), &other, |_| true));
        assert!(!meets(&inner, &four, |_| true), "nothing from outside comes in by the loopback");
    }

    #[test]
    fn the_user_chooses_and_placeholders_never_get_the_port() {
        use HostListeners::{Serve, Yield};
        for (rule, interface, command, expected) in [
            (Serve, 0, "nginx", Outcome::Served),
            (Serve, 5, "nginx", Outcome::Served),
            (Yield, 0, "nginx", Outcome::Left),
            (Yield, 5, "nginx", Outcome::OneInterface),
            (Serve, 0, "kube-proxy", Outcome::Placeholder),
            (Yield, 0, "kube-proxy", Outcome::Placeholder),
        ] {
            assert_eq!(outcome(&found(interface, command), rule), expected, "{rule:?} {command}");
        }
    }

    #[test]
    fn the_addresses_of_a_socket() {
        for (address, expected) in
            [("::", &["0.0.0.0", "::"][..]), ("0.0.0.0", &["0.0.0.0"]), ("fd00::1", &["fd00::1"])]
        {
            let told: Vec<_> = addresses(&socket(address)).map(|one| one.to_string()).collect();
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn the_line_names_all_that_is_needed_and_what_to_do() {
        let service = PortName {
            service: Name::new("default", "web"),
            port: "".into(),
            protocol: Protocol::Tcp,
        };
        let families = vec![Family::V4, Family::V6];
        let listener = HostListener::new(&service, families, &found(0, "nginx"), Outcome::Served);
        assert_eq!(
            listener.to_string(),
            "nodePort 30007/TCP (IPv4, IPv6) of Service default/web: nginx (process 7) listens on \
             [::]:30007: the service gets what comes from outside, and the process nothing: give one \
             of them another port, or leave this one to the process by --host-listeners yield"
        );
    }
}
