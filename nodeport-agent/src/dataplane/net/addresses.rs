//! The addresses that interfaces have.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage};

use super::interface::own_address;
use super::socket::dump;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Assigned {
    /// The interface's number.
    pub(crate) interface: u32,
    /// The address.
    pub(crate) address: IpAddr,
}

/// Lists them, in this thread's network namespace.
pub(crate) fn assigned() -> anyhow::Result<BTreeSet<Assigned>> {
    let messages = dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let assigned = messages.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) => read(message),
        _ => None,
    });
    Ok(assigned.collect())
}

/// None of an address that the node may not use: others on the link may have it.
fn read(message: &AddressMessage) -> Option<Assigned> {
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    if message.header.flags.intersects(unusable) {
        return None;
    }
    Some(Assigned { interface: message.header.index, address: own_address(message)? })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressAttribute;

    use super::*;

    fn message(flags: AddressHeaderFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        (message.header.index, message.header.flags) = (7, flags);
        message.attributes.push(AddressAttribute::Address("2001:db8::7".parse().unwrap()));
        message
    }

    #[test]
    fn addresses_count_from_when_they_may_be_used() {
        let address = "2001:db8::7".parse().unwrap();
        let usable = Some(Assigned { interface: 7, address });
        for (flags, expected) in [
            (AddressHeaderFlags::Permanent, usable),
            (AddressHeaderFlags::Secondary, usable),
            (AddressHeaderFlags::Deprecated, usable),
            (AddressHeaderFlags::Permanent | AddressHeaderFlags::Tentative, None),
            (AddressHeaderFlags::Permanent | AddressHeaderFlags::Dadfailed, None),
        ] {
            assert_eq!(read(&message(flags)), expected, "{flags:?}");
        }
        let mut pair = message(AddressHeaderFlags::Permanent);
        pair.attributes.push(AddressAttribute::Local("2001:db8::8".parse().unwrap()));
        assert_eq!(read(&pair).unwrap().address, "2001:db8::8".parse::<IpAddr>().unwrap());
    }
}
