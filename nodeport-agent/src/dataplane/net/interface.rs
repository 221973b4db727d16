//! The interfaces of a network namespace, with what concerns us of their addresses and routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    LinkXdp, VlanProtocol,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use nodeport_common::abi::{Addr4, Addr6, Mac};

use super::socket::dump;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Interface {
    pub(in super::super) ifindex: u32,
    pub(in super::super) name: String,
    pub(in super::super) kind: Kind,
    /// Its packets begin with an Ethernet header.
    pub(in super::super) is_ethernet: bool,
    pub(in super::super) is_up: bool,
    /// It is part of a bridge or bond.
    pub(in super::super) has_master: bool,
    /// It is a veth whose far end is in another network namespace.
    pub(in super::super) is_way_out: bool,
    /// The kind of its queue.
    pub(in super::super) queue: Option<String>,
    /// The XDP program on it.
    pub(in super::super) xdp_program: Option<u32>,
    pub(in super::super) mac: Mac,
    /// Its primary address, zero if none.
    pub(in super::super) address4: Addr4,
    /// The same for IPv6.
    pub(in super::super) address6: Addr6,
    /// One of its addresses has neighbours: its prefix is not of full length.
    pub(in super::super) has_subnet: bool,
    /// A default route goes through it.
    pub(in super::super) has_default: bool,
    /// Of a VLAN device: the interface below it, and the tag that its frames have there.
    pub(in super::super) vlan: Option<Vlan>,
}

/// What makes a VLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Vlan {
    /// The interface below.
    pub(in super::super) lower: u32,
    /// Protocol and VLAN, as in a frame.
    pub(in super::super) tag: [u8; 4],
}

/// What kind of interface it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// A network card, or what behaves like one: bond, team, VLAN, macvlan.
    Nic,
    /// One end of a pair: a node's NIC in a namespace, or the way to a pod.
    Veth,
    /// Ethernet in UDP or GRE.
    Tunnel,
    /// Bridges, loopback and what else there is.
    Other,
}

/// Names of all interfaces, by their numbers.
pub(crate) fn names() -> anyhow::Result<BTreeMap<u32, String>> {
    Ok(links()?.into_iter().map(|(ifindex, interface)| (ifindex, interface.name)).collect())
}

fn links() -> anyhow::Result<BTreeMap<u32, Interface>> {
    let links = dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let link = |message| match message {
        RouteNetlinkMessage::NewLink(link) => Some((link.header.index, from_link(&link))),
        _ => None,
    };
    Ok(links.into_iter().filter_map(link).collect())
}

/// Lists them; with their default routes, if `with_routes`.
pub(in super::super) fn interfaces(with_routes: bool) -> anyhow::Result<Vec<Interface>> {
    let mut found = links()?;
    for message in dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        if let RouteNetlinkMessage::NewAddress(address) = message
            && let Some(interface) = found.get_mut(&address.header.index)
        {
            add_address(interface, &address);
        }
    }
    let through = if with_routes { default_routes()? } else { BTreeSet::new() };
    for ifindex in through {
        if let Some(interface) = found.get_mut(&ifindex) {
            interface.has_default = true;
        }
    }
    Ok(found.into_values().collect())
}

fn default_routes() -> anyhow::Result<BTreeSet<u32>> {
    let mut through = BTreeSet::new();
    for message in dump(&RouteNetlinkMessage::GetRoute(RouteMessage::default()))? {
        if let RouteNetlinkMessage::NewRoute(route) = message
            && is_default(&route)
        {
            through.extend(interfaces_of(&route));
        }
    }
    Ok(through)
}

/// Whether it is a route to everywhere.
pub(super) fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

fn interfaces_of(route: &RouteMessage) -> Vec<u32> {
    let of = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(ifindex) => vec![*ifindex],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(of).collect()
}

fn from_link(link: &LinkMessage) -> Interface {
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    let mut interface = Interface {
        ifindex: link.header.index,
        name: String::new(),
        kind: if is_ethernet { Kind::Nic } else { Kind::Other },
        is_ethernet,
        is_up: link.header.flags.contains(LinkFlags::Up),
        has_master: false,
        is_way_out: is_way_out(&link.attributes),
        queue: None,
        xdp_program: None,
        mac: Mac::default(),
        address4: Addr4::default(),
        address6: Addr6::default(),
        has_subnet: false,
        has_default: false,
        vlan: vlan(&link.attributes),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(address) => {
                interface.mac = Mac::try_from(address.as_slice()).unwrap_or_default();
            }
            LinkAttribute::Controller(master) => interface.has_master = *master != 0,
            LinkAttribute::LinkInfo(infos) => interface.kind = kind(infos, interface.kind),
            LinkAttribute::Qdisc(kind) => interface.queue = Some(kind.clone()),
            LinkAttribute::Xdp(xdp) => interface.xdp_program = xdp_program(xdp),
            _ => {}
        }
    }
    interface
}

/// Whether these are of a veth whose far end is in another network namespace.
fn is_way_out(attributes: &[LinkAttribute]) -> bool {
    let is_veth = attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    });
    let is_elsewhere = |attribute| matches!(attribute, &LinkAttribute::LinkNetNsId(_));
    is_veth && attributes.iter().any(is_elsewhere)
}

fn vlan(attributes: &[LinkAttribute]) -> Option<Vlan> {
    let mut lower = None;
    for attribute in attributes {
        match attribute {
            LinkAttribute::Link(ifindex) => lower = Some(*ifindex),
            // The number is another namespace's.
            LinkAttribute::LinkNetNsId(_) => return None,
            _ => {}
        }
    }
    let data = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
            _ => None,
        }),
        _ => None,
    })?;
    let (mut protocol, mut id) = (u16::from(VlanProtocol::Ieee8021Q), None);
    for value in data {
        match value {
            InfoVlan::Protocol(value) => protocol = (*value).into(),
            InfoVlan::Id(value) => id = Some(*value),
            _ => {}
        }
    }
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), id?.to_be_bytes());
    Some(Vlan { lower: lower?, tag: [a, b, c, d] })
}

fn kind(infos: &[LinkInfo], otherwise: Kind) -> Kind {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        None => otherwise,
        Some(
            InfoKind::Bond
            | InfoKind::Team
            | InfoKind::Vlan
            | InfoKind::MacVlan
            | InfoKind::IpVlan
            | InfoKind::Netdevsim,
        ) => Kind::Nic,
        Some(InfoKind::Veth | InfoKind::Netkit) => Kind::Veth,
        Some(
            InfoKind::Vxlan
            | InfoKind::Geneve
            | InfoKind::GreTap
            | InfoKind::GreTap6
            | InfoKind::BareUdp,
        ) => Kind::Tunnel,
        Some(_) => Kind::Other,
    }
}

fn xdp_program(xdp: &[LinkXdp]) -> Option<u32> {
    xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    })
}

/// The first address of each family that is global and lasts is the primary one.
fn add_address(interface: &mut Interface, message: &AddressMessage) {
    // In IPv6 the bit of secondary addresses marks temporary ones.
    let passing = AddressHeaderFlags::Secondary
        | AddressHeaderFlags::Deprecated
        | AddressHeaderFlags::Tentative;
    let header = &message.header;
    if header.scope != AddressScope::Universe || header.flags.intersects(passing) {
        return;
    }
    match own_address(message) {
        Some(IpAddr::V4(address)) => {
            interface.has_subnet |= header.prefix_len < 32;
            if interface.address4 == Addr4::default() {
                interface.address4 = address.octets();
            }
        }
        Some(IpAddr::V6(address)) => {
            interface.has_subnet |= header.prefix_len < 128;
            if interface.address6 == Addr6::default() {
                interface.address6 = address.octets();
            }
        }
        None => {}
    }
}

/// `IFA_LOCAL` is the own address; `IFA_ADDRESS` is the other end's on point-to-point links, and
/// the only one in IPv6.
pub(super) fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

#[cfg(test)]
pub(in super::super) mod testing {
    use super::*;

    /// An interface that is up and has nothing else.
    pub(in super::super::super) fn interface(ifindex: u32, name: &str, kind: Kind) -> Interface {
        Interface {
            ifindex,
            name: name.to_owned(),
            kind,
            is_ethernet: true,
            is_up: true,
            has_master: false,
            is_way_out: false,
            queue: None,
            xdp_program: None,
            mac: [2, 0, 0, 0, 0, ifindex as u8],
            address4: Addr4::default(),
            address6: Addr6::default(),
            has_subnet: false,
            has_default: false,
            vlan: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, prefix_len: u8, flags: AddressHeaderFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.prefix_len = prefix_len;
        message.header.flags = flags;
        message.attributes.push(AddressAttribute::Address(text.parse().unwrap()));
        message
    }

    #[test]
    fn the_first_lasting_address_is_primary() {
        let mut eth0 = testing::interface(2, "eth0", Kind::Nic);
        let lasting = AddressHeaderFlags::Permanent;
        add_address(&mut eth0, &address("10.0.0.9", 24, AddressHeaderFlags::Secondary));
        assert_eq!(eth0.address4, [0; 4]);
        add_address(&mut eth0, &address("10.0.0.1", 32, lasting));
        assert!(!eth0.has_subnet);
        add_address(&mut eth0, &address("10.0.0.2", 24, lasting));
        assert_eq!((eth0.address4, eth0.has_subnet), ([10, 0, 0, 1], true));
        add_address(&mut eth0, &address("2001:db8::7", 64, AddressHeaderFlags::Tentative));
        assert_eq!(eth0.address6, [0; 16]);
    }

    #[test]
    fn link_local_addresses_do_not_count() {
        let mut eth0 = testing::interface(2, "eth0", Kind::Nic);
        let mut message = address("fe80::1", 64, AddressHeaderFlags::Permanent);
        message.header.scope = AddressScope::Link;
        add_address(&mut eth0, &message);
        assert_eq!((eth0.address6, eth0.has_subnet), ([0; 16], false));
    }

    #[test]
    fn the_own_address_of_a_point_to_point_link_counts() {
        let mut message = address("10.0.0.2", 32, AddressHeaderFlags::Permanent);
        message.attributes.push(AddressAttribute::Local("10.0.0.1".parse().unwrap()));
        assert_eq!(own_address(&message), Some("10.0.0.1".parse().unwrap()));
    }
}
