//! Which compiler builds the eBPF object, and how it is called.
//!
//! It has to come with the sources of its own `core`, because nobody ships `core` built for
//! `bpfel-unknown-none`. Two kinds do: a distribution's rustc with its source package, and a
//! nightly from rustup with the component rust-src.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{command, workspace};

/// The oldest compiler release that builds the workspace (`rust-version` in Cargo.toml).
const OLDEST: (u32, u32) = (1, 95);

/// `xtask/toolchain.toml`.
#[derive(Clone, Debug, Deserialize)]
pub struct Pins {
    /// For a compiler from distribution packages.
    pub system: SystemPins,
    /// For a compiler from rustup.
    pub rustup: RustupPins,
}

/// Versions that go with a distribution's compiler.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SystemPins {
    /// Version on crates.io.
    pub bpf_linker: String,
}

/// Versions that go with rustup's compiler.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RustupPins {
    /// Toolchain name, with its date.
    pub nightly: String,
    /// Version on crates.io.
    pub bpf_linker: String,
}

impl Pins {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is not there or not valid.
    pub fn load() -> Result<Self> {
        let file = workspace::root().join("xtask/toolchain.toml");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("parse {}", file.display()))
    }
}

/// A compiler that can build `core` for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// `/usr/bin/rustc`, from the distribution.
    System,
    /// A toolchain of rustup, by name.
    Rustup(String),
}

impl Toolchain {
    /// The first one that is ready to use. The distribution's comes first: it gets security
    /// updates together with its sources.
    #[must_use]
    pub fn find(pins: &Pins) -> Option<Self> {
        let nightly = Self::Rustup(pins.rustup.nightly.clone());
        [Self::System, nightly].into_iter().find(Self::is_ready)
    }

    /// Whether compiler, cargo and the sources of `core` are there, and new enough.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let recent = self.version().is_some_and(|version| version >= OLDEST);
        recent && self.has_core_sources() && command::succeeds(self.cargo().arg("--version"))
    }

    /// `cargo` of this toolchain, with nothing leaking in from the cargo that runs us.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut command = match self {
            Self::System => Command::new("/usr/bin/cargo"),
            Self::Rustup(name) => rustup_run(name, "cargo"),
        };
        self.clean(&mut command);
        command
    }

    /// LLVM's major version inside the compiler: bpf-linker reads the compiler's bitcode and
    /// must be of the same.
    ///
    /// # Errors
    /// If the compiler cannot be asked.
    pub fn llvm_major(&self) -> Result<u32> {
        let about = command::capture(self.rustc().arg("-vV"))?;
        let version = field(&about, "LLVM version: ");
        let major = version.and_then(|version| version.split('.').next()?.parse().ok());
        major.with_context(|| format!("no LLVM version in what `rustc -vV` prints:\n{about}"))
    }

    fn rustc(&self) -> Command {
        let mut command = match self {
            Self::System => Command::new("/usr/bin/rustc"),
            Self::Rustup(name) => rustup_run(name, "rustc"),
        };
        self.clean(&mut command);
        command
    }

    fn version(&self) -> Option<(u32, u32)> {
        let about = command::capture(self.rustc().arg("-vV")).ok()?;
        release(field(&about, "release: ")?)
    }

    fn has_core_sources(&self) -> bool {
        let sysroot = command::capture(self.rustc().args(["--print", "sysroot"]));
        sysroot.is_ok_and(|root| {
            Path::new(root.trim()).join("lib/rustlib/src/rust/library/Cargo.lock").exists()
        })
    }

    /// `cargo xtask` runs under a cargo, maybe rustup's, that tells its children by environment
    /// which compiler, flags and libraries to use. None of that is meant for this toolchain.
    fn clean(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            if leaks(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        if *self == Self::System {
            // Stable compilers take the unstable flags (-Zbuild-std) that BPF needs only so.
            command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        }
    }
}

/// The cargo that runs us, for crates that need no special compiler.
#[must_use]
pub fn host_cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root());
    command
}

/// The release `(1, 96)` of a version like `1.96.0-nightly` or `1.96.0+dfsg1-1`.
#[must_use]
pub fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether a version is new enough for the workspace.
#[must_use]
pub fn is_recent(version: &str) -> bool {
    release(version).is_some_and(|version| version >= OLDEST)
}

/// `PATH` with `first` in front.
#[must_use]
pub fn path_with(first: &[PathBuf]) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = first.iter().cloned().chain(env::split_paths(&path));
    env::join_paths(all).unwrap_or(path)
}

/// The first file of that name on `PATH`.
#[must_use]
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn rustup_run(toolchain: &str, program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, program]);
    command
}

fn leaks(name: &str) -> bool {
    let kept = ["CARGO_HOME", "CARGO_TERM_", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
    let cargo = name.starts_with("CARGO") && !kept.iter().any(|prefix| name.starts_with(prefix));
    let others = ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC", "RUSTFLAGS", "LD_LIBRARY_PATH"];
    cargo || others.contains(&name) || name.starts_with("RUSTC_")
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_parse() {
        let pins = Pins::load().unwrap();
        assert!(pins.rustup.nightly.starts_with("nightly-"), "{}", pins.rustup.nightly);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(release("1.97.0-nightly"), Some((1, 97)));
        assert!(is_recent("1.100.0+dfsg1-1~deb12u2"));
        assert!(!is_recent("1.63.0+dfsg1-2"));
        assert!(!is_recent("unknown"));
    }

    #[test]
    fn the_outer_cargo_does_not_leak_but_settings_stay() {
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "CARGO_MANIFEST_DIR", "CARGO_ENCODED_RUSTFLAGS"] {
            assert!(leaks(name), "{name}");
        }
        for name in ["PATH", "CARGO_HOME", "CARGO_HTTP_PROXY", "RUSTUP_HOME"] {
            assert!(!leaks(name), "{name}");
        }
    }
}
