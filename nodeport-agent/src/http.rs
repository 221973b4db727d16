//! A small HTTP server. What it answers is decided elsewhere, from values alone.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::debug;

use crate::model::Family;

/// Connections that one socket serves at once; more wait in its queue.
const CONNECTIONS: usize = 64;
/// How long the queue of connections that nobody has taken is.
const QUEUE: i32 = 128;
/// How long a client may take for its request and the answer.
const REQUEST: Duration = Duration::from_secs(30);
/// Pause after a connection that could not be taken: most likely too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At this port of all addresses, of each family that the machine has.
    Everywhere(u16),
    /// There alone.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse::<u16>()
            && port != 0
        {
            return Ok(Self::Everywhere(port));
        }
        match text.parse::<SocketAddr>() {
            Ok(at) if at.port() != 0 => Ok(Self::At(at)),
            _ => Err(format!("{text:?}: write a port, or an address and a port: 127.0.0.1:10256")),
        }
    }
}

impl Listen {
    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Everywhere(port) => port,
            Self::At(at) => at.port(),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere(port) => write!(f, "port {port}"),
            Self::At(at) => at.fmt(f),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The path, without what follows a question mark.
    pub path: &'a str,
    /// The family in which the client came.
    pub family: Family,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// What the body is.
    pub content_type: &'static str,
    /// A header of its own.
    pub header: Option<(&'static str, u64)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// An answer in JSON.
    #[must_use]
    pub const fn json(status: StatusCode, body: String) -> Self {
        Self { status, content_type: "application/json", header: None, body }
    }

    /// For paths behind which there is nothing.
    #[must_use]
    pub fn not_found() -> Self {
        let body = "404 page not found\n".to_owned();
        let status = StatusCode::NOT_FOUND;
        Self { status, content_type: "text/plain; charset=utf-8", header: None, body }
    }

    fn into_response(self) -> Response<String> {
        let Self { status, content_type, header, body } = self;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some((name, value)) = header {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
        response
    }
}

/// Decides on answers.
pub type Answers = Arc<dyn Fn(Asked<'_>) -> Answer + Send + Sync>;

/// A server, for as long as this lives.
#[derive(Debug)]
pub struct Server {
    /// A task for each socket, which ends with this.
    sockets: JoinSet<()>,
}

impl Server {
    /// Listens, and answers from then on.
    ///
    /// # Errors
    /// If a socket cannot be had, most likely because another process listens there.
    pub fn start(listen: Listen, answers: &Answers) -> io::Result<Self> {
        let listeners = listeners(listen)?;
        let mut sockets = JoinSet::new();
        for (family, listener) in listeners {
            sockets.spawn(serve(listener, family, answers.clone()));
        }
        Ok(Self { sockets })
    }
}

impl Server {
    /// Ends it; then its port is free.
    pub async fn stop(mut self) {
        self.sockets.shutdown().await;
    }
}

/// All sockets, or none: with a family that the machine lacks the other one is enough.
fn listeners(listen: Listen) -> io::Result<Vec<(Family, TcpListener)>> {
    let wanted = match listen {
        Listen::At(at) => vec![at],
        Listen::Everywhere(port) => vec![
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
        ],
    };
    let mut found = Vec::new();
    let mut lacking = None;
    for at in wanted {
        match listener(at) {
            Ok(listener) => found.push((Family::of(at.ip()), listener)),
            Err(error) if is_family_lacking(&error) => lacking = Some(error),
            Err(error) => return Err(error),
        }
    }
    match lacking {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

fn is_family_lacking(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn listener(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a server before this one may still be closing.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(QUEUE)?;
    TcpListener::from_std(socket.into())
}

async fn serve(listener: TcpListener, family: Family, answers: Answers) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = answers.clone();
                connections.spawn(async move {
                    converse(stream, family, answers).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!("a connection could not be taken: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, family: Family, answers: Answers) {
    let answer = |request: Request<Incoming>| {
        let answer = answers(Asked { path: request.uri().path(), family });
        async move { Ok::<_, Infallible>(answer.into_response()) }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        // Who asks again comes again: a connection that stays would keep its place from others.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    match tokio::time::timeout(REQUEST, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a client went away or sent no HTTP: {error}"),
        Err(_) => debug!("a client took too long"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn echo() -> Answers {
        Arc::new(|asked| {
            let body = format!("{} {}", asked.path, asked.family);
            Answer { header: Some(("x-seen", 7)), ..Answer::json(StatusCode::OK, body) }
        })
    }

    /// What a server at a port that was free says to these bytes.
    async fn says(at: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    fn free(address: &str) -> SocketAddr {
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn requests_are_answered_and_rubbish_is_refused() {
        let at = free("127.0.0.1");
        let _server = Server::start(Listen::At(at), &echo()).unwrap();
        let text = says(at, b"GET /a/b?c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        for part in ["content-type: application/json", "nosniff", "x-seen: 7", "\r\n\r\n/a/b IPv4"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(says(at, b"rubbish\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_and_free_again_afterwards() {
        let at = free("127.0.0.1");
        let server = Server::start(Listen::At(at), &echo()).unwrap();
        let error = Server::start(Listen::At(at), &echo()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(server);
        tokio::task::yield_now().await;
        assert!(Server::start(Listen::At(at), &echo()).is_ok());
    }

    #[test]
    fn where_to_listen_is_a_port_or_an_address_with_one() {
        let read = |text: &str| text.parse::<Listen>();
        assert_eq!(read("10256"), Ok(Listen::Everywhere(10256)));
        assert_eq!(read("127.0.0.1:80"), Ok(Listen::At("127.0.0.1:80".parse().unwrap())));
        assert_eq!(read("[::1]:80"), Ok(Listen::At("[::1]:80".parse().unwrap())));
        for wrong in ["", "0", "65536", "127.0.0.1", "127.0.0.1:0", "localhost:80", ":80"] {
            assert!(read(wrong).unwrap_err().contains("127.0.0.1:10256"), "{wrong}");
        }
    }
}
