//! The kernel side as the rest of the agent sees it, over pinned maps.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, anyhow, ensure};
use aya::maps::MapError;
use nodeport_common::abi::{
    Addr4, Addr6, Backend, Frontend, FrontendKey, IPPROTO_TCP, IPPROTO_UDP, PORT_SNAT,
    PORTS_PER_LINE, Plain, PortLine, SLOTS_PER_LINE, SlotLine, maps,
};

use super::control::Control;
use super::counters::Counters;
use super::least::Least;
use super::maps::{Hash, hash, shared};
use super::pins::{Lock, Pins};
use super::ranges::Ranges;
use super::snat_ports::{self, PortReport};
use super::sys::{self, SharedArray};
use super::wire::Wire;
use super::worker::Worker;
use super::{Dataplane, Failure, Observed, Op};

/// The maps that the control side reads and writes. While it lives, interfaces are followed and
/// flows expire.
#[derive(Debug)]
pub struct Bpf {
    tables: Tables,
    /// The thread that waits until programs have been left.
    barrier: Option<JoinHandle<anyhow::Result<()>>>,
    attached: Arc<Attached>,
}

/// What works beside the control side, once the programs are attached.
#[derive(Debug)]
pub(super) struct Attached {
    // In this order: threads end before others may have the maps.
    workers: OnceLock<[Worker; 3]>,
    pub(super) ports: Arc<snat_ports::Board>,
    _lock: Lock,
}

impl Attached {
    pub(super) fn new(lock: Lock) -> Self {
        Self { workers: OnceLock::new(), ports: Arc::default(), _lock: lock }
    }

    pub(super) fn set(&self, workers: [Worker; 3]) {
        // It is set once: who attaches is used up by that.
        let _ = self.workers.set(workers);
    }
}

#[derive(Debug)]
pub(super) struct Tables {
    control: Arc<Control>,
    /// The frontends in the maps whose backends' loads are to be known.
    least: Least,
    counters: Counters,
    frontends4: Hash<FrontendKey<Addr4>, Frontend>,
    frontends6: Hash<FrontendKey<Addr6>, Frontend>,
    ranges: Ranges,
    backends4: SharedArray<Backend<Addr4>>,
    backends6: SharedArray<Backend<Addr6>>,
    slots: SharedArray<SlotLine>,
    pub(super) ports: SharedArray<PortLine>,
    addresses4: Hash<Addr4, u32>,
    addresses6: Hash<Addr6, u32>,
}

impl Bpf {
    pub(super) const fn new(tables: Tables, attached: Arc<Attached>) -> Self {
        Self { tables, barrier: None, attached }
    }
}

impl Dataplane for Bpf {
    fn observe(&mut self) -> anyhow::Result<Observed> {
        self.tables.observe()
    }

    fn read_slots(&mut self, offset: u32, len: u32) -> anyhow::Result<Vec<u32>> {
        self.tables.read_slots(offset, len)
    }

    fn slot_capacity(&self) -> u32 {
        self.tables.slot_capacity()
    }

    fn check(&self) -> anyhow::Result<()> {
        // Before they run there is nothing that could have ended.
        self.attached.workers.get().into_iter().flatten().try_for_each(Worker::check)?;
        Ok(())
    }

    fn port_report(&self) -> Arc<PortReport> {
        self.attached.ports.read()
    }

    fn begin_barrier(&mut self) {
        // It waits for tens of milliseconds, while others wait for their changes.
        self.barrier.get_or_insert_with(|| thread::spawn(sys::wait_for_programs));
    }

    fn barrier_ended(&mut self) -> Option<anyhow::Result<()>> {
        let thread = self.barrier.take_if(|thread| thread.is_finished())?;
        Some(thread.join().unwrap_or_else(|_| Err(anyhow!("the thread that waits has panicked"))))
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        let failure = |(index, op)| {
            let error = self.tables.apply(op).err()?;
            Some(Failure { index, error })
        };
        ops.iter().enumerate().filter_map(failure).collect()
    }
}

impl Tables {
    pub(super) fn open(pins: &Pins, control: Arc<Control>) -> anyhow::Result<Self> {
        Ok(Self {
            control,
            least: Least::default(),
            counters: Counters::open(pins)?,
            frontends4: hash(pins, maps::FRONTENDS4)?,
            frontends6: hash(pins, maps::FRONTENDS6)?,
            ranges: Ranges::open(pins)?,
            backends4: shared(pins, maps::BACKENDS4)?,
            backends6: shared(pins, maps::BACKENDS6)?,
            slots: shared(pins, maps::SLOTS)?,
            ports: shared(pins, maps::PORTS)?,
            addresses4: hash(pins, maps::NODE_ADDRS4)?,
            addresses6: hash(pins, maps::NODE_ADDRS6)?,
        })
    }

    fn observe(&mut self) -> anyhow::Result<Observed> {
        let frontends4 = entries(&self.frontends4).context(maps::FRONTENDS4)?;
        let frontends6 = entries(&self.frontends6).context(maps::FRONTENDS6)?;
        self.least = Least::default();
        frontends4.iter().for_each(|(key, value)| self.least.put4(key, value));
        frontends6.iter().for_each(|(key, value)| self.least.put6(key, value));
        self.control.want_loads(self.least.any());
        Ok(Observed {
            seed: self.control.read().hash_seed,
            frontends4,
            frontends6,
            ranges: self.ranges.read().context("reading source ranges")?,
            backends4: elements(&self.backends4),
            backends6: elements(&self.backends6),
            addresses4: entries(&self.addresses4).context(maps::NODE_ADDRS4)?,
            addresses6: entries(&self.addresses6).context(maps::NODE_ADDRS6)?,
            ports: self.read_ports(),
        })
    }

    /// The bits that the control side sets.
    fn read_ports(&self) -> Vec<(u16, u8)> {
        let mut found = Vec::new();
        for (line, bits) in elements(&self.ports) {
            for (place, bits) in bits.into_iter().enumerate() {
                let port = u16::try_from(line as usize * PORTS_PER_LINE + place);
                let bits = bits & !PORT_SNAT;
                found.extend(port.ok().filter(|_| bits != 0).map(|port| (port, bits)));
            }
        }
        found
    }

    fn slot_capacity(&self) -> u32 {
        self.slots.len().saturating_mul(SLOTS_PER_LINE as u32)
    }

    fn check_slots(&self, offset: u32, len: usize) -> anyhow::Result<()> {
        let capacity = self.slot_capacity();
        let fits = u64::from(offset) + len as u64 <= u64::from(capacity);
        ensure!(fits, "map slots: {len} slots from {offset} on exceed its {capacity}");
        Ok(())
    }

    fn read_slots(&self, offset: u32, len: u32) -> anyhow::Result<Vec<u32>> {
        self.check_slots(offset, len as usize)?;
        let (mut slots, mut line, mut at) = (Vec::with_capacity(len as usize), None, u32::MAX);
        for slot in offset..offset + len {
            let (index, place) = place(slot);
            if index != at {
                (line, at) = (self.slots.read(index), index);
            }
            slots.push(line.map_or(0, |line| line[place]));
        }
        Ok(slots)
    }

    fn write_slots(&self, offset: u32, slots: &[u32]) -> anyhow::Result<()> {
        self.check_slots(offset, slots.len())?;
        let (mut offset, mut rest) = (offset, slots);
        while !rest.is_empty() {
            let (index, place) = place(offset);
            let (now, later) = rest.split_at(rest.len().min(SLOTS_PER_LINE - place));
            self.slots.update(index, |line| line[place..place + now.len()].copy_from_slice(now));
            (offset, rest) = (offset + now.len() as u32, later);
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> anyhow::Result<()> {
        match op {
            Op::SetSeed(seed) => self.control.set_seed(*seed),
            Op::PutFrontend4(..)
            | Op::PutFrontend6(..)
            | Op::RemoveFrontend4(_)
            | Op::RemoveFrontend6(_) => self.change_frontend(op),
            Op::AddRange(service, range) => self.ranges.add(*service, range),
            Op::RemoveRange(service, range) => self.ranges.remove(*service, range),
            Op::PutBackend4(index, value) => set(&self.backends4, maps::BACKENDS4, *index, *value),
            Op::PutBackend6(index, value) => set(&self.backends6, maps::BACKENDS6, *index, *value),
            Op::WriteSlots { offset, slots } => self.write_slots(*offset, slots),
            Op::ClearService(id) => self.counters.clear_service(*id),
            Op::SetPort(port, bits) => self.set_port(*port, *bits),
            Op::PutAddress4(key, bits) => {
                put(&mut self.addresses4, maps::NODE_ADDRS4, *key, *bits, &IpAddr::from(*key))
            }
            Op::PutAddress6(key, bits) => {
                put(&mut self.addresses6, maps::NODE_ADDRS6, *key, *bits, &IpAddr::from(*key))
            }
            Op::RemoveAddress4(key) => {
                remove(&mut self.addresses4, maps::NODE_ADDRS4, *key, &IpAddr::from(*key))
            }
            Op::RemoveAddress6(key) => {
                remove(&mut self.addresses6, maps::NODE_ADDRS6, *key, &IpAddr::from(*key))
            }
            Op::Barrier => sys::wait_for_programs(),
        }
    }

    /// Makes, replaces or removes a frontend, and heeds what it wants once that is done.
    fn change_frontend(&mut self, op: &Op) -> anyhow::Result<()> {
        let Self { frontends4: of4, frontends6: of6, least, .. } = self;
        match op {
            Op::PutFrontend4(key, value) => put(of4, maps::FRONTENDS4, *key, *value, &shown(key))?,
            Op::PutFrontend6(key, value) => put(of6, maps::FRONTENDS6, *key, *value, &shown(key))?,
            Op::RemoveFrontend4(key) => remove(of4, maps::FRONTENDS4, *key, &shown(key))?,
            Op::RemoveFrontend6(key) => remove(of6, maps::FRONTENDS6, *key, &shown(key))?,
            _ => {}
        }
        least.heed(op);
        self.control.want_loads(least.any());
        Ok(())
    }

    /// Sets the control side's bits of a port; whether it is in the SNAT range is not its matter.
    fn set_port(&self, port: u16, bits: u8) -> anyhow::Result<()> {
        let (line, place) =
            (usize::from(port) / PORTS_PER_LINE, usize::from(port) % PORTS_PER_LINE);
        let is_there = self.ports.update(line as u32, |line| {
            line[place] = (line[place] & PORT_SNAT) | (bits & !PORT_SNAT);
        });
        ensure!(is_there, "map {}: no line for port {port}", maps::PORTS);
        Ok(())
    }
}

/// A slot's line, and its place there.
const fn place(slot: u32) -> (u32, usize) {
    (slot / SLOTS_PER_LINE as u32, slot as usize % SLOTS_PER_LINE)
}

fn shown<A: Copy + Into<IpAddr>>(key: &FrontendKey<A>) -> String {
    let FrontendKey { address, port, protocol, .. } = *key;
    let protocol = match protocol {
        IPPROTO_TCP => "TCP".to_owned(),
        IPPROTO_UDP => "UDP".to_owned(),
        other => format!("protocol {other}"),
    };
    format!("{} {protocol}", std::net::SocketAddr::new(address.into(), port))
}

fn entries<K: Plain, V: Plain>(map: &Hash<K, V>) -> anyhow::Result<Vec<(K, V)>> {
    map.iter()
        .map(|entry| entry.map(|(key, value)| (key.0, value.0)).map_err(anyhow::Error::from))
        .collect()
}

/// The elements that are not all zero.
fn elements<T: Plain + PartialEq>(array: &SharedArray<T>) -> Vec<(u32, T)> {
    (0..array.len())
        .filter(|index| !array.is_zero(*index))
        .filter_map(|index| Some((index, array.read(index)?)))
        .collect()
}

fn set<T: Plain>(array: &SharedArray<T>, name: &str, index: u32, value: T) -> anyhow::Result<()> {
    ensure!(array.write(index, value), "map {name}: no element {index} among {}", array.len());
    Ok(())
}

fn put<K: Plain, V: Plain>(
    map: &mut Hash<K, V>,
    name: &str,
    key: K,
    value: V,
    shown: &dyn Display,
) -> anyhow::Result<()> {
    map.insert(Wire(key), Wire(value), 0).map_err(|error| explain(error, name, shown))
}

fn remove<K: Plain, V: Plain>(
    map: &mut Hash<K, V>,
    name: &str,
    key: K,
    shown: &dyn Display,
) -> anyhow::Result<()> {
    match map.remove(&Wire(key)) {
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        other => other.map_err(|error| explain(error, name, shown)),
    }
}

pub(super) fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn explain(error: MapError, name: &str, key: &dyn Display) -> anyhow::Error {
    if errno(&error) == Some(libc::E2BIG) {
        return anyhow!("map {name} is full: no room for {key}; remove Services, or addresses");
    }
    anyhow!(error).context(format!("map {name}, {key}"))
}
