//! The files that keep maps and links alive while no agent runs:
//!
//! ```text
//! <bpffs>/nodeport/<instance>/v<layout>/<map>
//! <bpffs>/nodeport/<instance>/v<layout>/links/<ifindex>_<hook>_<network namespace>
//! ```
//!
//! Who holds the lock on the instance's folder may change what is in it. Everybody may make folders
//! in a bpf file system as it is mounted by default: one that another user has prepared is refused,
//! and no symbolic link is followed where something is removed.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail, ensure};
use nodeport_common::abi::LAYOUT_VERSION;

use super::attach::Hook;
use crate::config::Instance;

/// Folder of all instances in the bpf file system.
const ALL: &str = "nodeport";
const LINKS: &str = "links";

/// Where an instance's pins are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pins {
    all: PathBuf,
    instance: PathBuf,
    layout: PathBuf,
    links: PathBuf,
}

/// The right to change an instance's pins; given back when dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, not used")] File);

/// Which link a pin holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkName {
    pub(crate) ifindex: u32,
    pub(crate) hook: Hook,
    /// Inode of the network namespace: interfaces of two namespaces share their numbers.
    pub(crate) namespace: u64,
}

impl Pins {
    pub(crate) fn new(instance: &Instance) -> Self {
        let all = instance.bpffs.join(ALL);
        let folder = all.join(&instance.name);
        let layout = folder.join(format!("v{LAYOUT_VERSION}"));
        let links = layout.join(LINKS);
        Self { all, instance: folder, layout, links }
    }

    /// The folder with the maps.
    pub(crate) fn folder(&self) -> &Path {
        &self.layout
    }

    /// The process that holds the lock, as far as this one can see it.
    pub(crate) fn holder(&self) -> Option<u32> {
        let folder = fs::metadata(&self.instance).ok()?;
        let locks = fs::read_to_string("/proc/locks").ok()?;
        holder(&locks, folder.dev(), folder.ino())
    }

    /// The file of a map.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.layout.join(name)
    }

    pub(crate) fn link(&self, name: LinkName) -> PathBuf {
        self.links.join(name.to_string())
    }

    /// Makes the instance's folder, if need be, and takes its lock.
    pub(super) fn lock(&self) -> anyhow::Result<Lock> {
        for folder in [&self.all, &self.instance] {
            make(folder)?;
            require_own(folder)?;
        }
        self.lock_existing()?.with_context(|| format!("{} vanished", self.instance.display()))
    }

    /// Takes the lock of the instance's folder; none if there is no such folder.
    pub(super) fn lock_existing(&self) -> anyhow::Result<Option<Lock>> {
        let shown = self.instance.display();
        if !(require_own(&self.all)? && require_own(&self.instance)?) {
            return Ok(None);
        }
        let folder = match File::open(&self.instance) {
            Ok(folder) => folder,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("opening {shown}")),
        };
        match folder.try_lock() {
            Ok(()) => Ok(Some(Lock(folder))),
            Err(TryLockError::WouldBlock) => bail!(
                "another agent runs with the pins in {shown}: stop it first, or give this one \
                 another name with --instance"
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {shown}"))
            }
        }
    }

    /// Makes the folders of this layout; true if they are new.
    pub(super) fn make(&self) -> anyhow::Result<bool> {
        let is_new = !self.layout.exists();
        make(&self.links)?;
        self.adopt_links()?;
        Ok(is_new)
    }

    /// Moves the links of other layouts here, so that their programs are replaced in place.
    fn adopt_links(&self) -> anyhow::Result<()> {
        for folder in self.other_layouts()? {
            for name in names(&folder.join(LINKS))? {
                let from = folder.join(LINKS).join(&name);
                fs::rename(&from, self.links.join(&name))
                    .with_context(|| format!("moving {} to this layout", from.display()))?;
            }
        }
        Ok(())
    }

    /// Removes the maps of other layouts: their programs run no more.
    pub(super) fn remove_other_layouts(&self) -> anyhow::Result<()> {
        for folder in self.other_layouts()? {
            remove_tree(&folder, &mut |_| {})?;
        }
        Ok(())
    }

    fn other_layouts(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut layouts = self.layouts()?;
        layouts.retain(|folder| *folder != self.layout);
        Ok(layouts)
    }

    fn layouts(&self) -> anyhow::Result<Vec<PathBuf>> {
        let layouts = names(&self.instance)?.into_iter().map(|name| self.instance.join(name));
        Ok(layouts.filter(|path| is_folder(path)).collect())
    }

    /// The links that are pinned; files with names of another form are left alone.
    pub(crate) fn links(&self) -> anyhow::Result<Vec<LinkName>> {
        let names = names(&self.links)?;
        Ok(names.iter().filter_map(|name| LinkName::parse(name)).collect())
    }

    /// The files of all links, of all layouts.
    pub(super) fn all_links(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for layout in self.layouts()? {
            let links = layout.join(LINKS);
            paths.extend(names(&links)?.into_iter().map(|name| links.join(name)));
        }
        Ok(paths)
    }

    /// Removes this layout, and its folders where nothing else is: maps of another stay for its
    /// agent.
    pub(super) fn remove_new(&self) -> anyhow::Result<()> {
        if self.other_layouts()?.is_empty() {
            return self.remove_all(&mut |_| {});
        }
        // The links of the other layout may be here; they are what serves on.
        if names(&self.links)?.is_empty() {
            remove_tree(&self.layout, &mut |_| {})?;
        }
        Ok(())
    }

    /// Removes everything; says of each file that it was removed.
    pub(super) fn remove_all(&self, removed: &mut dyn FnMut(&Path)) -> anyhow::Result<()> {
        remove_tree(&self.instance, removed)?;
        // The folder of all instances goes with the last of them.
        match fs::remove_dir(&self.all) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(error).with_context(|| format!("removing {}", self.all.display()))
            }
            _ => Ok(()),
        }
    }
}

impl LinkName {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let ifindex = parts.next()?.parse().ok()?;
        let hook = Hook::parse(parts.next()?)?;
        let namespace = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { ifindex, hook, namespace })
    }
}

impl std::fmt::Display for LinkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ifindex, hook, namespace } = self;
        // A bpf file system takes no dots in names.
        write!(f, "{ifindex}_{hook}_{namespace}")
    }
}

/// Inode of this thread's network namespace.
pub(crate) fn own_namespace() -> anyhow::Result<u64> {
    let path = "/proc/thread-self/ns/net";
    Ok(fs::metadata(path).with_context(|| format!("reading {path}"))?.ino())
}

/// Finds who holds a lock in `/proc/locks`, where a file is `major:minor:inode`.
fn holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // A line with an arrow is about one who waits.
        let [_, "FLOCK", _, _, process, of, ..] = fields[..] else { return None };
        (of == file).then(|| process.parse().ok()).flatten()
    })
}

fn make(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("making {}", folder.display()))
}

/// Whether this is a folder itself, not a link to one.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Refuses what others have made, or can change; false if there is nothing.
fn require_own(folder: &Path) -> anyhow::Result<bool> {
    let shown = folder.display();
    let found = match fs::symlink_metadata(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("looking at {shown}")),
    };
    ensure!(
        found.is_dir() && is_own(found.uid(), found.mode(), rustix::process::geteuid().as_raw()),
        "{shown} is not this user's alone (owner {}, mode {:o}): another user may have prepared \
         it. Look what is there, then remove it, or name another bpf file system by --bpffs",
        found.uid(),
        found.mode()
    );
    Ok(true)
}

const fn is_own(owner: u32, mode: u32, user: u32) -> bool {
    owner == user && mode & 0o077 == 0
}

/// Names of what is in a folder; none if it is not there.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let shown = || format!("reading {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(shown),
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<io::Result<_>>().with_context(shown)
}

/// Removes a folder with what is in it. Of a symbolic link the link goes, not what it leads to.
fn remove_tree(path: &Path, removed: &mut dyn FnMut(&Path)) -> anyhow::Result<()> {
    let gone = if is_folder(path) {
        for name in names(path)? {
            remove_tree(&path.join(name), removed)?;
        }
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
    match gone {
        Ok(()) => removed(path),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("removing {}", path.display())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn pins(folder: &Path) -> Pins {
        Pins::new(&Instance {
            name: "one".to_owned(),
            bpffs: folder.to_owned(),
            run_dir: folder.join("run"),
        })
    }

    #[test]
    fn names_of_links_read_back() {
        for hook in Hook::ALL {
            let name = LinkName { ifindex: 7, hook, namespace: 4_026_531_840 };
            assert_eq!(LinkName::parse(&name.to_string()), Some(name));
        }
        for wrong in ["", "7", "7_xdp", "7_xdp_1_2", "x_xdp_1", "7_up_1"] {
            assert_eq!(LinkName::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn two_agents_cannot_have_one_instance() {
        let folder = tempfile::tempdir().unwrap();
        let pins = pins(folder.path());
        assert!(pins.lock_existing().unwrap().is_none());
        let lock = pins.lock().unwrap();
        let error = pins.lock().unwrap_err().to_string();
        assert!(error.contains("--instance"), "{error}");
        drop(lock);
        pins.lock().unwrap();
    }

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1f:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:1f:13 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:1f:12 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 10 00:1f:12 0 EOF\n";
        let device = rustix::fs::makedev(0, 0x1f);
        assert_eq!(holder(locks, device, 12), Some(10));
        assert_eq!(holder(locks, device, 14), None);
    }

    #[test]
    fn links_move_to_this_layout_and_the_rest_of_another_goes() {
        let folder = tempfile::tempdir().unwrap();
        let pins = pins(folder.path());
        let old = pins.instance.join("v0");
        fs::create_dir_all(old.join(LINKS)).unwrap();
        let name = LinkName { ifindex: 2, hook: Hook::Xdp, namespace: 9 };
        fs::write(old.join(LINKS).join(name.to_string()), "").unwrap();
        fs::write(old.join("flows4"), "").unwrap();

        assert!(pins.make().unwrap(), "the layout is new");
        assert_eq!(pins.links().unwrap(), [name]);
        pins.remove_new().unwrap();
        assert!(old.join("flows4").exists(), "another layout's");
        assert_eq!(pins.links().unwrap(), [name]);
        pins.remove_other_layouts().unwrap();
        assert!(!old.exists());
        assert!(!pins.make().unwrap(), "the layout is not new any more");
        assert_eq!(pins.links().unwrap(), [name]);
    }

    #[test]
    fn what_a_failed_start_has_made_goes_and_another_layout_stays() {
        let folder = tempfile::tempdir().unwrap();
        let pins = pins(folder.path());
        let old = pins.instance.join("v0");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("flows4"), "").unwrap();
        pins.make().unwrap();
        fs::write(pins.map("flows4"), "").unwrap();
        pins.remove_new().unwrap();
        assert!(old.join("flows4").exists() && !pins.layout.exists());
        remove_tree(&old, &mut |_| {}).unwrap();
        pins.make().unwrap();
        pins.remove_new().unwrap();
        assert!(!pins.all.exists());
    }

    #[test]
    fn links_to_elsewhere_go_and_what_they_lead_to_stays() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pins = pins(folder.path());
        pins.make().unwrap();
        let (file, links) = (elsewhere.path().join("passwd"), elsewhere.path().join(LINKS));
        fs::write(&file, "").unwrap();
        fs::create_dir(&links).unwrap();
        fs::write(links.join("7_xdp_1"), "").unwrap();
        symlink(elsewhere.path(), pins.instance.join("v0")).unwrap();
        symlink(elsewhere.path(), pins.layout.join("flows4")).unwrap();

        assert!(pins.all_links().unwrap().is_empty());
        pins.make().unwrap();
        pins.remove_other_layouts().unwrap();
        pins.remove_all(&mut |_| {}).unwrap();
        assert!(!pins.instance.exists());
        assert!(file.exists() && links.join("7_xdp_1").exists());
    }

    #[test]
    fn folders_that_others_have_prepared_are_refused() {
        let elsewhere = tempfile::tempdir().unwrap();
        for depth in 1..=2 {
            let folder = tempfile::tempdir().unwrap();
            let pins = pins(folder.path());
            let prepared = if depth == 1 { &pins.all } else { &pins.instance };
            make(prepared).unwrap();
            fs::set_permissions(prepared, fs::Permissions::from_mode(0o755)).unwrap();
            let error = pins.lock().unwrap_err().to_string();
            assert!(error.contains("remove it") && error.contains("mode 40755"), "{error}");
            assert!(pins.lock_existing().is_err());

            fs::remove_dir(prepared).unwrap();
            symlink(elsewhere.path(), prepared).unwrap();
            assert!(pins.lock().is_err() && pins.lock_existing().is_err());
            fs::remove_file(prepared).unwrap();
            pins.lock().unwrap();
        }
        assert!(names(elsewhere.path()).unwrap().is_empty());
        assert!(is_own(0, 0o40700, 0) && !is_own(1000, 0o40700, 0) && !is_own(0, 0o40701, 0));
    }

    #[test]
    fn nothing_is_left_and_nothing_of_others_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let pins = pins(folder.path());
        pins.make().unwrap();
        fs::write(pins.map("flows4"), "").unwrap();
        let other = folder.path().join(ALL).join("two");
        fs::create_dir(&other).unwrap();

        let mut removed = 0;
        pins.remove_all(&mut |_| removed += 1).unwrap();
        assert_eq!(removed, 4, "a map and three folders");
        assert!(other.exists());
        fs::remove_dir(&other).unwrap();
        pins.remove_all(&mut |_| panic!("nothing is there")).unwrap();
        assert!(!folder.path().join(ALL).exists());
    }
}
