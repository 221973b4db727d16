//! A reset that nobody's stack has sent: forged, or of a connection before.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;

use super::flood::raw_socket;
use super::namespace::Namespace;

/// Sends a reset from a namespace, as if it came from `source`. Its sequence number is the receiver's
/// own affair: a stack that is asked for another one ignores it.
///
/// # Errors
/// If the addresses are of different families, or the kernel does not take the packet.
pub fn reset(
    from: &Namespace,
    source: SocketAddr,
    target: SocketAddr,
    sequence: u32,
) -> Result<()> {
    let builder = match (source, target) {
        (SocketAddr::V4(source), SocketAddr::V4(target)) => {
            PacketBuilder::ipv4(source.ip().octets(), target.ip().octets(), 64)
        }
        (SocketAddr::V6(source), SocketAddr::V6(target)) => {
            PacketBuilder::ipv6(source.ip().octets(), target.ip().octets(), 64)
        }
        _ => anyhow::bail!("{source} and {target} are of different families"),
    };
    let builder = builder.tcp(source.port(), target.port(), sequence, 0).rst();
    let mut packet = Vec::with_capacity(builder.size(0));
    builder.write_to_vec(&mut packet, &[]).context("write the packet")?;
    let sent = from.run(|| {
        let socket = raw_socket(target)?;
        socket.send(&packet).with_context(|| format!("send to {target}"))
    })??;
    ensure!(sent == packet.len(), "the kernel took {sent} of {} bytes", packet.len());
    Ok(())
}
