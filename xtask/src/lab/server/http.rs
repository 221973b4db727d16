//! As much of HTTP/1.1 as tests and `curl` need.
//!
//! `GET /` says who answers; `GET /bytes/N` sends N bytes of the [`Pattern`]. The connection stays
//! open unless the request says `Connection: close`.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::pattern::Pattern;

/// A request's head that is longer is refused.
const LONGEST_LINE: usize = 8 * 1024;

pub(super) async fn serve(listener: TcpListener, name: &'static str) -> Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        // A client may go away at any time; that ends its connection and nothing else.
        tokio::spawn(async move { converse(stream, peer, name).await.ok() });
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, name: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_head(&mut stream).await? {
        answer(stream.get_mut(), &request, peer, name).await?;
        if request.close {
            break;
        }
    }
    Ok(())
}

/// What is of interest in a request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    path: String,
    close: bool,
}

/// `None` when the client has finished.
async fn read_head(stream: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        ensure!(line.len() < LONGEST_LINE && head.len() < 100, "the request's head is too long");
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            return Ok(Some(parse(&head)));
        }
        head.push(line);
    }
}

fn parse(head: &[String]) -> Request {
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").to_owned();
    let close = head.iter().any(|line| line.eq_ignore_ascii_case("connection: close"));
    Request { path, close }
}

async fn answer(
    stream: &mut TcpStream,
    request: &Request,
    peer: SocketAddr,
    name: &str,
) -> Result<()> {
    if let Some(count) = request.path.strip_prefix("/bytes/").and_then(|n| n.parse().ok()) {
        return send_bytes(stream, count).await;
    }
    let (status, body) = match request.path.as_str() {
        "/" => ("200 OK", super::greeting(name, peer)),
        path => ("404 Not Found", format!("{name} has no {path}\n")),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    Ok(stream.write_all((head + &body).as_bytes()).await?)
}

async fn send_bytes(stream: &mut TcpStream, count: u64) -> Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut pattern = Pattern::new(count);
    while let Some(block) = pattern.next_block() {
        stream.write_all(block).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_clients_write_it() {
        let head = ["GET /bytes/7 HTTP/1.1", "Host: a", "Connection: close"].map(str::to_owned);
        assert_eq!(parse(&head), Request { path: "/bytes/7".to_owned(), close: true });
        assert_eq!(parse(&head[..2]), Request { path: "/bytes/7".to_owned(), close: false });
    }
}
