//! `cargo xtask setup`: installs what building and testing need, and leaves alone what is there.

pub(crate) mod apt;
mod linker;
mod rustup;

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::progress::skipped;
use crate::toolchain::{Pins, Toolchain, on_path};

/// No choices so far.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {}

/// What the eBPF build needs, found.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The compiler.
    pub toolchain: Toolchain,
    /// The folder of the `bpf-linker` that fits it.
    pub linker_dir: PathBuf,
}

/// What the lab and the tests call, and the Debian package it comes in.
const TOOLS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("bpftool", "bpftool"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("curl", "curl"),
    ("nsenter", "util-linux"),
];

const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Installs what is missing.
///
/// # Errors
/// If something cannot be installed; says what to type.
pub fn run(options: &Options) -> Result<()> {
    let Options {} = options;
    ensure().map(|_| ())
}

/// Installs what is missing and says what the eBPF build shall use.
///
/// # Errors
/// As [`run`].
pub fn ensure() -> Result<Ready> {
    eprintln!("setup:");
    let pins = Pins::load()?;
    install_tools()?;
    let toolchain = install_compiler(&pins)?;
    let linker_dir = linker::ensure(&pins, &toolchain)?;
    Ok(Ready { toolchain, linker_dir })
}

/// What `setup` has installed before.
///
/// # Errors
/// If something is missing.
pub fn find() -> Result<Ready> {
    let pins = Pins::load()?;
    let hint = "run `cargo xtask setup` first";
    let toolchain = Toolchain::find(&pins)
        .with_context(|| format!("no compiler with the sources of `core`: {hint}"))?;
    let linker_dir = linker::find(&pins, &toolchain)?
        .with_context(|| format!("no bpf-linker that fits {toolchain:?}: {hint}"))?;
    Ok(Ready { toolchain, linker_dir })
}

fn install_tools() -> Result<()> {
    let missing: Vec<_> = TOOLS.iter().filter(|(program, _)| !is_installed(program)).collect();
    if missing.is_empty() {
        skipped("network tools", "there");
        return Ok(());
    }
    if !apt::exists() {
        let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        bail!("install these programs with your package manager: {}", programs.join(" "));
    }
    let packages: Vec<_> = missing.iter().map(|(_, package)| (*package).to_owned()).collect();
    apt::install(&packages, "the lab builds networks with them, the tests look at them")
}

/// Some distributions leave the `sbin` folders out of the path of ordinary users.
fn is_installed(program: &str) -> bool {
    let sbin = ["/usr/sbin", "/sbin"].map(|dir| PathBuf::from(dir).join(program));
    on_path(program).is_some() || sbin.iter().any(|file| file.is_file())
}

fn install_compiler(pins: &Pins) -> Result<Toolchain> {
    if let Some(toolchain) = Toolchain::find(pins) {
        skipped("compiler with the sources of core", &format!("{toolchain:?}"));
        return Ok(toolchain);
    }
    let toolchain = if apt::offers_compiler(COMPILER[0])? {
        apt::install(&COMPILER.map(str::to_owned), "compiler with the sources of core, for BPF")?;
        Toolchain::System
    } else {
        rustup::install(&pins.rustup.nightly)?
    };
    if !toolchain.is_ready() {
        let path = env::var("PATH").unwrap_or_default();
        bail!(
            "{toolchain:?} was installed, but compiler, cargo or sources do not work (PATH={path})"
        );
    }
    Ok(toolchain)
}
