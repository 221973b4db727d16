//! Network namespaces.

use std::fs::File;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::ip;

/// A network namespace, held open and mounted on a file.
///
/// It is entered by threads made for that, by `setns` alone: `ip netns exec` would mount /sys
/// anew and hide the BPF file system and the cgroups. Children of such a thread are born in the
/// namespace, which spares us code between fork and exec.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with its loopback up, mounted at `path`.
    pub(super) fn create(name: &str, path: PathBuf) -> Result<Self> {
        File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let made = thread::scope(|scope| scope.spawn(|| unshare_and_mount(&path)).join());
        made.unwrap_or_else(|panic| resume_unwind(panic))?;
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let namespace = Self { name: name.to_owned(), path, file: Arc::new(file) };
        namespace.prepare().with_context(|| format!("prepare the namespace {name}"))?;
        Ok(namespace)
    }

    /// Whose namespace it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file by which `nsenter --net=FILE` enters it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs code inside, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || self.enter().map(|()| code());
        let result = thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs code inside, on a thread of its own, without waiting for it.
    pub fn spawn<T: Send + 'static>(
        &self,
        code: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<Result<T>> {
        let namespace = self.clone();
        thread::spawn(move || namespace.enter().map(|()| code()))
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: &mut Command) -> Result<Child> {
        let call = crate::command::line(command);
        let child = self.run(|| command.spawn())?;
        child.with_context(|| format!("start `{call}` in {}", self.name))
    }

    /// Runs a program inside and returns what it printed.
    ///
    /// # Errors
    /// If it cannot be started or does not exit with 0.
    pub fn capture(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = ip::tool(program);
        command.args(arguments);
        self.run(|| crate::command::capture(&mut command))?
            .with_context(|| format!("in the namespace {}", self.name))
    }

    /// Runs lines of `ip` inside.
    ///
    /// # Errors
    /// If one of them fails; it is named.
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        self.run(|| ip::batch(lines))?.with_context(|| format!("in the namespace {}", self.name))
    }

    /// Sets a value under `/proc/sys/net`.
    ///
    /// # Errors
    /// If there is no such setting.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/net/{name}");
        self.run(|| std::fs::write(&file, value))?
            .with_context(|| format!("write {value} to {file} in {}", self.name))
    }

    #[expect(clippy::disallowed_methods, reason = "on threads that end with their code")]
    fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter the namespace {}", self.path.display()))
    }

    fn prepare(&self) -> Result<()> {
        // Addresses shall work at once, and come from us alone, whatever the machine's defaults.
        for scope in ["all", "default"] {
            self.sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "0")?;
            self.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
            self.sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
            // Loose: a source must be reachable, through whatever interface.
            self.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "2")?;
        }
        self.ip(&["link set lo up".to_owned()])
    }

    /// Makes it pass packets on between its interfaces.
    pub(super) fn forward(&self) -> Result<()> {
        self.sysctl("ipv4/ip_forward", "1")?;
        self.sysctl("ipv6/conf/all/forwarding", "1")
    }
}

fn unshare_and_mount(path: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("make a network namespace (the lab needs the rights of root)")?;
    let here = Some("/proc/thread-self/ns/net");
    mount(here, path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mount a network namespace at {}", path.display()))
}
