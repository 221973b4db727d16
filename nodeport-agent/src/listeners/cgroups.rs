//! Paths of control groups by their ids: a group's id is its folder's inode.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Groups that are looked at, at most: a node of 500 pods has some thousands.
const MOST: usize = 100_000;

/// Paths of the groups with these ids, below the root of cgroup2 (`/` is the root itself). Those that
/// cannot be seen from here are missing.
#[must_use]
pub fn paths(ids: &HashSet<u64>) -> HashMap<u64, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = HashMap::new();
    let mut left = MOST;
    // What a container sees as its own is only a part of what another mount may show.
    for root in roots(&mounts) {
        search(&root, ids, &mut found, &mut left);
    }
    found
}

/// Where cgroup2 is mounted, by the kernel's list of mounts (proc_pid_mountinfo(5)).
fn roots(mounts: &str) -> Vec<PathBuf> {
    let root = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let is_cgroup2 = after.split(' ').next() == Some("cgroup2");
        before.split(' ').nth(4).filter(|_| is_cgroup2).map(PathBuf::from)
    };
    mounts.lines().filter_map(root).collect()
}

fn search(root: &Path, ids: &HashSet<u64>, found: &mut HashMap<u64, String>, left: &mut usize) {
    let mut folders = VecDeque::from([root.to_owned()]);
    while let Some(folder) = folders.pop_front() {
        if found.len() == ids.len() || *left == 0 {
            return;
        }
        *left -= 1;
        // Groups come and go while we look.
        let Ok(id) = fs::metadata(&folder).map(|folder| folder.ino()) else { continue };
        if ids.contains(&id) {
            let path = folder.strip_prefix(root).unwrap_or(&folder);
            found.entry(id).or_insert_with(|| format!("/{}", path.display()));
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| entry.path()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_cgroup2_are_found() {
        let mounts = "\
            25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
            31 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
            40 25 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 1 0:26 / /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw\n\
            senseless\n";
        assert_eq!(roots(mounts), ["/sys/fs/cgroup", "/host/sys/fs/cgroup"].map(PathBuf::from));
    }

    #[test]
    fn a_folder_is_found_by_its_inode() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a.slice/b.scope");
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir(root.path().join("c")).unwrap();
        let id = |path: &Path| fs::metadata(path).unwrap().ino();
        let ids = HashSet::from([id(root.path()), id(&inner), u64::MAX]);
        let (mut found, mut left) = (HashMap::new(), MOST);
        search(root.path(), &ids, &mut found, &mut left);
        let expected =
            [(id(root.path()), "/".to_owned()), (id(&inner), "/a.slice/b.scope".to_owned())];
        assert_eq!(found, expected.into());
        // However many there are, the search ends.
        let (mut found, mut left) = (HashMap::new(), 2);
        search(root.path(), &ids, &mut found, &mut left);
        assert_eq!((found.len(), left), (1, 0));
    }
}
