//! The filters of TC on an interface.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHandle, TcMessage};

use super::socket::dump;

/// A side of the clsact qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Side {
    /// Where packets arrive.
    Ingress,
    /// Where they leave.
    Egress,
}

impl Side {
    pub(in super::super) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    const fn handle(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }
}

/// Handles of all filters at one side of an interface.
pub(in super::super) fn filters(ifindex: u32, side: Side) -> anyhow::Result<Vec<u32>> {
    let mut request = TcMessage::default();
    request.header.index = ifindex.try_into()?;
    request.header.parent = side.handle();
    let mut handles = Vec::new();
    for message in dump(&RouteNetlinkMessage::GetTrafficFilter(request))? {
        if let RouteNetlinkMessage::NewTrafficFilter(filter) = message {
            handles.push(u32::from(filter.header.handle));
        }
    }
    // One with handle 0 says that there is a list of filters.
    handles.retain(|handle| *handle != 0);
    Ok(handles)
}
