//! Which process has a socket open: a look through `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::Process;

/// The processes that have these sockets open, by the sockets' inodes; of several, the one with the
/// lowest number. Processes that may not be looked into are passed over.
#[must_use]
pub fn holders(inodes: &HashSet<u32>) -> HashMap<u32, Process> {
    let mut found = HashMap::new();
    for pid in pids() {
        if found.len() == inodes.len() {
            break;
        }
        let new: Vec<u32> = sockets(pid)
            .filter(|inode| inodes.contains(inode) && !found.contains_key(inode))
            .collect();
        // It may have ended meanwhile.
        if let Some(command) = command(pid).filter(|_| !new.is_empty()) {
            let process = Process { pid, command };
            found.extend(new.into_iter().map(|inode| (inode, process.clone())));
        }
    }
    found
}

/// Whether the process is there still, as far as its name tells: what it has open is not looked at
/// again, as that may be much.
pub(super) fn is_there(process: &Process) -> bool {
    command(process.pid).as_ref() == Some(&process.command)
}

/// All that can be seen, the lowest first.
fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// Inodes of the sockets that a process has open.
fn sockets(pid: u32) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| inode(&fs::read_link(entry.path()).ok()?))
}

/// The inode in `socket:[123]`.
fn inode(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn command(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_inode_is_read_from_what_the_kernel_writes() {
        for (link, expected) in [
            ("socket:[4026]", Some(4026)),
            ("socket:[]", None),
            ("socket:[99999999999]", None),
            ("pipe:[4026]", None),
            ("/dev/null", None),
        ] {
            assert_eq!(inode(Path::new(link)), expected, "{link}");
        }
    }

    #[test]
    fn a_socket_of_our_own_is_ours() {
        use std::os::fd::AsRawFd as _;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let own = inode(&link).unwrap();
        let pid = std::process::id();
        let found = holders(&[own, u32::MAX].into());
        assert_eq!(found.keys().collect::<Vec<_>>(), [&own]);
        assert_eq!(found[&own].pid, pid);
        assert!(is_there(&found[&own]));
        let other = Process { command: "another".to_owned(), ..found[&own].clone() };
        assert!(!is_there(&other));
        // Numbers end at 4,194,304.
        assert!(!is_there(&Process { pid: u32::MAX, ..other }));
    }
}
