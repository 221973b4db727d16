//! The server in a pod: says who it is and whom it saw, over TCP (HTTP/1.1) and UDP.

mod http;
mod pattern;
mod udp;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
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
    /// The address; :: takes IPv4 as well.
    #[arg(long, default_value = "::")]
    pub address: IpAddr,
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
    let Options { name, port, address } = options;
    // IPv4 addresses look like ::ffff:10.0.0.1 to a socket that takes both families.
    let at = SocketAddr::from((*address, *port));
    let tcp = TcpListener::bind(at).await.with_context(|| format!("listen on {at}, TCP"))?;
    let udp = UdpSocket::bind(at).await.with_context(|| format!("listen on {at}, UDP"))?;
    println!("{READY}");
    let name: &'static str = name.clone().leak();
    tokio::try_join!(http::serve(tcp, name), udp::serve(udp, name)).map(|_| ())
}

/// Starts a server in a pod and waits until it listens.
pub(super) fn start(pod: &Namespace, folder: &Path) -> Result<Process> {
    let any = Ipv6Addr::UNSPECIFIED.into();
    let options = Options { name: pod.name().to_owned(), port: PORT, address: any };
    start_as(pod, &program()?, &options, folder)
}

/// Starts a server by this path of its program, of which the process has its name, and waits until it
/// listens. What it says goes to a file in the folder.
///
/// # Errors
/// If it cannot be started, or does not listen; with what it said.
pub fn start_as(
    inside: &Namespace,
    program: &Path,
    options: &Options,
    folder: &Path,
) -> Result<Process> {
    let Options { name, port, address } = options;
    let mut command = Command::new(program);
    command.args(["lab-server", "--name", name, "--port", &port.to_string()]);
    command.args(["--address", &address.to_string()]);
    let mut process = Process::start(inside, &mut command, &folder.join("server.log"))?;
    process.wait_for(READY, Duration::from_secs(10))?;
    Ok(process)
}

/// The program of which this is a part. Tests are programs of their own, beside it in `deps`.
///
/// # Errors
/// If it is not built.
pub fn program() -> Result<PathBuf> {
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
