//! Puts the kernel side together: everything or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use nodeport_common::abi::{Device, maps};

use super::attach::Attacher;
use super::bpf::{Bpf, Tables};
use super::control::{self, Control};
use super::exits::Exits;
use super::expiry::{Sweeping, limits};
use super::filters::Filters;
use super::follow::Following;
use super::load::{load, load_expire};
use super::maps::{Hash, hash};
use super::net::Listener;
use super::object;
use super::overload::Overload;
use super::pins::{self, Pins};
use super::preflight::{self, Kernel};
use super::sys::Jiffies;
use super::worker::Worker;
use crate::config::Config;

/// Loads the programs, takes over what is pinned, attaches to the interfaces, and begins to follow
/// them and to let flows expire. On failure, what this call has attached is detached again.
///
/// The network namespace is the calling thread's.
///
/// # Errors
/// If something is missing or in the way; the error says what to do.
pub fn open(config: &Config) -> anyhow::Result<Bpf> {
    object::bytes()?;
    preflight::require_privileges()?;
    let kernel = Kernel::running()?;
    preflight::require_bpffs(&config.instance.bpffs)?;
    open_on(config, kernel)
}

/// As [`open`], with a choice of what to use of the kernel's abilities.
///
/// # Errors
/// As [`open`].
pub fn open_on(config: &Config, kernel: Kernel) -> anyhow::Result<Bpf> {
    let pins = Pins::new(&config.instance);
    let lock = pins.lock()?;
    let is_new = pins.make()?;
    match assemble(config, kernel, &pins) {
        Ok((tables, workers)) => Ok(Bpf::new(tables, workers, lock)),
        Err(error) if is_new => {
            if let Err(error) = pins.remove_new() {
                tracing::warn!("what was pinned stays: {error:#}; `nodeport-agent cleanup`");
            }
            Err(error)
        }
        Err(error) => Err(error),
    }
}

fn assemble(config: &Config, kernel: Kernel, pins: &Pins) -> anyhow::Result<(Tables, [Worker; 2])> {
    control::check_local_ports(config.snat_ports);
    let clock = Jiffies::load().context("loading the program that reads the clock")?;
    let mut ebpf = load(pins, &config.sizes)?;
    let expire = load_expire(&mut ebpf)?;
    let control = Arc::new(Control::open(pins)?);
    let tables = Tables::open(pins, control.clone())?;
    control::mark_snat_ports(&tables.ports, config.snat_ports);
    control.prepare(config, &clock, kernel.fib_source)?;
    let hz = control.read().hz;
    let overload = Overload::open(pins, config.instance.clone())?;
    let limits = limits(&config.timeouts, hz);
    let sweeping = Sweeping::open(pins, expire, limits, overload)?;

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
    let mut following = following(config, pins, attacher, control)?;
    following.begin()?;
    pins.remove_other_layouts()?;
    let sweeper = sweeping.start()?;
    let follower = following.start(listener)?;
    Ok((tables, [follower, sweeper]))
}

fn following(
    config: &Config,
    pins: &Pins,
    attacher: Attacher,
    control: Arc<Control>,
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
        served: BTreeMap::new(),
        described,
        is_full: false,
        reported: Vec::new(),
    })
}
