//! rtnetlink sockets, without a runtime: questions that are answered at once, and a stream of
//! notifications.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, bail};
use netlink_packet_core::{NLM_F_DUMP_INTR, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{Messages, ask};

/// `RTNLGRP_*` of links, neighbours, traffic control, addresses, routes, rules and next hops.
const GROUPS: [u32; 10] = [1, 3, 4, 5, 7, 8, 9, 11, 19, 32];
/// Those of addresses alone.
pub(crate) const ADDRESSES: [u32; 2] = [5, 9];
/// Room for notifications that were not read yet; a burst of a few thousand routes fits.
const BUFFER: usize = 4 << 20;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Messages of traffic control: queues, classes and filters; actions; chains.
const RTM_NEWQDISC: u16 = 36;
const RTM_GETTFILTER: u16 = 46;
const RTM_NEWACTION: u16 = 48;
const RTM_GETACTION: u16 = 50;
const RTM_NEWCHAIN: u16 = 100;
const RTM_GETCHAIN: u16 = 102;
/// How often a listing is begun anew that changes while it is read.
const DUMP_TRIES: u32 = 10;

/// Lists all of a kind.
pub(super) fn dump(request: &RouteNetlinkMessage) -> anyhow::Result<Vec<RouteNetlinkMessage>> {
    for _ in 0..DUMP_TRIES {
        if let Some(messages) = dump_once(request.clone()).context("asking rtnetlink")? {
            return Ok(messages);
        }
    }
    bail!("rtnetlink's listing changed {DUMP_TRIES} times while it was read")
}

/// None if what is listed changed meanwhile.
fn dump_once(request: RouteNetlinkMessage) -> anyhow::Result<Option<Vec<RouteNetlinkMessage>>> {
    let socket = ask(NETLINK_ROUTE, request)?;
    let (mut found, mut is_whole) = (Vec::new(), true);
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for message in messages(&bytes) {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    // One odd interface shall not hide the others.
                    tracing::debug!("rtnetlink says what cannot be read: {error}");
                    continue;
                }
            };
            is_whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(is_whole.then_some(found)),
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                NetlinkPayload::InnerMessage(message) => found.push(message),
                _ => {}
            }
        }
    }
}

/// The messages in a datagram.
fn messages(
    bytes: &[u8],
) -> impl Iterator<Item = anyhow::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    Messages(bytes).map(|bytes| parse(bytes?))
}

fn parse(bytes: &[u8]) -> anyhow::Result<NetlinkMessage<RouteNetlinkMessage>> {
    let kind = NetlinkBuffer::new_checked(bytes).map_err(anyhow::Error::msg)?.message_type();
    let message = match traffic_control_header(kind) {
        Some(length) => NetlinkMessage::deserialize(&cut(bytes, HEADER + length)?),
        None => NetlinkMessage::deserialize(bytes),
    };
    message.map_err(anyhow::Error::msg)
}

/// Length of the header of a message of traffic control. It says all that is asked for; of its
/// attributes there are too many forms to rely on that each can be read.
const fn traffic_control_header(kind: u16) -> Option<usize> {
    match kind {
        RTM_NEWQDISC..=RTM_GETTFILTER | RTM_NEWCHAIN..=RTM_GETCHAIN => Some(20),
        RTM_NEWACTION..=RTM_GETACTION => Some(4),
        _ => None,
    }
}

/// The message without what is behind its first bytes.
fn cut(bytes: &[u8], length: usize) -> anyhow::Result<Vec<u8>> {
    let mut head = bytes.get(..length).context("a message is cut short")?.to_vec();
    NetlinkBuffer::new(&mut head).set_length(length as u32);
    Ok(head)
}

/// A stream of notifications.
#[derive(Debug)]
pub(crate) struct Listener(Socket);

/// What a [`Listener`] heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// This.
    Messages(Vec<RouteNetlinkMessage>),
    /// Something that was lost or cannot be read: anything may have changed.
    Something,
    /// Nothing more for now.
    Silence,
}

impl Listener {
    /// Begins to listen to all that is followed, in this thread's network namespace.
    pub(in super::super) fn open() -> anyhow::Result<Self> {
        Self::open_to(&GROUPS)
    }

    /// Begins to listen to these groups (`RTNLGRP_*`), in this thread's network namespace.
    pub(crate) fn open_to(groups: &[u32]) -> anyhow::Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            // Refused without CAP_NET_ADMIN in the first network namespace: then bursts are
            // lost sooner, which is noticed.
            let _ = socket.set_rx_buf_sz(BUFFER as u32);
            socket.set_non_blocking(true)?;
            for group in groups {
                socket.add_membership(*group)?;
            }
            Ok::<_, io::Error>(Self(socket))
        };
        open().context("listening to rtnetlink")
    }

    /// Takes what has come.
    pub(crate) fn hear(&self) -> anyhow::Result<Heard> {
        let bytes = match self.0.recv_from_full() {
            Ok((bytes, _)) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Silence),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Heard::Something);
            }
            Err(error) => return Err(error).context("listening to rtnetlink"),
        };
        let messages: anyhow::Result<Vec<_>> = messages(&bytes).collect();
        let Ok(messages) = messages else { return Ok(Heard::Something) };
        let inner = messages.into_iter().filter_map(|message| match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        });
        Ok(Heard::Messages(inner.collect()))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkHeader;
    use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

    use super::*;

    fn bytes_of(message: RouteNetlinkMessage) -> Vec<u8> {
        let payload = NetlinkPayload::from(message);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn of_traffic_control_the_header_is_enough() {
        let mut message = TcMessage::with_index(7);
        message.header.handle = TcHandle { major: 1, minor: 2 };
        message.attributes.push(TcAttribute::Kind("u32".to_owned()));
        let mut bytes = bytes_of(RouteNetlinkMessage::NewTrafficFilter(message.clone()));
        let whole = bytes.len();
        // The attribute claims to go on behind the message's end: the next message follows.
        bytes[HEADER + 20] = 0xff;
        bytes.extend(bytes_of(RouteNetlinkMessage::DelQueueDiscipline(message.clone())));
        message.attributes.clear();
        let read: Vec<_> = messages(&bytes).map(|message| message.unwrap().payload).collect();
        let wanted = [
            RouteNetlinkMessage::NewTrafficFilter(message.clone()),
            RouteNetlinkMessage::DelQueueDiscipline(message),
        ];
        assert_eq!(read, wanted.map(NetlinkPayload::InnerMessage));
        for length in 0..whole {
            // One that is cut short says so, or says what is whole; it ends either way.
            assert!(messages(&bytes[..length]).count() <= 1, "{length}");
        }
    }
}
