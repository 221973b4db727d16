//! What the maps hold, read from the maps themselves, as a packet would meet it.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use nodeport_common::abi::{
    ADDRESS_SERVED, Addr4, BACKEND_USABLE, Backend, Frontend, FrontendKey, IPPROTO_TCP,
    LAYOUT_VERSION, SLOTS_PER_LINE, SlotLine, maps,
};

use super::world::{ENDPOINT_PORT, Service};
use crate::lab::Node;

/// The maps of one agent, by their pins.
pub(super) struct Maps {
    frontends: HashMap<MapData, [u8; size_of::<FrontendKey<Addr4>>()], [u32; 5]>,
    slots: Array<MapData, SlotLine>,
    backends: Array<MapData, [u8; size_of::<Backend<Addr4>>()]>,
    node_addresses: HashMap<MapData, Addr4, u32>,
}

/// Where an agent pins its maps.
pub(super) fn folder(node: &Node) -> PathBuf {
    node.bpffs().join(format!("nodeport/{}/v{LAYOUT_VERSION}", node.name()))
}

impl Maps {
    /// Opens them; none as long as not all of them are there.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>> {
        let wanted = [maps::FRONTENDS4, maps::SLOTS, maps::BACKENDS4, maps::NODE_ADDRS4];
        if !wanted.iter().all(|name| folder.join(name).exists()) {
            return Ok(None);
        }
        let frontends = open(folder, maps::FRONTENDS4)?;
        let frontends = HashMap::try_from(frontends).context(maps::FRONTENDS4)?;
        let node_addresses = HashMap::try_from(open(folder, maps::NODE_ADDRS4)?);
        Ok(Some(Self {
            frontends,
            node_addresses: node_addresses.context(maps::NODE_ADDRS4)?,
            slots: array(folder, maps::SLOTS)?,
            backends: array(folder, maps::BACKENDS4)?,
        }))
    }

    /// Whether nodePorts are served on this address of the node.
    pub(super) fn serves_on(&self, address: Ipv4Addr) -> bool {
        self.node_addresses.get(&address.octets(), 0).is_ok_and(|bits| bits & ADDRESS_SERVED != 0)
    }

    /// Where a service's slots are; none if it has no frontend, or one without backends.
    pub(super) fn frontend(&self, port: u16) -> Option<Frontend> {
        let mut key = [0; size_of::<FrontendKey<Addr4>>()];
        key[4..6].copy_from_slice(&port.to_ne_bytes());
        key[6] = IPPROTO_TCP;
        let [service, slots_offset, slots_len, flags, affinity] =
            self.frontends.get(&key, 0).ok()?;
        let frontend = Frontend { service, slots_offset, slots_len, flags, affinity };
        (slots_len > 0).then_some(frontend)
    }

    /// The endpoints that new flows of a service go to.
    pub(super) fn endpoints(&self, frontend: Frontend) -> Result<BTreeSet<Ipv4Addr>> {
        let (first, end) = (frontend.slots_offset, frontend.slots_offset + frontend.slots_len);
        let per_line = SLOTS_PER_LINE as u32;
        let mut indices = BTreeSet::new();
        for number in first / per_line..=(end - 1) / per_line {
            let line = self.slots.get(&number, 0).with_context(|| format!("slots, {number}"))?;
            let slots = (number * per_line..).zip(line);
            indices.extend(slots.filter(|(slot, _)| (first..end).contains(slot)).map(|(_, i)| i));
        }
        indices.into_iter().map(|index| self.backend(index)).collect()
    }

    fn backend(&self, index: u32) -> Result<Ipv4Addr> {
        let bytes = self.backends.get(&index, 0).with_context(|| format!("backend {index}"))?;
        let [a, b, c, d, port @ .., _, _, _, _, _, _, _, _, _, _] = bytes;
        let [port_low, port_high] = port;
        let state = bytes[7];
        let port = u16::from_ne_bytes([port_low, port_high]);
        ensure!(
            state == BACKEND_USABLE && port == ENDPOINT_PORT,
            "a slot names backend {index}, which is in state {state} at port {port}"
        );
        Ok(Ipv4Addr::new(a, b, c, d))
    }

    /// Checks that a service is served by its endpoints and by no others.
    pub(super) fn check(&self, service: &Service) -> Result<()> {
        let frontend = self.frontend(service.port());
        let frontend = frontend.with_context(|| format!("{} is not served", service.name()))?;
        let wanted: BTreeSet<_> = service.endpoints.iter().copied().collect();
        let found = self.endpoints(frontend).with_context(|| service.name())?;
        ensure!(found == wanted, "{}: {found:?} serve it, not {wanted:?}", service.name());
        Ok(())
    }
}

fn open(folder: &Path, name: &str) -> Result<Map> {
    let path = folder.join(name);
    let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    Map::from_map_data(data).with_context(|| name.to_owned())
}

fn array<T: Pod>(folder: &Path, name: &str) -> Result<Array<MapData, T>> {
    Array::try_from(open(folder, name)?).with_context(|| name.to_owned())
}

/// Bytes of kernel memory that the named maps take, as the kernel counts them.
pub(super) fn memory(folder: &Path, names: &[&str]) -> Result<u64> {
    let mut total = 0;
    for name in names {
        let path = folder.join(name);
        let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
        let info = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(&info).with_context(|| info.clone())?;
        let bytes =
            text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
        total += bytes.unwrap_or(0u64);
    }
    Ok(total)
}
