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
    /// Files that the last look could not look at, and why.
    unknown: BTreeMap<PathBuf, String>,
}

impl Look {
    /// Looks at the folder. Returns the files that came, changed or went, and have been the same
    /// for two looks. Of a file that could not be looked at, what was known stays.
    pub(super) fn at(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let (found, unknown) = stamps(folder)?;
        self.looks += 1;
        self.unknown = unknown;
        let known: BTreeSet<_> = self.settled.keys().chain(found.keys()).cloned().collect();
        let moving = std::mem::take(&mut self.moving);
        let mut changed = Vec::new();
        for path in known {
            let now = found.get(&path).copied();
            if now == self.settled.get(&path).copied() || self.unknown.contains_key(&path) {
                continue;
            }
            if moving.get(&path) == Some(&now) {
                self.settle(&path, now);
                changed.push(path);
            } else {
                self.moving.insert(path, now);
            }
        }
        Ok(changed)
    }

    /// Whether two looks found the same.
    pub(super) fn is_settled(&self) -> bool {
        self.looks > 1 && self.moving.is_empty()
    }

    /// Whether the file was there when it was the same for two looks.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.settled.contains_key(path)
    }

    /// The files that could not be looked at, and why.
    pub(super) const fn unknown(&self) -> &BTreeMap<PathBuf, String> {
        &self.unknown
    }

    fn settle(&mut self, path: &Path, stamp: Option<Stamp>) {
        match stamp {
            Some(stamp) => self.settled.insert(path.to_owned(), stamp),
            None => self.settled.remove(path),
        };
    }
}

type Stamps = (BTreeMap<PathBuf, Stamp>, BTreeMap<PathBuf, String>);

/// What there is, and what cannot be looked at.
fn stamps(folder: &Path) -> io::Result<Stamps> {
    let (mut stamps, mut unknown) = (BTreeMap::new(), BTreeMap::new());
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !is_manifest(&path) {
            continue;
        }
        // Through symbolic links. One that leads nowhere counts as a file that is gone.
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                stamps.insert(path, Stamp::new(&metadata));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                unknown.insert(path, error.to_string());
            }
            _ => {}
        }
    }
    Ok((stamps, unknown))
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
