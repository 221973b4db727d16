//! Pods with a veth of their own: keeps the program that meets their answers attached to these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::attach::{Attacher, Fresh};
use super::devices::{self, Choice};
use super::net::Interface;
use super::others;
use super::status::{Attached, DeviceMode, DeviceStatus};
use crate::config::LocalMode;

/// How long a veth must have been there before a filter is put there. Our clsact would be in the way
/// of a network plugin that has just made the veth and is about to put a qdisc of its own there, as
/// plugins that limit bandwidth do. Links need no qdisc.
const SETTLING: Duration = Duration::from_secs(5);

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
    /// When it was seen first.
    since: Instant,
}

impl Link {
    /// How long it is still too new for a filter.
    fn settles_in(&self) -> Option<Duration> {
        SETTLING.checked_sub(self.since.elapsed()).filter(|rest| !rest.is_zero())
    }
}

impl Pods {
    pub(super) const fn new(mode: LocalMode) -> Self {
        Self { mode, links: BTreeMap::new() }
    }

    /// Detaches from what is no pod's veth any more. One that is to be `served` as a NIC gets its
    /// programs afterwards: where there are filters and no links, theirs would take the place of the
    /// pod's, and go with it.
    pub(super) fn leave(
        &mut self,
        attacher: &Attacher,
        choice: &Choice,
        interfaces: &[Interface],
        served: &BTreeSet<u32>,
    ) {
        let wanted: BTreeSet<u32> =
            devices::of_pods(choice, interfaces, served).map(|veth| veth.ifindex).collect();
        self.links.retain(|ifindex, _| {
            let stays = wanted.contains(ifindex);
            if !stays {
                detach(attacher, interfaces, *ifindex);
            }
            stays
        });
    }

    /// Attaches to veths that came. That it fails is no reason to stop: flows to that pod are opened
    /// in slow mode.
    pub(super) fn follow(
        &mut self,
        attacher: &mut Attacher,
        choice: &Choice,
        interfaces: &[Interface],
        served: &BTreeSet<u32>,
        fresh: &mut Vec<Fresh>,
    ) {
        for veth in devices::of_pods(choice, interfaces, served) {
            let (ifindex, name) = (veth.ifindex, veth.name.as_str());
            match self.mode {
                LocalMode::Slow => self.keep(attacher, ifindex, name, fresh, None),
                LocalMode::Auto => match others::at(veth) {
                    Some(others) => self.keep(attacher, ifindex, name, fresh, Some(&others)),
                    None if self.is_too_new(attacher, ifindex) => {
                        self.note(ifindex, name, Attached::too_new());
                    }
                    None => self.attach(attacher, ifindex, name, fresh),
                },
            }
        }
    }

    /// Whether a filter must not be put there yet. One that is there is none too many.
    fn is_too_new(&self, attacher: &Attacher, ifindex: u32) -> bool {
        let is_new = self.links.get(&ifindex).is_none_or(|link| link.settles_in().is_some());
        !attacher.tcx && is_new && !attacher.is_at_pod(ifindex)
    }

    /// When the next of those that are too new is so no more.
    pub(super) fn settle_in(&self) -> Option<Duration> {
        let new = self.links.values().filter(|link| link.attached == Attached::too_new());
        new.map(|link| link.settles_in().unwrap_or_default()).min()
    }

    fn note(&mut self, ifindex: u32, name: &str, attached: Attached) {
        let since = self.links.get(&ifindex).map_or_else(Instant::now, |link| link.since);
        self.links.insert(ifindex, Link { name: name.to_owned(), attached, since });
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

    /// Attaches, unless what was attached is still there.
    fn attach(
        &mut self,
        attacher: &mut Attacher,
        ifindex: u32,
        name: &str,
        fresh: &mut Vec<Fresh>,
    ) {
        let before = self.links.get(&ifindex).map(|link| &link.attached);
        if before == Some(&Attached::pod()) && attacher.is_at_pod(ifindex) {
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
        self.note(ifindex, name, attached);
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
        let has_served = known.as_ref().is_some_and(|before| before.mode == DeviceMode::Pod);
        let is_there = attacher.is_at_pod(ifindex);
        let mut serves = has_served || is_there;
        // A run before has left it, or somebody took it away.
        if has_served != is_there {
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
        self.note(ifindex, name, attached);
    }
}

/// Detaches from a veth under the name that it has by now. Of one that is gone, a link's pin is left.
fn detach(attacher: &Attacher, interfaces: &[Interface], ifindex: u32) {
    let there = interfaces.iter().find(|there| there.ifindex == ifindex);
    if let Some(there) = there {
        tracing::info!("{} is no pod's veth any more", there.name);
    }
    let name = there.map(|there| there.name.as_str());
    if let Err(error) = attacher.detach_from_pod(ifindex, name) {
        let name = name.unwrap_or("a veth that is gone");
        tracing::warn!("{name}: {error:#}; `nodeport-agent cleanup`");
    }
}
