//! TC on kernels without TCX: filters at the clsact qdisc. They cannot be pinned; they are found
//! again by their priority and handle, which name the instance, and are replaced in place.

use std::io;

use anyhow::Context as _;
use aya::Ebpf;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{Link as _, ProgramError, SchedClassifier, TcAttachType};

use super::attach::Hook;
use super::net::{self, Side};

/// Before all others: what another filter has answered for, we would never see.
const PRIORITY: u16 = 1;
/// "NP": marks our filters' handles.
const HANDLE_MAJOR: u16 = 0x4e50;

/// The filters of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filters {
    handle: TcHandle,
}

impl Filters {
    /// Those of the instance of that name.
    pub(super) fn of(instance: &str) -> Self {
        Self { handle: TcHandle::new(HANDLE_MAJOR, fold(instance)) }
    }

    /// Attaches the program of the hook, or replaces it; true if there was none.
    pub(super) fn attach(self, ebpf: &mut Ebpf, device: &str, hook: Hook) -> anyhow::Result<bool> {
        add_clsact(device)?;
        let name = hook.program();
        let program = ebpf.program_mut(name).context("the object is not complete")?;
        let program: &mut SchedClassifier = program.try_into()?;
        let options = NlOptions { priority: PRIORITY, handle: self.handle, classid: None };
        let attached =
            program.attach_with_options(device, direction(hook), TcAttachOptions::Netlink(options));
        let (id, is_new) = match attached {
            Ok(id) => (id, true),
            Err(error) if exists(&error) => {
                (program.attach_to_link(self.link(device, hook)?)?, false)
            }
            Err(error) => {
                return Err(error).with_context(|| format!("attaching {name} to TC {hook}"));
            }
        };
        // The filter outlives the agent.
        std::mem::forget(program.take_link(id)?);
        Ok(is_new)
    }

    /// Whether the filter is there; an interface that went meanwhile has none.
    pub(super) fn is_at(self, ifindex: u32, hook: Hook) -> bool {
        let side = match direction(hook) {
            TcAttachType::Egress => Side::Egress,
            _ => Side::Ingress,
        };
        let found = net::filters(ifindex, side).unwrap_or_default();
        found.contains(&self.handle.into())
    }

    /// Removes the filter; true if there was one.
    pub(super) fn detach(self, device: &str, hook: Hook) -> io::Result<bool> {
        Ok(self.link(device, hook)?.detach().is_ok())
    }

    fn link(self, device: &str, hook: Hook) -> io::Result<SchedClassifierLink> {
        SchedClassifierLink::attached(device, direction(hook), PRIORITY, self.handle, None)
    }
}

fn direction(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Egress => TcAttachType::Egress,
        Hook::Ingress | Hook::Pod | Hook::Xdp => TcAttachType::Ingress,
    }
}

/// The qdisc may be there already, and be somebody else's too: it is never removed.
fn add_clsact(device: &str) -> anyhow::Result<()> {
    match tc::qdisc_add_clsact(device) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.context("adding the clsact qdisc (kernel option CONFIG_NET_CLS_ACT)"),
    }
}

fn exists(error: &ProgramError) -> bool {
    matches!(error, ProgramError::TcError(TcError::NetlinkError(error))
        if error.raw_os_error() == Some(libc::EEXIST))
}

/// Whether a handle is that of a filter of ours, of whatever instance.
pub(super) const fn is_ours(handle: u32) -> bool {
    handle >> 16 == HANDLE_MAJOR as u32
}

/// FNV-1a, folded: instances on one machine are few.
fn fold(name: &str) -> u16 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 16) as u16 ^ hash as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_handles_of_their_own() {
        assert_eq!(Filters::of("node1"), Filters::of("node1"));
        assert_ne!(Filters::of("node1"), Filters::of("node2"));
        assert_ne!(Filters::of("default"), Filters::of("node2"));
    }
}
