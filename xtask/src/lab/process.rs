//! A program that runs in a lab until it is dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::namespace::Namespace;
use crate::command::line;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    call: String,
    log: PathBuf,
    detached: bool,
}

impl Process {
    /// Starts it in a namespace, with its output in a log file.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(namespace: &Namespace, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let errors = file.try_clone().context("clone a file")?;
        // In a process group of its own, Ctrl-C reaches it through us alone, in order.
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let child = namespace.start(command)?;
        Ok(Self { child, call: line(command), log: log.to_path_buf(), detached: false })
    }

    /// Waits until its log has a line with `word`.
    ///
    /// # Errors
    /// If it ends before, or does not say it in time; with the end of its log.
    pub fn wait_for(&mut self, word: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.log_text().contains(word) {
            if let Some(status) = self.child.try_wait().context("wait for a process")? {
                bail!("`{}` ended ({status}):\n{}", self.call, self.log_text());
            }
            if Instant::now() > deadline {
                let said = self.log_text();
                bail!("`{}` did not say \"{word}\" within {limit:?}:\n{said}", self.call);
            }
            sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed until now.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The file that has what it prints.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it is still there.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        // It may be gone already, and that is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it run on when this is dropped.
    pub(super) fn detach(&mut self) {
        self.detached = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached {
            self.kill();
        }
    }
}
