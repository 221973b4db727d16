//! Asking the kernel over netlink for all of a kind, without a runtime.

use anyhow::Error;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// A socket of that protocol, over which the answer will come.
///
/// # Errors
/// If the kernel lacks the protocol, or does not take the request.
pub(crate) fn ask<M>(protocol: isize, request: M) -> anyhow::Result<Socket>
where
    M: NetlinkSerializable,
    NetlinkPayload<M>: From<M>,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(socket)
}

/// The messages in a datagram: each with what follows it, since its header says where it ends. It ends
/// after one that is cut short.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = anyhow::Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let here = self.0;
        match NetlinkBuffer::new_checked(here) {
            Ok(buffer) => {
                let length = (buffer.length() as usize).next_multiple_of(4);
                self.0 = here.get(length..).unwrap_or_default();
                Some(Ok(here))
            }
            Err(error) => {
                self.0 = &[];
                Some(Err(Error::msg(error)))
            }
        }
    }
}
