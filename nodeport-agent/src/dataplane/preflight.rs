//! What must be so before anything is loaded, said in a way that tells what to do.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use aya::util::KernelVersion;

/// `f_type` of a bpf file system.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// Oldest kernel that is supported.
const OLDEST: KernelVersion = KernelVersion::new(6, 1, 0);
/// First kernel with TCX links.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);
/// First kernel whose route look-up tells the source address (commit dab4e1f06cab).
const FIB_SOURCE: KernelVersion = KernelVersion::new(6, 7, 0);

/// Capabilities that are needed, and their numbers.
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
/// Has the powers of CAP_PERFMON and CAP_BPF.
const CAP_SYS_ADMIN: u32 = 21;

/// What the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// TC programs can be attached as links.
    pub tcx: bool,
    /// The route look-up tells the source address.
    pub fib_source: bool,
}

impl Kernel {
    /// Asks the kernel for its version.
    ///
    /// # Errors
    /// If it is older than 6.1.
    pub fn running() -> anyhow::Result<Self> {
        let version = KernelVersion::current()
            .map_err(|error| anyhow::anyhow!("reading the kernel's version: {error}"))?;
        ensure!(version >= OLDEST, "kernel {version} is too old: 6.1 or later is needed");
        Ok(Self { tcx: version >= TCX, fib_source: version >= FIB_SOURCE })
    }
}

/// Checks that this process may load and attach programs.
pub(super) fn require_privileges() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading own privileges")?;
    let effective = effective_capabilities(&status)
        .context("/proc/self/status does not tell the own capabilities")?;
    let missing = missing_capabilities(effective);
    ensure!(
        missing.is_empty(),
        "not allowed to use eBPF, {} missing: run as root, or with these capabilities",
        missing.join(", ")
    );
    Ok(())
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective >> number & 1 == 1;
    let stands_in = |name: &str| name != "CAP_NET_ADMIN" && has(CAP_SYS_ADMIN);
    CAPABILITIES
        .iter()
        .filter(|(name, number)| !has(*number) && !stands_in(name))
        .map(|(name, _)| *name)
        .collect()
}

/// Checks that a bpf file system is mounted there.
pub(super) fn require_bpffs(mount: &Path) -> anyhow::Result<()> {
    let shown = mount.display();
    let how = || {
        format!("mount it with `mount -t bpf -o mode=700 bpf {shown}`, or name another by --bpffs")
    };
    match rustix::fs::statfs(mount) {
        Ok(found) if found.f_type as u32 == BPF_FS_MAGIC => Ok(()),
        Ok(_) => bail!("{shown} is no bpf file system: {}", how()),
        Err(error) => {
            Err(error).with_context(|| format!("no bpf file system at {shown}: {}", how()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_are_missing_are_named() {
        let bit = |number: u32| 1u64 << number;
        assert_eq!(missing_capabilities(0), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(missing_capabilities(bit(12) | bit(39)), ["CAP_PERFMON"]);
        assert_eq!(missing_capabilities(bit(21)), ["CAP_NET_ADMIN"]);
        assert!(missing_capabilities(bit(12) | bit(21)).is_empty());
        assert!(missing_capabilities(bit(12) | bit(38) | bit(39)).is_empty());
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        let status = "Name:\tx\nCapPrm:\t0\nCapEff:\t000000c000001000\nCapBnd:\tf\n";
        assert_eq!(effective_capabilities(status), Some(0xc0_0000_1000));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn an_ordinary_folder_is_no_bpf_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", require_bpffs(folder.path()).unwrap_err());
        assert!(error.contains("mount -t bpf -o mode=700 bpf"), "{error}");
        let error = format!("{:#}", require_bpffs(&folder.path().join("none")).unwrap_err());
        assert!(error.contains("mount -t bpf -o mode=700 bpf"), "{error}");
    }
}
