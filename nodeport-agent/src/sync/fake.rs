//! The maps as ordered maps in memory, for tests. After every single write it checks that no
//! packet could meet an inconsistent state, and it fails where it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use ipnet::IpNet;
use nodeport_common::abi::{
    Addr4, Addr6, BACKEND_GONE, BACKEND_USABLE, Backend, FRONTEND_GUARDED, Frontend, FrontendKey,
    PORT_BACKEND, PORT_FRONTEND,
};

use crate::dataplane::{Dataplane, Failure, Observed, Op, PortReport};
use crate::plan::FrontendAt;

/// Which writes fail.
pub(crate) type Fault = Box<dyn FnMut(&Op) -> bool + Send>;

/// The maps. Clones are handles to the same ones, as an agent that starts again has.
#[derive(Clone)]
pub(crate) struct Fake {
    maps: Arc<Mutex<Maps>>,
}

/// Contents of the maps.
pub(crate) struct Maps {
    pub(crate) seed: u32,
    pub(crate) frontends4: BTreeMap<FrontendKey<Addr4>, Frontend>,
    pub(crate) frontends6: BTreeMap<FrontendKey<Addr6>, Frontend>,
    pub(crate) ranges: BTreeSet<(u32, IpNet)>,
    pub(crate) backends4: BTreeMap<u32, Backend<Addr4>>,
    pub(crate) backends6: BTreeMap<u32, Backend<Addr6>>,
    pub(crate) addresses4: BTreeMap<Addr4, u32>,
    pub(crate) addresses6: BTreeMap<Addr6, u32>,
    pub(crate) ports: BTreeMap<u16, u8>,
    /// What was counted, by the id of the service port.
    pub(crate) counted: BTreeMap<u32, u64>,
    pub(crate) slots: Vec<u32>,
    /// All writes so far.
    pub(crate) written: Vec<Op>,
    /// What is said of SNAT ports.
    pub(crate) port_report: Arc<PortReport>,
    /// Decides which writes fail.
    pub(crate) fault: Fault,
    /// Tables that were replaced since the last barrier: a packet may be reading them, and the
    /// backends in them.
    replaced: Vec<(Family, Frontend)>,
    /// How many of these were there when the barrier that goes on began, and how often it was
    /// asked for since.
    barrier: Option<(usize, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Fake {
    pub(crate) fn new(slots: usize) -> Self {
        let maps = Maps {
            seed: 0,
            frontends4: BTreeMap::new(),
            frontends6: BTreeMap::new(),
            ranges: BTreeSet::new(),
            backends4: BTreeMap::new(),
            backends6: BTreeMap::new(),
            addresses4: BTreeMap::new(),
            addresses6: BTreeMap::new(),
            ports: BTreeMap::new(),
            counted: BTreeMap::new(),
            slots: vec![0; slots],
            written: Vec::new(),
            port_report: Arc::default(),
            fault: Box::new(|_| false),
            replaced: Vec::new(),
            barrier: None,
        };
        Self { maps: Arc::new(Mutex::new(maps)) }
    }

    pub(crate) fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().expect("no test fails while it holds the lock")
    }

    /// Which writes fail from now on.
    pub(crate) fn fail(&self, fault: impl FnMut(&Op) -> bool + Send + 'static) {
        self.maps().fault = Box::new(fault);
    }

    /// The writes since the last call.
    pub(crate) fn take_written(&self) -> Vec<Op> {
        std::mem::take(&mut self.maps().written)
    }
}

impl Dataplane for Fake {
    fn observe(&mut self) -> anyhow::Result<Observed> {
        let mut maps = self.maps();
        // An agent that starts knows nothing of the barrier of the one before.
        maps.barrier = None;
        Ok(Observed {
            seed: maps.seed,
            frontends4: maps.frontends4.iter().map(|(key, value)| (*key, *value)).collect(),
            frontends6: maps.frontends6.iter().map(|(key, value)| (*key, *value)).collect(),
            ranges: maps.ranges.iter().copied().collect(),
            backends4: maps.backends4.iter().map(|(key, value)| (*key, *value)).collect(),
            backends6: maps.backends6.iter().map(|(key, value)| (*key, *value)).collect(),
            addresses4: maps.addresses4.clone().into_iter().collect(),
            addresses6: maps.addresses6.clone().into_iter().collect(),
            ports: maps.ports.iter().map(|(port, bits)| (*port, *bits)).collect(),
        })
    }

    fn read_slots(&mut self, offset: u32, len: u32) -> anyhow::Result<Vec<u32>> {
        let (start, end) = (offset as usize, offset as usize + len as usize);
        let maps = self.maps();
        let slots = maps.slots.get(start..end);
        slots.map(<[u32]>::to_vec).ok_or_else(|| anyhow::anyhow!("outside the map"))
    }

    fn slot_capacity(&self) -> u32 {
        self.maps().slots.len() as u32
    }

    fn port_report(&self) -> Arc<PortReport> {
        self.maps().port_report.clone()
    }

    fn begin_barrier(&mut self) {
        let mut maps = self.maps();
        assert!(maps.barrier.is_none(), "one barrier at a time");
        maps.barrier = Some((maps.replaced.len(), 0));
    }

    /// It goes on for two looks, and may fail.
    fn barrier_ended(&mut self) -> Option<anyhow::Result<()>> {
        let mut maps = self.maps();
        let (covered, looks) = maps.barrier?;
        if looks < 2 {
            maps.barrier = Some((covered, looks + 1));
            return None;
        }
        maps.barrier = None;
        if (maps.fault)(&Op::Barrier) {
            return Some(Err(anyhow::anyhow!("injected")));
        }
        // Another one may have ended meanwhile.
        let covered = covered.min(maps.replaced.len());
        maps.replaced.drain(..covered);
        Some(Ok(()))
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        let mut maps = self.maps();
        let mut failures = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            if (maps.fault)(op) {
                failures.push(Failure { index, error: anyhow::anyhow!("injected") });
                continue;
            }
            maps.write(op);
            maps.written.push(op.clone());
        }
        failures
    }
}

impl Maps {
    fn write(&mut self, op: &Op) {
        match op {
            Op::SetSeed(seed) => self.seed = *seed,
            Op::PutFrontend4(key, value) => {
                self.check_frontend(Family::V4, key.port, *value);
                let old = self.frontends4.insert(*key, *value);
                self.replace(Family::V4, old);
            }
            Op::PutFrontend6(key, value) => {
                self.check_frontend(Family::V6, key.port, *value);
                let old = self.frontends6.insert(*key, *value);
                self.replace(Family::V6, old);
            }
            Op::RemoveFrontend4(key) => {
                let old = self.frontends4.remove(key);
                self.replace(Family::V4, old);
            }
            Op::RemoveFrontend6(key) => {
                let old = self.frontends6.remove(key);
                self.replace(Family::V6, old);
            }
            Op::PutBackend4(index, value) => {
                let old = self
                    .backends4
                    .get(index)
                    .map(|old| (old.address.to_vec(), old.port, old.generation, old.state));
                let new = (value.address.to_vec(), value.port, value.generation, value.state);
                self.check_backend(Family::V4, *index, old, new);
                self.backends4.insert(*index, *value);
            }
            Op::PutBackend6(index, value) => {
                let old = self
                    .backends6
                    .get(index)
                    .map(|old| (old.address.to_vec(), old.port, old.generation, old.state));
                let new = (value.address.to_vec(), value.port, value.generation, value.state);
                self.check_backend(Family::V6, *index, old, new);
                self.backends6.insert(*index, *value);
            }
            Op::AddRange(service, range) => drop(self.ranges.insert((*service, *range))),
            Op::RemoveRange(service, range) => drop(self.ranges.remove(&(*service, *range))),
            Op::WriteSlots { offset, slots } => self.write_slots(*offset as usize, slots),
            Op::ClearService(id) => drop(self.counted.remove(id)),
            Op::SetPort(port, 0) => drop(self.ports.remove(port)),
            Op::SetPort(port, bits) => drop(self.ports.insert(*port, *bits)),
            Op::PutAddress4(key, bits) => {
                assert_ne!(self.addresses4.insert(*key, *bits), Some(*bits))
            }
            Op::PutAddress6(key, bits) => {
                assert_ne!(self.addresses6.insert(*key, *bits), Some(*bits))
            }
            Op::RemoveAddress4(key) => assert!(self.addresses4.remove(key).is_some()),
            Op::RemoveAddress6(key) => assert!(self.addresses6.remove(key).is_some()),
            Op::Barrier => self.clear_replaced(),
        }
    }

    fn clear_replaced(&mut self) {
        self.replaced.clear();
        // What is replaced from here on is not covered by a barrier that goes on.
        self.barrier = self.barrier.map(|(_, looks)| (0, looks));
    }

    fn replace(&mut self, family: Family, old: Option<Frontend>) {
        self.replaced.extend(old.filter(|old| old.slots_len > 0).map(|old| (family, old)));
    }

    /// A frontend may only lead to backends that are usable, and its port must be marked.
    fn check_frontend(&self, family: Family, port: u16, value: Frontend) {
        assert!(self.ports.get(&port).is_some_and(|bits| bits & PORT_FRONTEND != 0), "port {port}");
        for index in self.table(value) {
            assert_eq!(self.state(family, *index), BACKEND_USABLE, "backend {index}");
        }
    }

    fn check_backend(
        &self,
        family: Family,
        index: u32,
        old: Option<(Vec<u8>, u16, u32, u8)>,
        new: (Vec<u8>, u16, u32, u8),
    ) {
        assert_ne!(index, 0, "index 0 is nobody's");
        if let Some(old) = old {
            let same = (&old.0, old.1) == (&new.0, new.1) && old.3 != BACKEND_GONE;
            assert_eq!(
                same,
                old.2 == new.2,
                "a generation changes with the backend: {old:?} {new:?}"
            );
        }
        if new.3 != BACKEND_USABLE {
            assert!(!self.is_read(family, index), "backend {index} goes while it is in a table");
        }
        if new.3 != BACKEND_GONE {
            assert!(self.ports.get(&new.1).is_some_and(|bits| bits & PORT_BACKEND != 0));
        }
    }

    /// Whether a packet that opens a flow may read this backend.
    fn is_read(&self, family: Family, index: u32) -> bool {
        self.tables().any(|(of, table)| of == family && self.table(table).contains(&index))
    }

    /// Tables that packets may be reading.
    fn tables(&self) -> impl Iterator<Item = (Family, Frontend)> {
        let four = self.frontends4.values().map(|value| (Family::V4, *value));
        let six = self.frontends6.values().map(|value| (Family::V6, *value));
        four.chain(six).chain(self.replaced.iter().copied())
    }

    fn table(&self, value: Frontend) -> &[u32] {
        &self.slots[value.slots_offset as usize..][..value.slots_len as usize]
    }

    fn state(&self, family: Family, index: u32) -> u8 {
        match family {
            Family::V4 => self.backends4.get(&index).map_or(BACKEND_GONE, |one| one.state),
            Family::V6 => self.backends6.get(&index).map_or(BACKEND_GONE, |one| one.state),
        }
    }

    fn write_slots(&mut self, offset: usize, slots: &[u32]) {
        let end = offset + slots.len();
        for (_, table) in self.tables() {
            let (start, len) = (table.slots_offset as usize, table.slots_len as usize);
            assert!(len == 0 || end <= start || start + len <= offset, "slots that packets read");
        }
        self.slots[offset..end].copy_from_slice(slots);
    }

    /// What the maps mean: for each frontend the endpoints behind it, each with its share.
    pub(crate) fn meaning(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut meaning = BTreeMap::new();
        for (key, value) in &self.frontends4 {
            let name = |index: &u32| {
                let backend = self.backends4[index];
                assert_eq!(backend.state, BACKEND_USABLE);
                format!("{:?}:{}", backend.address, backend.port)
            };
            let ends = self.table(*value).iter().map(name).collect();
            meaning.insert(format!("{:?}:{}/{}", key.address, key.port, key.protocol), ends);
        }
        for (key, value) in &self.frontends6 {
            let name = |index: &u32| {
                let backend = self.backends6[index];
                assert_eq!(backend.state, BACKEND_USABLE);
                format!("{:?}:{}", backend.address, backend.port)
            };
            let ends = self.table(*value).iter().map(name).collect();
            meaning.insert(format!("{:?}:{}/{}", key.address, key.port, key.protocol), ends);
        }
        meaning
    }

    /// The slots of a frontend.
    pub(crate) fn slots_of(&self, at: &FrontendAt) -> &[u32] {
        let found4 = self.frontends4.iter().find(|(key, _)| {
            (IpAddr::from(key.address), key.port, key.protocol)
                == (at.address, at.port, at.protocol.number())
        });
        let found6 = self.frontends6.iter().find(|(key, _)| {
            (IpAddr::from(key.address), key.port, key.protocol)
                == (at.address, at.port, at.protocol.number())
        });
        let found = found4.map(|(_, value)| *value).or(found6.map(|(_, value)| *value));
        found.map_or(&[], |value| self.table(value))
    }

    /// What a backend weighs.
    pub(crate) fn weight(&self, at: IpAddr, index: u32) -> u32 {
        match at {
            IpAddr::V4(_) => self.backends4[&index].weight,
            IpAddr::V6(_) => self.backends6[&index].weight,
        }
    }

    /// Who may use the guarded frontends: for each its networks.
    pub(crate) fn guarded(&self) -> BTreeMap<String, BTreeSet<IpNet>> {
        let name =
            |address: IpAddr, port: u16, protocol: u8| format!("{address}:{port}/{protocol}");
        let four = self.frontends4.iter().map(|(key, value)| {
            (name(key.address.into(), key.port, key.protocol), Family::V4, *value)
        });
        let six = self.frontends6.iter().map(|(key, value)| {
            (name(key.address.into(), key.port, key.protocol), Family::V6, *value)
        });
        let guarded = four.chain(six).filter(|(_, _, value)| value.flags & FRONTEND_GUARDED != 0);
        guarded.map(|(name, family, value)| (name, self.ranges_of(family, value.service))).collect()
    }

    fn ranges_of(&self, family: Family, service: u32) -> BTreeSet<IpNet> {
        let is_its = |range: &IpNet| range.addr().is_ipv4() == (family == Family::V4);
        let all = self.ranges.iter().filter(|(of, range)| *of == service && is_its(range));
        all.map(|(_, range)| *range).collect()
    }

    /// Number of backends that are not gone.
    pub(crate) fn live(&self) -> usize {
        let four = self.backends4.values().filter(|one| one.state != BACKEND_GONE).count();
        let six = self.backends6.values().filter(|one| one.state != BACKEND_GONE).count();
        four + six
    }
}
