//! Follows the node's network: attaches to interfaces that come, forgets those that went, tells
//! the programs about all of them, and makes flows look for new next hops when a way changed.
//!
//! One thread. When it ends, what is attached stays attached.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, PipeReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nodeport_common::abi::{DEVICE_ATTACHED, DEVICE_POD, Device, maps};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::attach::{Attacher, Fresh};
use super::control::Control;
use super::devices::{self, Choice, Target};
use super::exits::Exits;
use super::maps::{Hash, is_full};
use super::net::{self, Change, Changes, Heard, Interface, Listener};
use super::pods::Pods;
use super::status::{self, Attached, DeviceMode, DeviceStatus};
use super::wire::Wire;
use super::worker::{Worker, has_ended};
use crate::config::Devices;
use crate::events::{Events, Topic};

/// How long changes are gathered: one interface that comes up says a dozen things.
const GATHERING: Duration = Duration::from_millis(20);
/// The same for queues and filters, which may change again and again for reasons of others.
const GATHERING_FILTERS: Duration = Duration::from_millis(250);
/// How often all is looked at without a reason, should one have been missed.
const REGULARLY: Duration = Duration::from_secs(30);
/// Pause before the socket is opened anew.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What the thread that follows the network works with.
pub(super) struct Following {
    pub(super) attacher: Attacher,
    pub(super) control: Arc<Control>,
    pub(super) wanted: Devices,
    pub(super) map: Hash<u32, Device>,
    pub(super) exits: Exits,
    pub(super) run_dir: PathBuf,
    /// Where to say by Events what is wrong, and this node's name.
    pub(super) told: (Events, String),
    /// What is attached, by the interface's number.
    pub(super) served: BTreeMap<u32, Served>,
    /// What is attached to pods' veths.
    pub(super) pods: Pods,
    /// What the map holds.
    pub(super) described: BTreeMap<u32, Device>,
    /// Whether the map has had no room for some.
    pub(super) is_full: bool,
    pub(super) reported: Vec<DeviceStatus>,
}

/// An interface that is served, or could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    name: String,
    attached: Attached,
}

impl Following {
    /// Attaches at the start: all interfaces, or none and an error.
    pub(super) fn begin(&mut self) -> anyhow::Result<()> {
        let interfaces = self.interfaces()?;
        let choice = devices::choose(&self.wanted, &interfaces);
        let before = status::read(&self.run_dir).unwrap_or_default();
        let before: Vec<String> = before.into_iter().map(|device| device.name).collect();
        choice.check(&self.wanted, &interfaces, &before)?;
        let mut fresh = Vec::new();
        let result = self.attach_first(&choice, &mut fresh).and_then(|()| {
            let served = self.served_now();
            self.pods.follow(&mut self.attacher, &choice, &interfaces, &served, &mut fresh);
            self.prune()?;
            if !self.attacher.tcx {
                self.attacher.prune_filters(&interfaces, &served, &self.pods.all());
            }
            self.report(&choice, &interfaces)
        });
        if result.is_err() {
            self.attacher.undo(fresh);
        }
        self.control.raise_epoch();
        result
    }

    /// Default routes matter only where interfaces are to be found; there may be a million routes.
    fn interfaces(&self) -> anyhow::Result<Vec<Interface>> {
        net::interfaces(self.wanted == Devices::Auto)
    }

    fn attach_first(&mut self, choice: &Choice, fresh: &mut Vec<Fresh>) -> anyhow::Result<()> {
        let mut first_error = None;
        for target in &choice.targets {
            match self.attacher.attach(target, fresh) {
                Ok(attached) => self.serve(target, attached),
                Err(error) if self.wanted != Devices::Auto => return Err(error),
                Err(error) if is_gone(&error) => {
                    tracing::info!("{} went while it was attached to", target.name);
                }
                Err(error) => {
                    self.serve(target, Attached::none("failed", format!("{error:#}")));
                    first_error.get_or_insert(error);
                }
            }
        }
        let serves = self.served.values().any(|served| served.attached.mode != DeviceMode::None);
        if let Some(error) = first_error.filter(|_| !serves) {
            return Err(error);
        }
        for name in &choice.absent {
            tracing::warn!("there is no interface {name} yet: it is served when it comes");
        }
        if choice.targets.is_empty() && choice.absent.is_empty() {
            tracing::warn!(
                "no interface has a default route or an address: none is served until one has; \
                 name those to be served with --devices"
            );
        }
        Ok(())
    }

    fn serve(&mut self, target: &Target, attached: Attached) {
        let Target { name, ifindex, .. } = target;
        match (&attached.mode, &attached.reason) {
            (DeviceMode::None, Some(reason)) => tracing::warn!("{name}: {}", reason.text),
            (DeviceMode::Tc, Some(reason)) if attached.is_in_the_way() => {
                tracing::warn!("{name}: TC, not XDP: {}", reason.text);
            }
            (DeviceMode::Tc, Some(reason)) => {
                tracing::info!("{name}: TC, not XDP: {}", reason.text);
            }
            _ => tracing::info!("{name}: XDP"),
        }
        self.served.insert(*ifindex, Served { name: name.clone(), attached });
    }

    /// Makes what is attached follow what is there.
    fn reconcile(&mut self) -> anyhow::Result<()> {
        let interfaces = self.interfaces()?;
        let choice = devices::choose(&self.wanted, &interfaces);
        self.forget_gone(&interfaces)?;
        self.pods.leave(&self.attacher, &choice, &interfaces, &self.served_now());
        let (served, new): (Vec<_>, Vec<_>) =
            choice.targets.iter().partition(|target| self.is_served(target));
        served.into_iter().for_each(|target| self.renew(target));
        if !new.is_empty() && !self.has_xdp() {
            self.describe(&interfaces, self.attacher.may_use_xdp())?;
        }
        new.into_iter().for_each(|target| self.attach_later(target));
        let served = self.served_now();
        self.pods.follow(&mut self.attacher, &choice, &interfaces, &served, &mut Vec::new());
        self.report(&choice, &interfaces)
    }

    /// Whether an interface is served as well as it can be: what was attached is intact, and
    /// nobody who was in XDP's way has left.
    fn is_served(&self, target: &Target) -> bool {
        let Some(Served { name: _, attached }) = self.served.get(&target.ifindex) else {
            return false;
        };
        let is_way_free = attached.is_busy() && target.xdp_program.is_none();
        self.attacher.is_intact(target.ifindex, attached.mode)
            && self.attacher.heeds_vlans(target, attached)
            && !is_way_free
    }

    /// Attaches filters again that are not there any more.
    fn renew(&mut self, target: &Target) {
        match self.attacher.renew_filters(&target.name) {
            Ok(false) => {}
            Ok(true) => tracing::warn!("{}: its filters had vanished; attached anew", target.name),
            Err(error) => tracing::debug!("{}: {error:#}", target.name),
        }
    }

    /// Attaches to an interface that came; that it went again meanwhile is no failure.
    fn attach_later(&mut self, target: &Target) {
        match self.attacher.attach(target, &mut Vec::new()) {
            Ok(attached) => self.serve(target, attached),
            Err(error) => {
                let attached = Attached::none("failed", format!("{error:#}"));
                if self.served.get(&target.ifindex).map(|served| &served.attached)
                    != Some(&attached)
                {
                    self.serve(target, attached);
                }
            }
        }
    }

    fn forget_gone(&mut self, interfaces: &[Interface]) -> anyhow::Result<()> {
        let there: BTreeSet<u32> = interfaces.iter().map(|interface| interface.ifindex).collect();
        let before = self.served.len();
        self.served.retain(|ifindex, served| {
            let stays = there.contains(ifindex);
            if !stays {
                tracing::warn!("{} is gone: it is served again when it comes back", served.name);
            }
            stays
        });
        if self.served.len() == before {
            return Ok(());
        }
        self.prune()
    }

    fn served_now(&self) -> BTreeSet<u32> {
        self.served.keys().copied().collect()
    }

    fn prune(&self) -> anyhow::Result<()> {
        self.attacher.prune(&self.served_now(), &self.pods.all())
    }

    /// Tells the programs, and whoever asks, what is there.
    fn report(&mut self, choice: &Choice, interfaces: &[Interface]) -> anyhow::Result<()> {
        self.describe(interfaces, self.has_xdp())?;
        let devices = self.statuses(choice, interfaces);
        if devices != self.reported {
            let (events, node) = &self.told;
            let pods = self.pods.all();
            let own = devices.iter().filter(|device| !pods.contains(&device.ifindex));
            events.set(&Topic::Interfaces, status::remarks(own, node));
            status::write(&self.run_dir, &devices)?;
            self.reported = devices;
        }
        Ok(())
    }

    fn has_xdp(&self) -> bool {
        self.served.values().any(|served| served.attached.mode == DeviceMode::Xdp)
    }

    /// Tells the programs of all interfaces. Where XDP serves one, `any_xdp`, flows must not leave
    /// from those that take no frames from XDP: so it is told before the first XDP program is
    /// attached.
    fn describe(&mut self, interfaces: &[Interface], any_xdp: bool) -> anyhow::Result<()> {
        let before = self.described.clone();
        let result = self.write_devices(interfaces, any_xdp);
        if self.described != before {
            // Flows have kept what was told before.
            self.control.raise_epoch();
        }
        result
    }

    fn write_devices(&mut self, interfaces: &[Interface], any_xdp: bool) -> anyhow::Result<()> {
        let mode = |ifindex| self.served.get(&ifindex).map(|served| served.attached.mode);
        let wanted: BTreeMap<u32, Device> = interfaces
            .iter()
            .map(|interface| {
                let ifindex = interface.ifindex;
                (
                    ifindex,
                    devices::describe(
                        interface,
                        interfaces,
                        mode,
                        any_xdp,
                        self.pods.is_fast(ifindex),
                    ),
                )
            })
            .collect();
        let is_gone = |ifindex: &&u32| !wanted.contains_key(ifindex);
        let gone: Vec<u32> = self.described.keys().filter(is_gone).copied().collect();
        self.forget(&gone);
        self.exits.keep(|ifindex| wanted.contains_key(&ifindex));
        let mut left_out = 0_usize;
        for (ifindex, device) in served_first(&wanted) {
            if !self.put(ifindex, device)? {
                left_out += 1;
            }
        }
        if !std::mem::replace(&mut self.is_full, left_out > 0) && left_out > 0 {
            tracing::warn!(
                "the map {} is full: {left_out} interfaces that are not served are not in it, \
                 and what goes out there goes through the kernel's own ways",
                maps::DEVICES
            );
        }
        Ok(())
    }

    /// Takes interfaces out of the map. Flows look up again where they go before a number of
    /// these is another's.
    fn forget(&mut self, gone: &[u32]) {
        for ifindex in gone {
            // That it is not there is what was wanted.
            let _ = self.map.remove(&Wire(*ifindex));
            self.described.remove(ifindex);
            self.exits.forget(*ifindex);
        }
        if !gone.is_empty() {
            self.control.raise_epoch();
        }
    }

    /// Writes an interface into the maps, if there is room, which is made for one that is served.
    fn put(&mut self, ifindex: u32, device: Device) -> anyhow::Result<bool> {
        loop {
            let device = Device { exit: self.exits.of(ifindex, device.mac), ..device };
            if device.exit != 0 && self.insert(ifindex, device)? {
                return Ok(true);
            }
            let mut lesser = self.described.iter().filter(|(_, other)| rank(other) < rank(&device));
            let lesser = lesser.find(|(other, _)| **other != ifindex).map(|(lesser, _)| *lesser);
            let Some(lesser) = lesser else {
                self.exits.forget(ifindex);
                return Ok(false);
            };
            self.forget(&[lesser]);
        }
    }

    /// False if the map is full.
    fn insert(&mut self, ifindex: u32, device: Device) -> anyhow::Result<bool> {
        if self.described.get(&ifindex) == Some(&device) {
            return Ok(true);
        }
        match self.map.insert(Wire(ifindex), Wire(device), 0) {
            Ok(()) => {
                self.described.insert(ifindex, device);
                Ok(true)
            }
            Err(error) if is_full(&error) => Ok(false),
            Err(error) => Err(error).with_context(|| {
                format!("writing interface {ifindex} into the map {}", maps::DEVICES)
            }),
        }
    }

    fn statuses(&self, choice: &Choice, interfaces: &[Interface]) -> Vec<DeviceStatus> {
        let name_now = |ifindex: u32, served: &Served| {
            let now = interfaces.iter().find(|interface| interface.ifindex == ifindex);
            now.map_or_else(|| served.name.clone(), |interface| interface.name.clone())
        };
        let served = self.served.iter().map(|(ifindex, served)| DeviceStatus {
            name: name_now(*ifindex, served),
            ifindex: *ifindex,
            attached: served.attached.clone(),
        });
        let unfit = choice.unfit.iter().map(|(name, ifindex)| {
            let attached = Attached::none("no_ethernet", "no Ethernet header".to_owned());
            DeviceStatus { name: name.clone(), ifindex: *ifindex, attached }
        });
        let absent = choice.absent.iter().map(|name| {
            let attached = Attached::none("absent", "there is no such interface now".to_owned());
            DeviceStatus { name: name.clone(), ifindex: 0, attached }
        });
        served.chain(unfit).chain(absent).chain(self.pods.statuses()).collect()
    }

    /// Begins to follow, in this thread's network namespace.
    pub(super) fn start(self, listener: Listener) -> anyhow::Result<Worker> {
        Worker::start("follow", "the network is followed no more", |stop| self.run(listener, stop))
    }

    /// Follows until told to stop, whatever happens to the socket.
    fn run(mut self, listener: Listener, stop: &PipeReader) -> anyhow::Result<()> {
        let mut listener = Ok(listener);
        loop {
            let outcome = listener.and_then(|listener| self.listen(&listener, stop));
            let Err(error) = outcome else { return Ok(()) };
            tracing::warn!("following the network: {error:#}; beginning anew");
            if has_ended(stop, AFTER_FAILURE)? {
                return Ok(());
            }
            listener = Listener::open();
        }
    }

    fn listen(&mut self, listener: &Listener, stop: &PipeReader) -> anyhow::Result<()> {
        let (mut changes, mut pending) = (Changes::default(), Change::ALL);
        let mut due = Instant::now() + GATHERING;
        // When everything is looked at, whatever is heard until then: some things are never told.
        let mut look = due;
        loop {
            if has_ended_before(due, listener, stop)? {
                return Ok(());
            }
            let change = hear(listener, &mut changes)?;
            if let Some(gathering) = gathering(change) {
                due = due.min(Instant::now() + gathering);
            }
            pending = pending.and(change);
            if Instant::now() < due {
                continue;
            }
            let looks = pending.interfaces || pending.filters || Instant::now() >= look;
            self.act(pending, looks);
            if looks {
                let rest = self.pods.settle_in().map_or(REGULARLY, |time| time.min(REGULARLY));
                look = Instant::now() + rest;
            }
            (pending, due) = (Change::default(), look);
        }
    }

    fn act(&mut self, change: Change, looks: bool) {
        if looks && let Err(error) = self.reconcile() {
            tracing::warn!("following the interfaces: {error:#}");
        }
        if change.hops {
            self.control.raise_epoch();
        }
    }
}

/// How long more is waited for behind a change.
const fn gathering(change: Change) -> Option<Duration> {
    match change {
        Change { hops: true, .. } | Change { interfaces: true, .. } => Some(GATHERING),
        Change { filters: true, .. } => Some(GATHERING_FILTERS),
        _ => None,
    }
}

/// Whether it failed because there is no such interface any more.
fn is_gone(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.raw_os_error() == Some(libc::ENODEV))
}

/// Which can be done without least: those that are served, then those of pods.
const fn rank(device: &Device) -> u32 {
    if device.flags & DEVICE_ATTACHED != 0 { 2 } else { (device.flags & DEVICE_POD != 0) as u32 }
}

/// Those that can be done without come last.
fn served_first(devices: &BTreeMap<u32, Device>) -> Vec<(u32, Device)> {
    let mut devices: Vec<_> = devices.iter().map(|(key, device)| (*key, *device)).collect();
    devices.sort_by_key(|(_, device)| std::cmp::Reverse(rank(device)));
    devices
}

/// Waits for something to hear, until `due`; true if it is time to end.
fn has_ended_before(due: Instant, listener: &Listener, stop: &PipeReader) -> anyhow::Result<bool> {
    let wait = Timespec::try_from(due.saturating_duration_since(Instant::now()))?;
    let mut sources = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    match poll(&mut sources, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!sources[1].revents().is_empty()),
        Err(error) => Err(error).context("waiting for rtnetlink"),
    }
}

/// Takes all that there is to hear.
fn hear(listener: &Listener, changes: &mut Changes) -> anyhow::Result<Change> {
    let mut change = Change::default();
    loop {
        match listener.hear()? {
            Heard::Silence => return Ok(change),
            heard => change = change.and(changes.learn(&heard)),
        }
    }
}
