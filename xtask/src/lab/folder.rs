//! The folder of a lab, and how a lab is taken away.
//!
//! `/run/nodeport-lab/PID-N/` is a tmpfs of its own that holds everything: namespaces under
//! `ns/`, the BPF file system and the log of each node. One lazy unmount makes it all go.
//! Nothing but this folder is needed for that, so the drop of a lab, a signal, `lab down`, and
//! the next lab after a crash share the same few lines.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{cgroup, interrupt};
use crate::workspace;

const LABS: &str = "/run/nodeport-lab";
const KEPT: &str = "kept";
const OWNER: &str = "owner";

/// The folder of a lab that is up; dropped, it takes the lab away.
pub(super) struct Folder {
    path: PathBuf,
    cgroup: PathBuf,
    kept: bool,
}

impl Folder {
    /// A new folder, after the removal of those whose processes died.
    pub(super) fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        remove_stale();
        interrupt::watch()?;
        let name = format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder =
            Self { path: Path::new(LABS).join(&name), cgroup: cgroup::root(&name)?, kept: false };
        interrupt::add(&folder.path);
        folder.fill().with_context(|| format!("prepare {}", folder.path.display()))?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the namespace of that name is mounted.
    pub(super) fn namespace(&self, name: &str) -> PathBuf {
        self.path.join("ns").join(name)
    }

    /// The folder of one member.
    pub(super) fn member(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// A BPF file system of a node's own.
    pub(super) fn bpffs(&self, node: &str) -> Result<PathBuf> {
        let path = self.member(node)?.join("bpf");
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        mount(Some("bpffs"), &path, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a BPF file system at {}", path.display()))?;
        Ok(path)
    }

    /// A control group of a node's own.
    pub(super) fn cgroup(&self, node: &str) -> Result<PathBuf> {
        let path = self.cgroup.join(node);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Leaves everything where it is.
    pub(super) fn keep(mut self) -> Result<PathBuf> {
        let mark = self.path.join(KEPT);
        fs::write(&mark, "").with_context(|| format!("write {}", mark.display()))?;
        self.kept = true;
        Ok(self.path.clone())
    }

    fn fill(&self) -> Result<()> {
        fs::create_dir_all(&self.path)?;
        mount(Some("nodeport-lab"), &self.path, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .context("mount a tmpfs (the lab needs the rights of root)")?;
        // What is mounted inside shall not appear in other mount namespaces.
        mount(None::<&str>, &self.path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
        fs::create_dir(self.path.join("ns"))?;
        fs::write(self.path.join(OWNER), identity(process::id()).unwrap_or_default())?;
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        interrupt::forget(&self.path);
        if std::thread::panicking() {
            save_logs(&self.path);
        }
        if !self.kept {
            remove(&self.path);
        }
    }
}

/// After a failed test the logs tell why.
fn save_logs(lab: &Path) {
    let target = workspace::logs().join("lab").join(lab.file_name().unwrap_or_default());
    let members = fs::read_dir(lab).into_iter().flatten().flatten();
    let files = members.flat_map(|member| fs::read_dir(member.path()).into_iter().flatten());
    for file in files.flatten().map(|file| file.path()) {
        let Ok(name) = file.strip_prefix(lab) else { continue };
        if file.extension().is_some_and(|extension| extension == "log") {
            let name = name.to_string_lossy().replace('/', "-");
            let _ = fs::create_dir_all(&target);
            let _ = fs::copy(&file, target.join(name));
        }
    }
    eprintln!("the lab's logs are in {}", target.display());
}

/// The folders of all labs.
pub(super) fn all() -> Vec<PathBuf> {
    let entries = fs::read_dir(LABS).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Takes a lab away, whatever state it is in: processes, mounts, groups, folder.
pub(super) fn remove(lab: &Path) {
    end_processes(lab);
    // Mounts below it go with it. It is no mount if its making failed early.
    let _ = umount2(lab, MntFlags::MNT_DETACH);
    let name = lab.file_name().unwrap_or_default().to_string_lossy();
    if let Ok(group) = cgroup::root(&name) {
        cgroup::remove(&group);
    }
    let _ = fs::remove_dir_all(lab);
    let _ = fs::remove_dir(LABS);
}

/// Whether it shall stay though its maker has gone.
pub(super) fn is_kept(lab: &Path) -> bool {
    lab.join(KEPT).exists()
}

/// Removes labs whose processes died without doing it.
pub(super) fn remove_stale() {
    for lab in all() {
        if !is_kept(&lab) && !is_owned(&lab) {
            remove(&lab);
        }
    }
}

fn is_owned(lab: &Path) -> bool {
    let name = lab.file_name().map(|name| name.to_string_lossy().into_owned());
    let pid = name.and_then(|name| name.split('-').next()?.parse().ok());
    let now = pid.and_then(identity);
    // Between the making of the folder and of the file in it, the name alone must do.
    let written = fs::read_to_string(lab.join(OWNER)).ok();
    now.is_some() && (written.is_none() || written == now)
}

/// Numbers of processes come again; with the time of their start they do not.
fn identity(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; the start is field 22, the 20th behind it.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid} {start}"))
}

/// Ends what runs in the lab's namespaces: whatever is there was started by the lab.
fn end_processes(lab: &Path) {
    let inodes = namespaces(lab);
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let inside = processes_in(&inodes);
        if inside.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in inside {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        sleep(Duration::from_millis(5));
    }
}

fn namespaces(lab: &Path) -> HashSet<(u64, u64)> {
    let files = fs::read_dir(lab.join("ns")).into_iter().flatten().flatten();
    // A file on which no namespace is mounted is on the tmpfs, and no process's namespace is.
    files.filter_map(|file| fs::metadata(file.path()).ok()).map(|m| (m.dev(), m.ino())).collect()
}

fn processes_in(namespaces: &HashSet<(u64, u64)>) -> Vec<i32> {
    let own = i32::try_from(process::id()).unwrap_or_default();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32| {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net"));
        namespace.is_ok_and(|found| namespaces.contains(&(found.dev(), found.ino())))
    };
    pids.filter(|pid| *pid != own).filter(inside).collect()
}
