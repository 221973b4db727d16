//! Labs do not outlive Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, Result, anyhow};

use super::folder;

/// Folders of the labs of this process. A mutex, because the handler runs on its own thread.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Begins to listen to SIGINT, SIGTERM and SIGHUP; once is enough.
pub(super) fn watch() -> Result<()> {
    static WATCHING: OnceLock<Result<(), String>> = OnceLock::new();
    let result = WATCHING
        .get_or_init(|| ctrlc::set_handler(remove_all_and_exit).map_err(|error| error.to_string()));
    result.clone().map_err(|error| anyhow!(error)).context("handle SIGINT")
}

pub(super) fn add(lab: &Path) {
    live().push(lab.to_path_buf());
}

pub(super) fn forget(lab: &Path) {
    live().retain(|path| path != lab);
}

fn remove_all_and_exit() {
    for lab in live().iter() {
        folder::remove(lab);
    }
    // What shells report for a program ended by SIGINT.
    exit(130);
}

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
