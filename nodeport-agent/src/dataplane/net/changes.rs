//! Which notifications matter. Next hops in flows are good until a route, link, address or usable
//! neighbour changes; much of what rtnetlink says is none of that.

use std::net::IpAddr;

use foldhash::HashMap;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::super::filters::is_ours;
use super::interface::is_default;
use super::socket::Heard;

/// What has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Change {
    /// The way that some packets take.
    pub(in super::super) hops: bool,
    /// Which interfaces there are, or what should be attached to which.
    pub(in super::super) interfaces: bool,
    /// The queues and filters at some interface: others may have a hand in it now, or no more.
    pub(in super::super) filters: bool,
}

/// Tells changes from repetitions.
#[derive(Debug, Default)]
pub(in super::super) struct Changes {
    links: HashMap<u32, Link>,
    /// Neighbours that packets can be sent to, and their Ethernet addresses.
    neighbours: HashMap<(u32, IpAddr), Vec<u8>>,
}

/// What matters of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    flags: u32,
    name: String,
    address: Vec<u8>,
    mtu: u32,
    master: u32,
    /// The number of the network namespace that its other end, or what is below it, is in.
    elsewhere: Option<i32>,
}

impl Change {
    /// Anything may have changed.
    pub(in super::super) const ALL: Self = Self { hops: true, interfaces: true, filters: true };
    const NONE: Self = Self { hops: false, interfaces: false, filters: false };
    const HOPS: Self = Self { hops: true, ..Self::NONE };
    const FILTERS: Self = Self { filters: true, ..Self::NONE };

    /// Both together.
    pub(in super::super) const fn and(self, other: Self) -> Self {
        Self {
            hops: self.hops || other.hops,
            interfaces: self.interfaces || other.interfaces,
            filters: self.filters || other.filters,
        }
    }
}

impl Changes {
    /// What a notification comes to.
    pub(in super::super) fn learn(&mut self, heard: &Heard) -> Change {
        match heard {
            Heard::Silence => Change::NONE,
            Heard::Something => {
                // What was missed may have been the end of any of these.
                *self = Self::default();
                Change::ALL
            }
            Heard::Messages(messages) => messages
                .iter()
                .map(|message| self.learn_message(message))
                .fold(Change::NONE, Change::and),
        }
    }

    fn learn_message(&mut self, message: &RouteNetlinkMessage) -> Change {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.link(link),
            RouteNetlinkMessage::DelLink(link) => {
                self.links.remove(&link.header.index);
                Change::ALL
            }
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Change::ALL,
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                Change { interfaces: is_default(route), ..Change::HOPS }
            }
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.neighbour(neighbour, true),
            RouteNetlinkMessage::DelNeighbour(neighbour) => self.neighbour(neighbour, false),
            // What we do ourselves is no news, but that our filters go is.
            RouteNetlinkMessage::NewTrafficFilter(filter)
                if is_ours(filter.header.handle.into()) =>
            {
                Change::NONE
            }
            RouteNetlinkMessage::NewTrafficFilter(_)
            | RouteNetlinkMessage::DelTrafficFilter(_)
            | RouteNetlinkMessage::NewQueueDiscipline(_)
            | RouteNetlinkMessage::DelQueueDiscipline(_) => Change::FILTERS,
            // They do nothing without a queue or a filter.
            RouteNetlinkMessage::NewTrafficClass(_)
            | RouteNetlinkMessage::DelTrafficClass(_)
            | RouteNetlinkMessage::NewTrafficChain(_)
            | RouteNetlinkMessage::DelTrafficChain(_)
            | RouteNetlinkMessage::NewTrafficAction(_)
            | RouteNetlinkMessage::DelTrafficAction(_) => Change::NONE,
            // Rules, next hop objects, and what is not known here.
            _ => Change::HOPS,
        }
    }

    fn link(&mut self, message: &LinkMessage) -> Change {
        let relevant = LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp;
        let mut link = Link { flags: (message.header.flags & relevant).bits(), ..Link::default() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(address) => link.address.clone_from(address),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(master) => link.master = *master,
                LinkAttribute::LinkNetNsId(id) => link.elsewhere = Some(*id),
                _ => {}
            }
        }
        let before = self.links.insert(message.header.index, link.clone());
        if before == Some(link) { Change::NONE } else { Change::ALL }
    }

    /// A neighbour matters when it becomes usable, is usable by another address, or is usable no
    /// more.
    fn neighbour(&mut self, message: &NeighbourMessage, exists: bool) -> Change {
        let Some(address) = destination(message) else { return Change::NONE };
        let key = (message.header.ifindex, address);
        let changed = match ethernet_address(message).filter(|_| exists) {
            Some(ethernet) => {
                self.neighbours.insert(key, ethernet.to_vec()).as_deref() != Some(ethernet)
            }
            None => self.neighbours.remove(&key).is_some(),
        };
        if changed { Change::HOPS } else { Change::NONE }
    }
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some((*address).into())
        }
        _ => None,
    })
}

/// The neighbour's Ethernet address, if packets can be sent to it.
fn ethernet_address(message: &NeighbourMessage) -> Option<&[u8]> {
    let is_usable = !matches!(
        message.header.state,
        NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed
    );
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(address) => Some(address.as_slice()),
        _ => None,
    });
    address.filter(|_| is_usable)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteMessage;

    use super::*;

    fn neighbour(state: NeighbourState, ethernet: u8) -> Heard {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 2;
        message.header.state = state;
        let address = NeighbourAddress::Inet([10, 0, 0, 1].into());
        message.attributes.push(NeighbourAttribute::Destination(address));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![ethernet; 6]));
        Heard::Messages(vec![RouteNetlinkMessage::NewNeighbour(message)])
    }

    #[test]
    fn neighbours_matter_when_what_can_be_sent_changes() {
        let mut changes = Changes::default();
        for (state, ethernet, matters) in [
            (NeighbourState::Incomplete, 1, false),
            (NeighbourState::Reachable, 1, true),
            (NeighbourState::Stale, 1, false),
            (NeighbourState::Delay, 1, false),
            (NeighbourState::Reachable, 2, true),
            (NeighbourState::Failed, 2, true),
            (NeighbourState::Failed, 2, false),
            (NeighbourState::Permanent, 2, true),
        ] {
            let change = changes.learn(&neighbour(state, ethernet));
            assert_eq!((change.hops, change.interfaces), (matters, false), "{state:?} {ethernet}");
        }
    }

    #[test]
    fn links_matter_when_something_we_use_changes() {
        let mut changes = Changes::default();
        let link = |mtu, queue| {
            let mut message = LinkMessage::default();
            message.header.index = 2;
            message.attributes.push(LinkAttribute::Mtu(mtu));
            message.attributes.push(LinkAttribute::TxQueueLen(queue));
            Heard::Messages(vec![RouteNetlinkMessage::NewLink(message)])
        };
        assert_eq!(changes.learn(&link(1500, 1)), Change::ALL);
        assert_eq!(changes.learn(&link(1500, 2)), Change::NONE);
        assert_eq!(changes.learn(&link(9000, 2)), Change::ALL);
    }

    #[test]
    fn only_default_routes_concern_interfaces() {
        let mut changes = Changes::default();
        let mut route = RouteMessage::default();
        route.header.kind = netlink_packet_route::route::RouteType::Unicast;
        let message = RouteNetlinkMessage::NewRoute(route.clone());
        let default = Change { interfaces: true, ..Change::HOPS };
        assert_eq!(changes.learn(&Heard::Messages(vec![message])), default);
        route.header.destination_prefix_length = 24;
        let message = RouteNetlinkMessage::DelRoute(route);
        assert_eq!(changes.learn(&Heard::Messages(vec![message])), Change::HOPS);
    }

    #[test]
    fn what_others_do_in_traffic_control_is_news() {
        use RouteNetlinkMessage as Of;
        use netlink_packet_route::tc::TcMessage;
        let mut changes = Changes::default();
        let mut message = |of: fn(TcMessage) -> Of, handle: u32| {
            let mut message = TcMessage::default();
            message.header.handle = handle.into();
            changes.learn(&Heard::Messages(vec![of(message)]))
        };
        let (ours, theirs) = (0x4e50_0001, 1);
        assert!(is_ours(ours));
        for (of, handle, change) in [
            (Of::NewTrafficFilter as fn(TcMessage) -> Of, ours, Change::NONE),
            (Of::DelTrafficFilter, ours, Change::FILTERS),
            (Of::NewTrafficFilter, theirs, Change::FILTERS),
            (Of::DelTrafficFilter, theirs, Change::FILTERS),
            (Of::NewQueueDiscipline, theirs, Change::FILTERS),
            (Of::DelQueueDiscipline, theirs, Change::FILTERS),
            (Of::NewTrafficClass, theirs, Change::NONE),
        ] {
            assert_eq!(message(of, handle), change, "{handle:#x}");
        }
    }

    #[test]
    fn after_a_loss_anything_may_have_changed() {
        let mut changes = Changes::default();
        changes.learn(&neighbour(NeighbourState::Reachable, 1));
        assert_eq!(changes.learn(&Heard::Something), Change::ALL);
        assert!(changes.learn(&neighbour(NeighbourState::Reachable, 1)).hops);
        assert_eq!(changes.learn(&Heard::Silence), Change::default());
    }
}
