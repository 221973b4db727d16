//! How many files a process may have open: a connection is one.

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Enough for every connection of a lab's test.
pub(super) const MANY: u64 = 65_536;

/// Lets this process have so many files open, or as many as it may if those are less.
///
/// # Errors
/// If the kernel does not allow what it should.
pub(super) fn allow(count: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read RLIMIT_NOFILE")?;
    // More than the hard limit needs CAP_SYS_RESOURCE, which containers often lack.
    if soft >= count || setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count)).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .with_context(|| format!("raise the limit of open files from {soft} to {hard}"))
}
