//! TCP connections to the pods' server.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

use super::super::server::hex;
use super::{Answer, PATIENCE};

const PORT_FREE_WITHIN: Duration = Duration::from_secs(1);

/// A connection that stays open between requests.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    local: SocketAddr,
    target: SocketAddr,
    opened: Instant,
}

/// What came.
#[derive(Clone, Debug)]
pub struct Download {
    /// Number of bytes.
    pub bytes: u64,
    /// Their hash, as `sha256sum` prints it.
    pub sha256: String,
    /// How long it took.
    pub took: Duration,
}

impl Connection {
    /// Opens one from the namespace of the calling thread.
    ///
    /// # Errors
    /// If it is not accepted in time.
    pub fn open(source: Option<SocketAddr>, target: SocketAddr) -> Result<Self> {
        let opened = Instant::now();
        let stream = connect_patiently(source, target);
        let stream = stream.with_context(|| format!("connect to {target}"))?;
        let local = stream.local_addr().context("own address")?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream), local, target, opened })
    }

    /// The client's end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks who is there. The first answer's time includes the opening.
    ///
    /// # Errors
    /// If it is not answered in time.
    pub fn ask(&mut self) -> Result<Answer> {
        self.request("/", "")
    }

    /// Asks who is there, and has the server close the connection.
    ///
    /// # Errors
    /// If it is not answered and closed in time.
    pub fn ask_and_close(mut self) -> Result<Answer> {
        let answer = self.request("/", "Connection: close\r\n")?;
        let rest = self.stream.read(&mut [0]).context("wait for the end of the connection")?;
        ensure!(rest == 0, "{} sent more than it announced", self.target);
        Ok(answer)
    }

    /// Asks who is there, and resets the connection.
    ///
    /// # Errors
    /// If it is not answered in time.
    pub fn ask_and_reset(mut self) -> Result<Answer> {
        let answer = self.ask()?;
        let socket = socket2::SockRef::from(self.stream.get_ref());
        socket.set_linger(Some(Duration::ZERO)).context("set SO_LINGER")?;
        Ok(answer)
    }

    /// Fetches `count` bytes.
    ///
    /// # Errors
    /// If they do not all come, or pause for too long.
    pub fn download(&mut self, count: u64) -> Result<Download> {
        self.download_slowly(count, Duration::ZERO)
    }

    /// Fetches `count` bytes with a pause after each 64 KiB, so that it lasts.
    ///
    /// # Errors
    /// As [`Self::download`].
    pub fn download_slowly(&mut self, count: u64, pause: Duration) -> Result<Download> {
        let started = Instant::now();
        let mut left = self.send(&format!("/bytes/{count}"), "")?;
        let mut hash = Sha256::new();
        let mut block = vec![0; 64 * 1024];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            let piece = &mut block[..want];
            self.stream.read_exact(piece).with_context(|| {
                format!("read from {}, {left} of {count} bytes missing", self.target)
            })?;
            hash.update(&*piece);
            left -= want as u64;
            sleep(pause);
        }
        Ok(Download { bytes: count, sha256: hex(&hash.finalize()), took: started.elapsed() })
    }

    fn request(&mut self, path: &str, header: &str) -> Result<Answer> {
        let started = self.opened;
        let length = self.send(path, header)?;
        let mut body = vec![0; usize::try_from(length).context("length of the answer")?];
        self.stream.read_exact(&mut body).with_context(|| format!("read from {}", self.target))?;
        self.opened = Instant::now();
        Answer::parse(&String::from_utf8_lossy(&body), self.local, started)
    }

    /// Sends a request and reads the answer's head; returns the length of its body.
    fn send(&mut self, path: &str, header: &str) -> Result<u64> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{header}\r\n", self.target);
        let stream = self.stream.get_mut();
        stream.write_all(request.as_bytes()).with_context(|| format!("ask {}", self.target))?;
        let mut length = None;
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line);
            let read = read.with_context(|| format!("read from {}", self.target))?;
            ensure!(read > 0, "{} closed the connection without an answer", self.target);
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().ok();
            }
            if line.trim().is_empty() {
                return length.with_context(|| format!("{} sent no length", self.target));
            }
        }
    }
}

/// The last acknowledgement of the connection before on this very port may still be under way;
/// until then, the client's own kernel refuses the port.
fn connect_patiently(source: Option<SocketAddr>, target: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + PORT_FREE_WITHIN;
    loop {
        match connect(source, target) {
            Err(error)
                if error.kind() == ErrorKind::AddrNotAvailable && Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

fn connect(source: Option<SocketAddr>, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        // A given port may be in TIME_WAIT from the connection before.
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    socket.connect_timeout(&target.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}
