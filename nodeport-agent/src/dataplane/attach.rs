//! Attaches the programs to interfaces, and takes over what is attached already: a pinned link
//! gets the new program in place, so that no packet passes by unseen.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, anyhow, bail};
use aya::Ebpf;
use aya::programs::Program;
use nodeport_common::abi::maps;

use super::devices::Target;
use super::filters::Filters;
use super::net::Interface;
use super::pins::{LinkName, Pins};
use super::status::{Attached, DeviceMode, Refusal};
use super::sys::{self, LinkKind};
use crate::config::Mode;

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// TC where packets leave.
    Egress,
    /// TC where packets arrive.
    Ingress,
    /// TC where a pod's packets come out of its veth.
    Pod,
    /// XDP.
    Xdp,
}

/// Something attached by this run that was not there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// A pinned link.
    Link(LinkName),
    /// A filter on the interface of that name.
    Filter(String, Hook),
}

/// Attaches and detaches.
pub(super) struct Attacher {
    pub(super) ebpf: Ebpf,
    pub(super) pins: Pins,
    pub(super) namespace: u64,
    pub(super) mode: Mode,
    /// Whether TC programs are attached as links.
    pub(super) tcx: bool,
    pub(super) filters: Filters,
}

impl Hook {
    /// All of them, in the order in which they are attached.
    pub(crate) const ALL: [Self; 4] = [Self::Pod, Self::Egress, Self::Ingress, Self::Xdp];

    /// The program's name in the object.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "nodeport_xdp",
            Self::Ingress => "nodeport_ingress",
            Self::Egress => "nodeport_egress",
            Self::Pod => "nodeport_pod",
        }
    }

    /// The name of the program for what is not routine.
    pub(crate) const fn slow_program(self) -> &'static str {
        match self {
            Self::Xdp => "slow_xdp",
            Self::Ingress => "slow_ingress",
            Self::Egress => "slow_egress",
            Self::Pod => "slow_pod",
        }
    }

    /// The name of the program for fragments, if they are met at this hook.
    pub(crate) const fn parts_program(self) -> Option<&'static str> {
        match self {
            Self::Xdp => None,
            Self::Ingress => Some("parts_ingress"),
            Self::Egress => Some("parts_egress"),
            Self::Pod => Some("parts_pod"),
        }
    }

    /// The map in which the programs look for these two.
    pub(crate) const fn jump_map(self) -> &'static str {
        match self {
            Self::Xdp => maps::JUMP_XDP,
            Self::Ingress => maps::JUMP_INGRESS,
            Self::Egress => maps::JUMP_EGRESS,
            Self::Pod => maps::JUMP_POD,
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.to_string() == name)
    }

    const fn link_kind(self) -> LinkKind {
        match self {
            Self::Xdp => LinkKind::Xdp,
            Self::Ingress | Self::Pod => LinkKind::TcxIngress,
            Self::Egress => LinkKind::TcxEgress,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Pod => "pod",
        })
    }
}

impl Attacher {
    /// Attaches to an interface all that goes there; what is new is added to `fresh`, and undone
    /// if not all of it succeeds.
    pub(super) fn attach(
        &mut self,
        target: &Target,
        fresh: &mut Vec<Fresh>,
    ) -> anyhow::Result<Attached> {
        let before = fresh.len();
        let result = self
            .attach_all(target, fresh)
            .with_context(|| format!("attaching to interface {}", target.name));
        if result.is_err() {
            self.undo(fresh.split_off(before));
        }
        result
    }

    fn attach_all(&mut self, target: &Target, fresh: &mut Vec<Fresh>) -> anyhow::Result<Attached> {
        for hook in [Hook::Egress, Hook::Ingress] {
            if self.tcx {
                self.link(target.ifindex, hook, fresh).map_err(|error| explain_tc(hook, error))?;
            } else {
                let is_new = self.filters.attach(&mut self.ebpf, &target.name, hook)?;
                fresh.extend(is_new.then(|| Fresh::Filter(target.name.clone(), hook)));
            }
        }
        match self.attach_xdp(target, fresh)? {
            None => Ok(Attached::xdp()),
            Some(refusal) => {
                self.detach_link(self.name(target.ifindex, Hook::Xdp))?;
                Ok(Attached::tc(refusal, &target.name))
            }
        }
    }

    /// Attaches to a pod's veth, or puts the program of this run there.
    pub(super) fn attach_to_pod(
        &mut self,
        ifindex: u32,
        device: &str,
        fresh: &mut Vec<Fresh>,
    ) -> anyhow::Result<()> {
        if self.tcx {
            return self
                .link(ifindex, Hook::Pod, fresh)
                .map_err(|error| explain_tc(Hook::Pod, error));
        }
        let is_new = self.filters.attach(&mut self.ebpf, device, Hook::Pod)?;
        fresh.extend(is_new.then(|| Fresh::Filter(device.to_owned(), Hook::Pod)));
        Ok(())
    }

    /// Detaches from a veth that is no pod's any more; without a name it is gone, and its filters
    /// are as well.
    pub(super) fn detach_from_pod(&self, ifindex: u32, device: Option<&str>) -> anyhow::Result<()> {
        if let Some(device) = device.filter(|_| !self.tcx) {
            // That there is none is what was wanted.
            let _ = self.filters.detach(device, Hook::Pod);
        }
        self.detach_link(self.name(ifindex, Hook::Pod))
    }

    /// Whether a program of ours is attached to a pod's veth, be it of this run or of one before.
    pub(super) fn is_at_pod(&self, ifindex: u32) -> bool {
        if self.tcx {
            self.is_linked(ifindex, Hook::Pod)
        } else {
            self.filters.is_at(ifindex, Hook::Pod)
        }
    }

    /// Attaches filters that are there no more; true if there were any.
    pub(super) fn renew_filters(&mut self, device: &str) -> anyhow::Result<bool> {
        let mut had_vanished = false;
        if !self.tcx {
            for hook in [Hook::Egress, Hook::Ingress] {
                had_vanished |= self.filters.attach(&mut self.ebpf, device, hook)?;
            }
        }
        Ok(had_vanished)
    }

    /// Attaches XDP, or says why it cannot be.
    fn attach_xdp(
        &self,
        target: &Target,
        fresh: &mut Vec<Fresh>,
    ) -> anyhow::Result<Option<Refusal>> {
        if self.mode == Mode::Tc {
            return Ok(Some(Refusal::Chosen));
        }
        if let Some(refusal) = self.foregone(target) {
            return Ok(Some(refusal.clone()));
        }
        let Err(error) = self.link(target.ifindex, Hook::Xdp, fresh) else { return Ok(None) };
        let refusal = refusal(&error, target)?;
        if self.mode == Mode::Xdp {
            bail!("--mode xdp: {}; {}", refusal.text(), refusal.way_out(&target.name));
        }
        Ok(Some(refusal))
    }

    /// Whether any interface may be served by XDP.
    pub(super) fn may_use_xdp(&self) -> bool {
        self.mode != Mode::Tc
    }

    /// Why XDP is not even tried; whoever asks for it has seen to the tags.
    fn foregone<'a>(&self, target: &'a Target) -> Option<&'a Refusal> {
        let refusal = target.without_xdp.as_ref();
        refusal.filter(|refusal| self.mode != Mode::Xdp || **refusal != Refusal::CarriesVlans)
    }

    /// Whether XDP is where it should be, as far as VLAN devices come and go.
    pub(super) fn heeds_vlans(&self, target: &Target, attached: &Attached) -> bool {
        match self.foregone(target) {
            Some(_) => attached.mode != DeviceMode::Xdp,
            None => !attached.is_below_vlans(),
        }
    }

    /// Puts the program into the link that is pinned, or makes and pins one.
    fn link(&self, ifindex: u32, hook: Hook, fresh: &mut Vec<Fresh>) -> io::Result<()> {
        let name = self.name(ifindex, hook);
        let path = self.pins.link(name);
        let program = self.program(hook).map_err(io::Error::other)?;
        if let Some(link) = self.usable_link(name)? {
            match sys::link_update(link.as_fd(), program.as_fd()) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(
                    "{}: its program cannot be replaced ({error}); attaching anew",
                    path.display()
                ),
            }
            sys::link_detach(link.as_fd())?;
            std::fs::remove_file(&path)?;
        }
        let link = sys::link_create(program.as_fd(), ifindex, hook.link_kind())?;
        sys::pin(link.as_fd(), &path)?;
        fresh.push(Fresh::Link(name));
        Ok(())
    }

    /// The pinned link of that name. One whose interface is gone, or that is something else, is
    /// removed instead.
    fn usable_link(&self, name: LinkName) -> io::Result<Option<OwnedFd>> {
        let path = self.pins.link(name);
        let link = match sys::get_pinned(&path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let info = sys::link_info(link.as_fd())?;
        if info.ifindex == name.ifindex && info.kind == Some(name.hook.link_kind()) {
            return Ok(Some(link));
        }
        std::fs::remove_file(&path)?;
        Ok(None)
    }

    /// Whether the links to an interface are still there; of filters, [`Self::renew_filters`] sees to
    /// that.
    pub(super) fn is_intact(&self, ifindex: u32, mode: DeviceMode) -> bool {
        let is_expected = |hook: &Hook| match hook {
            Hook::Egress | Hook::Ingress => self.tcx,
            Hook::Xdp => mode == DeviceMode::Xdp,
            Hook::Pod => false,
        };
        let is_linked = |hook| self.is_linked(ifindex, hook);
        mode != DeviceMode::None && Hook::ALL.into_iter().filter(is_expected).all(is_linked)
    }

    fn is_linked(&self, ifindex: u32, hook: Hook) -> bool {
        let link = sys::get_pinned(&self.pins.link(self.name(ifindex, hook)));
        let info = link.and_then(|link| sys::link_info(link.as_fd()));
        info.is_ok_and(|info| info.ifindex == ifindex)
    }

    fn program(&self, hook: Hook) -> anyhow::Result<OwnedFd> {
        let name = hook.program();
        let fd = match self.ebpf.program(name) {
            Some(Program::Xdp(program)) => program.fd()?,
            Some(Program::SchedClassifier(program)) => program.fd()?,
            _ => bail!("the object has no program {name}"),
        };
        Ok(fd.as_fd().try_clone_to_owned()?)
    }

    fn name(&self, ifindex: u32, hook: Hook) -> LinkName {
        LinkName { ifindex, hook, namespace: self.namespace }
    }

    /// Detaches what a run that failed has attached.
    pub(super) fn undo(&mut self, fresh: Vec<Fresh>) {
        for item in fresh {
            let undone = match &item {
                Fresh::Link(name) => self.detach_link(*name),
                Fresh::Filter(device, hook) => {
                    self.filters.detach(device, *hook).map(|_| ()).map_err(anyhow::Error::from)
                }
            };
            if let Err(error) = undone {
                tracing::warn!("{item:?} stays attached: {error:#}; `nodeport-agent cleanup`");
            }
        }
    }

    /// Detaches from all interfaces but these, which are served, and those of pods.
    pub(super) fn prune(&self, served: &BTreeSet<u32>, pods: &BTreeSet<u32>) -> anyhow::Result<()> {
        for name in self.pins.links()? {
            let keep = if name.hook == Hook::Pod { pods } else { served };
            if name.namespace != self.namespace || !keep.contains(&name.ifindex) {
                self.detach_link(name)?;
            }
        }
        Ok(())
    }

    /// The same with filters, which runs before may have left: links are found by their pins, these
    /// where they are.
    pub(super) fn prune_filters(
        &self,
        interfaces: &[Interface],
        served: &BTreeSet<u32>,
        pods: &BTreeSet<u32>,
    ) {
        for Interface { ifindex, name, .. } in interfaces {
            for (hook, is_kept) in [(Hook::Egress, false), (Hook::Ingress, pods.contains(ifindex))]
            {
                let is_kept = is_kept || served.contains(ifindex);
                if !is_kept && self.filters.is_at(*ifindex, hook) {
                    tracing::info!("{name}: its {hook} filter is needed no more");
                    if let Err(error) = self.filters.detach(name, hook) {
                        tracing::warn!("{name}: {error}; `nodeport-agent cleanup`");
                    }
                }
            }
        }
    }

    fn detach_link(&self, name: LinkName) -> anyhow::Result<()> {
        detach_link(&self.pins, name)
    }
}

/// Detaches a pinned link, if it is there.
pub(super) fn detach_link(pins: &Pins, name: LinkName) -> anyhow::Result<()> {
    let path = pins.link(name);
    match sys::get_pinned(&path) {
        // Where the interface is gone, there is nothing to detach from any more.
        Ok(link) => drop(sys::link_detach(link.as_fd())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => tracing::warn!("{}: {error}", path.display()),
    }
    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
}

fn explain_tc(hook: Hook, error: io::Error) -> anyhow::Error {
    anyhow!(error).context(format!("attaching {} to TC {hook}", hook.program()))
}

/// What the kernel's refusal of XDP means; an error if it is not about XDP at all.
fn refusal(error: &io::Error, target: &Target) -> anyhow::Result<Refusal> {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            let program = target.xdp_program.unwrap_or_default();
            let name = sys::program_info(program).unwrap_or_default();
            Ok(Refusal::Busy { program, name })
        }
        Some(libc::EOPNOTSUPP) => Ok(Refusal::Unsupported),
        Some(number @ (libc::ENODEV | libc::EPERM | libc::ENOENT)) => {
            Err(anyhow!(io::Error::from_raw_os_error(number)).context("attaching XDP"))
        }
        None => Err(anyhow!(error.to_string()).context("attaching XDP")),
        Some(_) => Ok(Refusal::Refused(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_read_back() {
        for hook in Hook::ALL {
            assert_eq!(Hook::parse(&hook.to_string()), Some(hook));
        }
        assert_eq!(Hook::parse("up"), None);
    }

    #[test]
    fn refusals_are_told_apart() {
        let target = Target {
            name: "eth0".to_owned(),
            ifindex: 2,
            without_xdp: None,
            xdp_program: Some(12),
        };
        let of = |number| refusal(&io::Error::from_raw_os_error(number), &target);
        assert_eq!(of(libc::EOPNOTSUPP).unwrap().code(), "no_driver_support");
        assert_eq!(of(libc::EINVAL).unwrap().code(), "refused");
        assert!(matches!(of(libc::EBUSY).unwrap(), Refusal::Busy { program: 12, .. }));
        assert!(of(libc::ENODEV).is_err());
        assert!(of(libc::EPERM).is_err());
    }
}
