//! Which files of a folder changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::is_manifest;

/// What tells one state of a file from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What the last looks found.
#[derive(Debug, Default)]
pub(super) struct Look {
    settled: BTreeMap<PathBuf, Stamp>,
    /// Files that differed the last time, with what was found then; none for one that was gone.
    moving: BTreeMap<PathBuf, Option<Stamp>>,
    looks: u64,
}

impl Look {
    /// Looks at the folder. Returns the files that came, changed or went, and have been the same
    /// for two looks; at the first look, all files.
    pub(super) fn at(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let found = stamps(folder)?;
        let first = self.looks == 0;
        self.looks += 1;
        let known: BTreeSet<_> = self.settled.keys().chain(found.keys()).cloned().collect();
        let moving = std::mem::take(&mut self.moving);
        let mut changed = Vec::new();
        for path in known {
            let now = found.get(&path).copied();
            if now == self.settled.get(&path).copied() {
                continue;
            }
            if first || moving.get(&path) == Some(&now) {
                self.settle(&path, now);
                changed.push(path);
            } else {
                self.moving.insert(path, now);
            }
        }
        Ok(changed)
    }

    /// Whether the last look found nothing that is still changing.
    pub(super) fn is_settled(&self) -> bool {
        self.moving.is_empty()
    }

    /// Whether the last look was not the first.
    pub(super) const fn has_looked_before(&self) -> bool {
        self.looks > 1
    }

    fn settle(&mut self, path: &Path, stamp: Option<Stamp>) {
        match stamp {
            Some(stamp) => self.settled.insert(path.to_owned(), stamp),
            None => self.settled.remove(path),
        };
    }
}

fn stamps(folder: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let mut stamps = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !is_manifest(&path) {
            continue;
        }
        // Through symbolic links. One that leads nowhere counts as a file that is gone.
        if let Ok(metadata) = std::fs::metadata(&path)
            && metadata.is_file()
        {
            stamps.insert(path, Stamp::new(&metadata));
        }
    }
    Ok(stamps)
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
