//! Control groups: one for a lab, with one for each node below.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const GROUP: &str = "nodeport-lab";

/// The folder of a lab's groups. cgroup2 is at `/sys/fs/cgroup` on most machines, and below it
/// where the old hierarchy is in use beside it.
pub(super) fn root(lab: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ')).find_map(|mut fields| {
        let point = fields.nth(1)?;
        (fields.next()? == "cgroup2").then_some(point)
    });
    let mount = mount.context("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")?;
    Ok(Path::new(mount).join(GROUP).join(lab))
}

/// Removes a group and those below it. There must be no process left in them.
pub(super) fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // Groups go as folders do, once they are empty; the parent that all labs share stays as
    // long as one of them does.
    let _ = fs::remove_dir(group);
    if let Some(parent) = group.parent().filter(|parent| parent.ends_with(GROUP)) {
        let _ = fs::remove_dir(parent);
    }
}
