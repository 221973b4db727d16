//! Puts the kernel side together: everything or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use aya::Ebpf;
use nodeport_common::abi::{Device, maps};

use super::attach::Attacher;
use super::bpf::{Attached, Bpf, Tables};
use super::census::Census;
use super::control::{self, Control};
use super::exits::Exits;
use super::expiry::{Sweeping, limits};
use super::filters::Filters;
use super::follow::Following;
use super::fragments;
use super::load::{expire_program, load_programs, make_maps};
use super::maps::{Hash, hash};
use super::net::Listener;
use super::object;
use super::overload::Overload;
use super::pins::{self, Pins};
use super::pods::Pods;
use super::preflight::{self, Kernel};
use super::reserve::Reservation;
use super::snat_ports;
use super::sys::Jiffies;
use crate::config::Config;
use crate::events::Events;

/// Makes the kernel side ready and attaches it: [`begin`] and [`Opening::finish`] in one.
///
/// # Errors
/// As both of them.
pub fn open(config: &Config) -> anyhow::Result<Bpf> {
    let (bpf, opening) = begin(config)?;
    opening.finish().map(|()| bpf)
}

/// As [`open`], with a choice of what to use of the kernel's abilities.
///
/// # Errors
/// As [`open`].
pub fn open_on(config: &Config, kernel: Kernel) -> anyhow::Result<Bpf> {
    let (bpf, opening) = begin_on(config, kernel)?;
    opening.finish().map(|()| bpf)
}

/// Takes over the maps that are pinned, or makes them. From here on they can be written, while the
/// programs, which the kernel takes a second to verify, are loaded and attached by
/// [`Opening::finish`].
///
/// # Errors
/// If something is missing or in the way; the error says what to do.
pub fn begin(config: &Config) -> anyhow::Result<(Bpf, Opening)> {
    object::bytes()?;
    preflight::require_privileges()?;
    let kernel = Kernel::running()?;
    preflight::require_bpffs(&config.instance.bpffs)?;
    begin_on(config, kernel)
}

fn begin_on(config: &Config, kernel: Kernel) -> anyhow::Result<(Bpf, Opening)> {
    let pins = Pins::new(&config.instance);
    let lock = pins.lock()?;
    let is_new = pins.make()?;
    let begun = unless_failed(&pins, is_new, || {
        let ebpf = make_maps(&pins, &config.sizes)?;
        let control = Arc::new(Control::open(&pins)?);
        let tables = Tables::open(&pins, control.clone())?;
        control::mark_snat_ports(&tables.ports, config.snat_ports);
        Ok((tables, ebpf, control))
    });
    let (tables, ebpf, control) = begun?;
    let attached = Arc::new(Attached::new(lock));
    let bpf = Bpf::new(tables, attached.clone());
    let (config, events) = (config.clone(), Events::default());
    let opening = Opening { config, kernel, pins, is_new, ebpf, control, attached, events };
    Ok((bpf, opening))
}

/// Removes what was pinned anew if what follows fails.
fn unless_failed<T>(
    pins: &Pins,
    is_new: bool,
    what: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let outcome = what();
    if outcome.is_err()
        && is_new
        && let Err(error) = pins.remove_new()
    {
        tracing::warn!("what was pinned stays: {error:#}; `nodeport-agent cleanup`");
    }
    outcome
}

/// A kernel side whose maps are there, and whose programs are not.
pub struct Opening {
    config: Config,
    kernel: Kernel,
    pins: Pins,
    is_new: bool,
    ebpf: Ebpf,
    control: Arc<Control>,
    attached: Arc<Attached>,
    events: Events,
}

impl Opening {
    /// Says by Events which interfaces are served otherwise than they could be.
    #[must_use]
    pub fn telling(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// Loads the programs, attaches them to the interfaces, and begins to follow these and to let
    /// flows expire. On failure, what this call has attached is detached again.
    ///
    /// The network namespace is the calling thread's.
    ///
    /// # Errors
    /// If something is missing or in the way; the error says what to do.
    pub fn finish(self) -> anyhow::Result<()> {
        let (pins, is_new) = (self.pins.clone(), self.is_new);
        unless_failed(&pins, is_new, || self.attach())
    }

    fn attach(self) -> anyhow::Result<()> {
        let Self { config, kernel, pins, is_new: _, mut ebpf, control, attached, events } = self;
        load_programs(&mut ebpf)?;
        let expire = expire_program(&mut ebpf)?;
        let clock = Jiffies::load().context("loading the program that reads the clock")?;
        control.prepare(&config, &clock, kernel.fib_source)?;
        fragments::prepare(&pins, config.fragment_timeout, control.read().hz)?;
        let reservation =
            Reservation::new(vec![config.snat_ports, config.node_ports], &config.instance.run_dir);
        let ports = snat_ports::Watching::new(reservation, attached.ports.clone());
        let overload = Overload::open(&pins, config.instance.clone())?;
        let limits = limits(&config.timeouts, control.read().hz);
        let sweeping = Sweeping::open(&pins, expire, limits, overload)?;

        // Changes from here on are heard: nothing falls between the first look and the first word.
        let listener = Listener::open()?;
        let attacher = Attacher {
            ebpf,
            pins: pins.clone(),
            namespace: pins::own_namespace()?,
            mode: config.mode,
            tcx: kernel.tcx,
            filters: Filters::of(&config.instance.name),
        };
        let census = Census::open(&pins, control.clone(), ports)?;
        let mut following = following(&config, &pins, attacher, control, events)?;
        following.begin()?;
        pins.remove_other_layouts()?;
        let (sweeper, census) = (sweeping.start()?, census.start()?);
        attached.set([following.start(listener)?, sweeper, census]);
        Ok(())
    }
}

fn following(
    config: &Config,
    pins: &Pins,
    attacher: Attacher,
    control: Arc<Control>,
    events: Events,
) -> anyhow::Result<Following> {
    let map: Hash<u32, Device> = hash(pins, maps::DEVICES)?;
    let described = map
        .iter()
        .map(|entry| entry.map(|(ifindex, device)| (ifindex.0, device.0)))
        .collect::<Result<BTreeMap<_, _>, _>>()
        .context("reading the map devices")?;
    Ok(Following {
        attacher,
        control,
        wanted: config.devices.clone(),
        map,
        exits: Exits::open(pins, &described)?,
        run_dir: config.instance.run_dir.clone(),
        told: (events, config.node_name.clone()),
        served: BTreeMap::new(),
        pods: Pods::new(config.local_mode),
        described,
        is_full: false,
        reported: Vec::new(),
    })
}
