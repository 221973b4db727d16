//! Takes away all that an instance has attached, pinned and written.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::Context as _;

use super::attach::Hook;
use super::filters::Filters;
use super::pins::Pins;
use super::{net, preflight, reserve, status, sys};
use crate::config::{Instance, RUN_DIR};
use crate::state_file;

/// Removes every trace of an instance in the calling thread's network namespace; says what was
/// there, a line for each.
///
/// # Errors
/// If its agent still runs, or something cannot be removed.
pub fn cleanup(instance: &Instance) -> anyhow::Result<Vec<String>> {
    preflight::require_privileges()?;
    let mut removed = Vec::new();
    let pins = Pins::new(instance);
    // Held until the end: no agent may begin meanwhile.
    let lock = pins.lock_existing()?;
    if lock.is_some() {
        preflight::require_bpffs(&instance.bpffs)?;
    }
    for path in pins.all_links()? {
        detach(&path)?;
        removed.push(format!("detached {}", path.display()));
    }
    detach_filters(instance, &mut removed)?;
    pins.remove_all(&mut |path| removed.push(format!("removed {}", path.display())))?;
    removed.extend(reserve::restore(&instance.run_dir)?);
    remove_run_dir(instance, &mut removed)?;
    drop(lock);
    Ok(removed)
}

fn detach(path: &Path) -> anyhow::Result<()> {
    match sys::get_pinned(path) {
        // Where the interface is gone, there is nothing to detach from any more.
        Ok(link) => drop(sys::link_detach(link.as_fd())),
        Err(error) => tracing::warn!("{}: {error}", path.display()),
    }
    fs::remove_file(path).with_context(|| format!("removing {}", path.display()))
}

/// Filters are found by what only ours have; the qdisc that they hang on may be another's too.
fn detach_filters(instance: &Instance, removed: &mut Vec<String>) -> anyhow::Result<()> {
    let filters = Filters::of(&instance.name);
    for interface in net::interfaces(false)? {
        for hook in [Hook::Ingress, Hook::Egress] {
            // An interface that went meanwhile took its filters along.
            if filters.detach(&interface.name, hook).unwrap_or(false) {
                removed.push(format!("removed the {hook} filter of {}", interface.name));
            }
        }
    }
    Ok(())
}

/// The folder goes if nothing is in it that others put there.
fn remove_run_dir(instance: &Instance, removed: &mut Vec<String>) -> anyhow::Result<()> {
    let run_dir = &instance.run_dir;
    for path in [run_dir.join(status::FILE), state_file::path(instance)] {
        for path in [path.with_extension("json.new"), path] {
            match fs::remove_file(&path) {
                Ok(()) => removed.push(format!("removed {}", path.display())),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("removing {}", path.display()));
                }
            }
        }
    }
    match fs::remove_dir(run_dir) {
        Ok(()) => removed.push(format!("removed {}", run_dir.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("{} stays: {error}", run_dir.display()),
    }
    // What the user named is the user's; the folder of all instances goes with the last of them.
    let all = Path::new(RUN_DIR);
    if *run_dir == all.join(&instance.name) && fs::remove_dir(all).is_ok() {
        removed.push(format!("removed {RUN_DIR}"));
    }
    Ok(())
}
