//! What can be seen of an agent from outside.

use aya::maps::{Array, HashMap, MapData};
use nodeport_agent::dataplane::status::DeviceMode;
use nodeport_common::abi::Device;

use crate::world::World;

/// How an interface is served by XDP.
pub(crate) fn xdp() -> Option<(DeviceMode, String)> {
    Some((DeviceMode::Xdp, String::new()))
}

/// How a veth is served as a pod.
pub(crate) fn pod() -> Option<(DeviceMode, String)> {
    Some((DeviceMode::Pod, String::new()))
}

pub(crate) fn epoch(world: &World) -> u32 {
    let map = MapData::from_pin(world.pins("a").join("control")).unwrap();
    let map = aya::maps::Map::from_map_data(map).unwrap();
    let control: Array<_, [u8; 64]> = map.try_into().unwrap();
    u32::from_ne_bytes(control.get(&0, 0).unwrap()[..4].try_into().unwrap())
}

/// What the programs are told of an interface.
pub(crate) fn flags(world: &World, ifindex: u32) -> u32 {
    let map = MapData::from_pin(world.pins("a").join("devices")).unwrap();
    let map = aya::maps::Map::from_map_data(map).unwrap();
    let devices: HashMap<_, u32, [u8; size_of::<Device>()]> = map.try_into().unwrap();
    let device = devices.get(&ifindex, 0).unwrap_or([0; size_of::<Device>()]);
    u32::from_ne_bytes(device[..4].try_into().unwrap())
}

pub(crate) fn links_to_pods(world: &World) -> usize {
    world.links("a").iter().filter(|(name, _, _)| name.contains("_pod_")).count()
}
