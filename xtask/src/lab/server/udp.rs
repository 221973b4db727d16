//! UDP: the greeting, then what was sent.

use anyhow::Result;
use tokio::net::UdpSocket;

pub(super) async fn serve(socket: UdpSocket, name: &str) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await?;
        let mut answer = super::greeting(name, peer).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        // A client that has gone, or a packet too large to go back, concerns that client alone.
        socket.send_to(&answer, peer).await.ok();
    }
}
