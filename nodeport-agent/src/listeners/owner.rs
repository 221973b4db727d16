//! Whose a socket is: what its process and its control group tell.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of kube-proxy's process, and of its unit where it runs without a pod.
const KUBE_PROXY: &str = "kube-proxy";
/// Ports on which kube-proxy, as it comes, listens for health checks and for its metrics.
pub(super) const KUBE_PROXY_PORTS: [u16; 2] = [10_256, 10_249];

/// Whose a socket is, as far as can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The process that has it open; of several, the one with the lowest number.
    pub process: Option<Process>,
    /// Path of the control group that it was made in.
    pub cgroup: Option<String>,
    /// The user who made it.
    pub uid: u32,
    /// Its control group is one in which kube-proxy works, told by the ports on which that listens.
    pub is_beside_kube_proxy: bool,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Its number, in the agent's PID namespace.
    pub pid: u32,
    /// The name of its program, at most 15 characters, as `ps` shows it.
    pub command: String,
}

impl Owner {
    /// UID of the pod that it belongs to.
    #[must_use]
    pub fn pod(&self) -> Option<String> {
        pod_of(self.cgroup.as_deref()?)
    }

    /// Whether it is kube-proxy. Its old versions opened a socket at every nodePort, so that no other
    /// process takes the port; nothing is ever read from it.
    #[must_use]
    pub fn is_kube_proxy(&self) -> bool {
        match &self.process {
            Some(process) => process.command == KUBE_PROXY,
            None => self.cgroup.as_deref().is_some_and(|path| {
                is_unit_of_kube_proxy(path) || (self.is_beside_kube_proxy && pod_of(path).is_some())
            }),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = match &self.process {
            Some(Process { pid, command }) => write!(f, "{command} (process {pid}"),
            None => write!(f, "a process that cannot be seen from here (user {}", self.uid),
        };
        named?;
        match (self.pod(), &self.cgroup) {
            (Some(pod), _) => write!(f, ", pod {pod})"),
            (None, Some(path)) => write!(f, ", cgroup {path})"),
            (None, None) => f.write_str(")"),
        }
    }
}

fn is_unit_of_kube_proxy(path: &str) -> bool {
    path.split('/').any(|name| name == "kube-proxy.service")
}

/// UID of the pod that a control group belongs to, read from its path: kubelet's names, as its two
/// drivers write them (`/kubepods/burstable/podUID/…` and
/// `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/…`, with `_` for `-`).
#[must_use]
pub fn pod_of(path: &str) -> Option<String> {
    let mut is_below_kubepods = false;
    for name in path.split('/') {
        let name = name.strip_suffix(".slice").unwrap_or(name);
        is_below_kubepods |= name.split('-').any(|word| word == "kubepods");
        let uid = match name.rsplit_once("-pod") {
            Some((before, uid)) if before.contains("kubepods") => Some(uid),
            _ => name.strip_prefix("pod"),
        };
        let uid = uid.filter(|_| is_below_kubepods).map(|uid| uid.replace('_', "-"));
        if let Some(uid) = uid.filter(|uid| is_uid(uid)) {
            return Some(uid);
        }
    }
    None
}

/// A pod's UID is a UUID; of one that the kubelet knows from a file, a hash of 32 digits.
fn is_uid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let is_hexadecimal = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    is_hexadecimal && (groups == [8, 4, 4, 4, 12] || groups == [32])
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "7d1a2b3c-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
    const FLAT: &str = "7d1a2b3c_4e5f_4a6b_8c7d_9e0f1a2b3c4d";
    const HASH: &str = "0123456789abcdef0123456789abcdef";

    fn owner(command: Option<&str>, cgroup: &str, beside: bool) -> Owner {
        Owner {
            process: command.map(|command| Process { pid: 7, command: command.to_owned() }),
            cgroup: Some(cgroup.to_owned()),
            uid: 0,
            is_beside_kube_proxy: beside,
        }
    }

    #[test]
    fn a_pods_uid_is_read_from_both_drivers_paths() {
        let systemd = "/kubepods.slice/kubepods-burstable.slice";
        for (path, uid) in [
            (format!("/kubepods/burstable/pod{UID}/{HASH}{HASH}"), UID),
            (format!("/kubepods/pod{UID}"), UID),
            (format!("/kubepods/besteffort/pod{HASH}/x"), HASH),
            (
                format!("{systemd}/kubepods-burstable-pod{FLAT}.slice/cri-containerd-{HASH}.scope"),
                UID,
            ),
            (format!("/kubepods.slice/kubepods-pod{FLAT}.slice/crio-{HASH}.scope/container"), UID),
            (format!("{systemd}/kubepods-burstable-pod{HASH}.slice/docker-{HASH}.scope"), HASH),
            // A node in a container, as kind makes them.
            (
                format!(
                    "/docker/{HASH}/kubelet.slice/kubelet-kubepods.slice/\
                     kubelet-kubepods-besteffort.slice/\
                     kubelet-kubepods-besteffort-pod{FLAT}.slice/cri-containerd-{HASH}.scope"
                ),
                UID,
            ),
            (format!("/kubelet/kubepods/burstable/pod{UID}/{HASH}"), UID),
        ] {
            assert_eq!(pod_of(&path).as_deref(), Some(uid), "{path}");
        }
    }

    #[test]
    fn what_is_no_pods_group_has_no_uid() {
        for path in [
            "",
            "/",
            "/system.slice/nginx.service",
            "/kubepods.slice/kubepods-burstable.slice",
            "/kubepods/burstable/podman",
            "/kubepods/burstable/pod7d1a2b3c-4e5f-4a6b-8c7d",
            &format!("/machine.slice/libpod-{HASH}.scope"),
            &format!("/user.slice/pod{UID}"),
            &format!("/kubepods/pod{}", UID.replace('7', "ü")),
        ] {
            assert_eq!(pod_of(path), None, "{path}");
        }
    }

    #[test]
    fn kube_proxy_is_known_by_name_and_else_by_its_group() {
        let pod = format!("/kubepods/burstable/pod{UID}/x");
        for (command, cgroup, beside, is) in [
            (Some("kube-proxy"), "/", false, true),
            (Some("nginx"), pod.as_str(), true, false),
            (None, pod.as_str(), true, true),
            (None, pod.as_str(), false, false),
            // Everything that is in no group of its own is beside kube-proxy if that is.
            (None, "/", true, false),
            (None, "/system.slice/kube-proxy.service", false, true),
            (None, "/system.slice/nginx.service", true, false),
        ] {
            let owner = owner(command, cgroup, beside);
            assert_eq!(owner.is_kube_proxy(), is, "{owner:?}");
        }
        assert!(!Owner::default().is_kube_proxy());
    }

    #[test]
    fn an_owner_is_named_as_well_as_it_is_known() {
        let pod = format!("/kubepods/burstable/pod{UID}/x");
        let unseen = "a process that cannot be seen from here (user 0";
        for (owner, text) in [
            (owner(Some("nginx"), &pod, false), format!("nginx (process 7, pod {UID})")),
            (owner(None, &pod, false), format!("{unseen}, pod {UID})")),
            (owner(None, "/a.service", false), format!("{unseen}, cgroup /a.service)")),
            (Owner::default(), format!("{unseen})")),
        ] {
            assert_eq!(owner.to_string(), text);
        }
    }
}
