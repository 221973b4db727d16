//! Pods with a veth of their own: keeps the program that meets their answers attached to these.

use std::collections::{BTreeMap, BTreeSet};

use super::attach::{Attacher, Fresh};
use super::devices::{self, Choice};
use super::net::Interface;
use super::others;
use super::status::{Attached, DeviceMode, DeviceStatus};
use crate::config::LocalMode;

/// The near ends of pods' veths, as far as anything is attached to them, or should be.
#[derive(Debug)]
pub(super) struct Pods {
    mode: LocalMode,
    /// By the interface's number.
    links: BTreeMap<u32, Link>,
}

#[derive(Debug)]
struct Link {
    name: String,
    attached: Attached,
}

impl Pods {
    pub(super) const fn new(mode: LocalMode) -> Self {
        Self { mode, links: BTreeMap::new() }
    }

    /// Attaches to veths that came, and detaches from what is no pod's veth any more. That it fails
    /// is no reason to stop: flows to that pod are opened in slow mode.
    pub(super) fn follow(
        &mut self,
        attacher: &mut Attacher,
        choice: &Choice,
        interfaces: &[Interface],
        fresh: &mut Vec<Fresh>,
    ) {
        let wanted: BTreeMap<u32, &Interface> =
            devices::of_pods(choice, interfaces).map(|veth| (veth.ifindex, veth)).collect();
        self.forget(attacher, interfaces, &wanted);
        for (ifindex, veth) in wanted {
            let name = veth.name.as_str();
            match self.mode {
                LocalMode::Slow => self.keep(attacher, ifindex, name, fresh, None),
                LocalMode::Auto => match others::at(veth) {
                    Some(others) => self.keep(attacher, ifindex, name, fresh, Some(&others)),
                    None => self.attach(attacher, ifindex, name, fresh),
                },
            }
        }
    }

    /// Whether flows to the pod behind that veth can be opened in fast mode.
    pub(super) fn is_fast(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| link.attached == Attached::pod())
    }

    /// The numbers of all of them.
    pub(super) fn all(&self) -> BTreeSet<u32> {
        self.links.keys().copied().collect()
    }

    /// What there is to say about them.
    pub(super) fn statuses(&self) -> impl Iterator<Item = DeviceStatus> {
        self.links.iter().map(|(ifindex, link)| DeviceStatus {
            name: link.name.clone(),
            ifindex: *ifindex,
            attached: link.attached.clone(),
        })
    }

    fn forget(
        &mut self,
        attacher: &Attacher,
        interfaces: &[Interface],
        wanted: &BTreeMap<u32, &Interface>,
    ) {
        self.links.retain(|ifindex, link| {
            if wanted.contains_key(ifindex) {
                return true;
            }
            if let Some(there) = interfaces.iter().find(|there| there.ifindex == *ifindex) {
                tracing::info!("{} is no pod's veth any more", there.name);
            }
            if let Err(error) = attacher.detach_from_pod(*ifindex, &link.name) {
                tracing::warn!("{}: {error:#}; `nodeport-agent cleanup`", link.name);
            }
            false
        });
    }

    /// Attaches, unless what was attached is still there. Filters cannot be asked whether they are:
    /// attaching them again does no harm.
    fn attach(
        &mut self,
        attacher: &mut Attacher,
        ifindex: u32,
        name: &str,
        fresh: &mut Vec<Fresh>,
    ) {
        let before = self.links.get(&ifindex).map(|link| &link.attached);
        if before == Some(&Attached::pod()) && attacher.is_linked_to_pod(ifindex) {
            return;
        }
        let attached = match attacher.attach_to_pod(ifindex, name, fresh) {
            Ok(()) => Attached::pod(),
            Err(error) => Attached::none("failed", format!("slow mode: {error:#}")),
        };
        if before != Some(&attached) {
            match &attached.reason {
                Some(reason) => tracing::warn!("{name}: {}", reason.text),
                None => tracing::debug!("{name}: a pod's veth, fast mode"),
            }
        }
        self.links.insert(ifindex, Link { name: name.to_owned(), attached });
    }

    /// Attaches nothing, but lets what is attached already serve the flows that are in fast mode.
    /// `others`: what makes new flows slow, if it is not the user's wish.
    fn keep(
        &mut self,
        attacher: &mut Attacher,
        ifindex: u32,
        name: &str,
        fresh: &mut Vec<Fresh>,
        others: Option<&str>,
    ) {
        let known = self.links.get(&ifindex).map(|link| link.attached.clone());
        let mut serves = known.as_ref().is_some_and(|before| before.mode == DeviceMode::Pod);
        if known.is_none() && attacher.is_linked_to_pod(ifindex) {
            let renewed = attacher.attach_to_pod(ifindex, name, fresh);
            serves = renewed.inspect_err(|error| tracing::warn!("{name}: {error:#}")).is_ok();
        }
        let attached = match (others, serves) {
            (Some(others), true) => Attached::beside(others, DeviceMode::Pod),
            (Some(others), false) => Attached::beside(others, DeviceMode::None),
            (None, true) => Attached::old_flows(),
            (None, false) => return,
        };
        if let (true, Some(reason)) = (known.as_ref() != Some(&attached), &attached.reason) {
            tracing::info!("{name}: {}", reason.text);
        }
        self.links.insert(ifindex, Link { name: name.to_owned(), attached });
    }
}
