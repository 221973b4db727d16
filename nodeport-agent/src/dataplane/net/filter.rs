//! The filters of TC on an interface.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHandle, TcMessage};

use super::socket::dump;

/// The two sides of the clsact qdisc (`TC_H_CLSACT` with `TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`).
const SIDES: [TcHandle; 2] =
    [TcHandle { major: 0xffff, minor: 0xfff2 }, TcHandle { major: 0xffff, minor: 0xfff3 }];

/// Handles of all filters at an interface, where packets arrive and where they leave.
pub(in super::super) fn filters(ifindex: u32) -> anyhow::Result<Vec<u32>> {
    let mut handles = Vec::new();
    for parent in SIDES {
        let mut request = TcMessage::default();
        request.header.index = ifindex.try_into()?;
        request.header.parent = parent;
        for message in dump(&RouteNetlinkMessage::GetTrafficFilter(request))? {
            if let RouteNetlinkMessage::NewTrafficFilter(filter) = message {
                let TcHandle { major, minor } = filter.header.handle;
                handles.push(u32::from(major) << 16 | u32::from(minor));
            }
        }
    }
    // One with handle 0 says that there is a list of filters.
    handles.retain(|handle| *handle != 0);
    Ok(handles)
}
