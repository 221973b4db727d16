//! What the cases share: a lab that serves, and a condition that must hold.

use anyhow::{Result, bail};

pub(crate) use xtask::lab::site::{PORT, Site, wait};

/// Fails unless the condition holds.
pub(crate) fn check(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { bail!(what()) }
}
