//! The server in a pod: says who it is and whom it saw, over TCP (HTTP/1.1) and UDP.

mod http;
mod pattern;
mod udp;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::net::{TcpListener, UdpSocket};

pub(super) use pattern::hex;
pub use pattern::{Pattern, sha256};

use super::namespace::Namespace;
use super::process::Process;

/// The port on which pods answer.
pub const PORT: u16 = 80;

const READY: &str = "ready";

/// What a server is called with.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The name that it answers with.
    #[arg(long)]
    pub name: String,
    /// The port, for TCP and UDP.
    #[arg(long, default_value_t = PORT)]
    pub port: u16,
}

/// Serves until it is killed.
///
/// # Errors
/// If the port is taken.
pub fn run(options: &Options) -> Result<()> {
    // A pod serves as many connections at once as its clients hold.
    super::files::allow(super::files::MANY)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<()> {
    let Options { name, port } = options;
    // Takes IPv4 too, whose addresses then look like ::ffff:10.0.0.1.
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
    let tcp = TcpListener::bind(any).await.with_context(|| format!("listen on {any}, TCP"))?;
    let udp = UdpSocket::bind(any).await.with_context(|| format!("listen on {any}, UDP"))?;
    println!("{READY}");
    let name: &'static str = name.clone().leak();
    tokio::try_join!(http::serve(tcp, name), udp::serve(udp, name)).map(|_| ())
}

/// Starts a server that answers with this name, and waits until it listens. What it says goes to a
/// file in the folder.
///
/// # Errors
/// If it cannot be started, or does not listen; with what it said.
pub fn start(inside: &Namespace, name: &str, port: u16, folder: &Path) -> Result<Process> {
    let mut command = Command::new(program()?);
    command.args(["lab-server", "--name", name, "--port", &port.to_string()]);
    let mut process = Process::start(inside, &mut command, &folder.join("server.log"))?;
    process.wait_for(READY, Duration::from_secs(10))?;
    Ok(process)
}

/// The program of which this is a part. Tests are programs of their own, beside it in `deps`.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the path of the running program")?;
    let folder = own.parent().context("the folder of the running program")?;
    let folder = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    let program = folder.context("the target folder")?.join("xtask");
    if !program.is_file() {
        bail!("{} is not there: run `cargo build -p xtask`", program.display());
    }
    Ok(program)
}

/// An answer for people and for tests: who answers, and whom it saw.
fn greeting(name: &str, peer: SocketAddr) -> String {
    format!("{name} saw {}\n", SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}
