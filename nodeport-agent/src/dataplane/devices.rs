//! Which interfaces are served, and what the programs may know of all of them.

use std::collections::BTreeSet;

use anyhow::{bail, ensure};
use nodeport_common::abi::{
    Addr4, Addr6, DEVICE_ATTACHED, DEVICE_POD, DEVICE_REDIRECT, Device, Tags,
};

use super::net::{Interface, Kind, Vlan};
use super::status::{DeviceMode, Refusal};
use crate::config::Devices;

/// An interface that shall be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) ifindex: u32,
    /// Why XDP is not even tried.
    pub(super) without_xdp: Option<Refusal>,
    /// The XDP program on it now, ours or another's.
    pub(super) xdp_program: Option<u32>,
}

/// What shall be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// These.
    pub(super) targets: Vec<Target>,
    /// These when they come.
    pub(super) absent: Vec<String>,
    /// These cannot be: their packets have no Ethernet header.
    pub(super) unfit: Vec<(String, u32)>,
}

/// Chooses among the interfaces that are there.
pub(super) fn choose(wanted: &Devices, interfaces: &[Interface]) -> Choice {
    let mut choice = Choice::default();
    match wanted {
        Devices::Auto => {
            for interface in interfaces.iter().filter(|interface| is_node_side(interface)) {
                // One that the user names is tried, and its error told.
                let is_tunnel = interface.kind == Kind::Tunnel;
                choice.add(interface, is_tunnel.then_some(Refusal::Tunnel), interfaces);
            }
        }
        Devices::Named(names) => {
            for name in names {
                match interfaces.iter().find(|interface| interface.name == *name) {
                    Some(interface) => choice.add(interface, None, interfaces),
                    None => choice.absent.push(name.clone()),
                }
            }
        }
    }
    choice
}

impl Choice {
    fn add(&mut self, interface: &Interface, refusal: Option<Refusal>, all: &[Interface]) {
        let Interface { ifindex, name, is_ethernet, xdp_program, .. } = interface;
        if *is_ethernet {
            let (name, xdp_program) = (name.clone(), *xdp_program);
            let without_xdp = refusal.or_else(|| by_vlans(interface, all));
            self.targets.push(Target { name, ifindex: *ifindex, without_xdp, xdp_program });
        } else {
            self.unfit.push((name.clone(), *ifindex));
        }
    }

    /// Checks a first choice: a name that nobody has ever seen is a typing error rather than an
    /// interface that is late. `served` are the names that this instance has served before.
    pub(super) fn check(
        &self,
        wanted: &Devices,
        interfaces: &[Interface],
        served: &[String],
    ) -> anyhow::Result<()> {
        if let (Devices::Named(_), Some((name, _))) = (wanted, self.unfit.first()) {
            bail!(
                "interface {name} cannot be served: its packets have no Ethernet header; name \
                 others with --devices"
            );
        }
        let is_hopeless = !self.absent.is_empty()
            && self.targets.is_empty()
            && !self.absent.iter().any(|name| served.contains(name));
        let there: Vec<&str> = interfaces.iter().map(|known| known.name.as_str()).collect();
        ensure!(
            !is_hopeless,
            "no interface {}: there are {}; name one of these with --devices, or use auto",
            self.absent.join(", "),
            there.join(", ")
        );
        Ok(())
    }
}

/// What VLANs mean for XDP on an interface.
fn by_vlans(interface: &Interface, all: &[Interface]) -> Option<Refusal> {
    let is_above =
        |other: &Interface| other.vlan.is_some_and(|vlan| vlan.lower == interface.ifindex);
    if interface.vlan.is_some() {
        Some(Refusal::VlanDevice)
    } else {
        all.iter().any(is_above).then_some(Refusal::CarriesVlans)
    }
}

/// Whether clients' or other nodes' packets come in there, rather than pods'.
fn is_node_side(interface: &Interface) -> bool {
    let has_address =
        interface.address4 != Addr4::default() || interface.address6 != Addr6::default();
    let by_kind = match interface.kind {
        Kind::Nic => has_address,
        // The way to a pod has no address, or one without neighbours.
        Kind::Veth => interface.has_subnet,
        Kind::Tunnel => interface.is_up,
        Kind::Other => false,
    };
    let is_served = interface.has_default || (by_kind && interface.is_ethernet);
    is_served && !interface.has_master
}

/// The near ends of veths of pods: those by which packets leave this network namespace, and that are
/// neither served as NICs (`served`, or to be) nor part of a bridge.
pub(super) fn of_pods<'a>(
    choice: &'a Choice,
    interfaces: &'a [Interface],
    served: &'a BTreeSet<u32>,
) -> impl Iterator<Item = &'a Interface> {
    let is_served = |interface: &Interface| {
        served.contains(&interface.ifindex)
            || choice.targets.iter().any(|to| to.ifindex == interface.ifindex)
    };
    interfaces.iter().filter(move |interface| {
        let is_own = interface.is_way_out && interface.is_ethernet && !interface.has_master;
        is_own && !is_node_side(interface) && !is_served(interface)
    })
}

/// What the programs may know, but for its exit, of an interface among `interfaces`. `mode` tells how each is served,
/// `any_xdp` whether XDP serves any, `is_fast` whether flows to the pod behind it can be opened in
/// fast mode.
pub(super) fn describe(
    interface: &Interface,
    interfaces: &[Interface],
    mode_of: impl Fn(u32) -> Option<DeviceMode>,
    any_xdp: bool,
    is_fast: bool,
) -> Device {
    let mode = mode_of(interface.ifindex);
    let (lower, tags) = below(interface, interfaces)
        .filter(|(lower, _)| mode_of(*lower) == Some(DeviceMode::Xdp))
        .unwrap_or_default();
    let is_attached = matches!(mode, Some(DeviceMode::Xdp | DeviceMode::Tc));
    // XDP frames can be sent from an interface only where its driver runs XDP, which is known of
    // those that we attached it to. TC may send from any that takes finished Ethernet frames.
    let may_send = if any_xdp {
        mode == Some(DeviceMode::Xdp)
    } else {
        interface.is_ethernet && interface.kind != Kind::Tunnel
    };
    let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
    Device {
        flags: bit(is_attached, DEVICE_ATTACHED)
            | bit(may_send, DEVICE_REDIRECT)
            | bit(is_fast, DEVICE_POD),
        address4: interface.address4,
        address6: interface.address6,
        mac: interface.mac,
        exit: 0,
        lower,
        tags,
    }
}

/// The interface that a VLAN device's frames leave from in the end, and their tags there; `None`
/// for others, and for more tags than the programs know of.
fn below(interface: &Interface, interfaces: &[Interface]) -> Option<(u32, Tags)> {
    let find = |ifindex| interfaces.iter().find(|other| other.ifindex == ifindex);
    let inner = interface.vlan?;
    let tag = |vlan: Vlan| u32::from_ne_bytes(vlan.tag);
    let Some(outer) = find(inner.lower)?.vlan else {
        return Some((inner.lower, [tag(inner), 0]));
    };
    let is_last = find(outer.lower)?.vlan.is_none();
    is_last.then(|| (outer.lower, [tag(outer), tag(inner)]))
}

#[cfg(test)]
mod tests {
    use super::super::net::testing::interface;
    use super::*;

    fn names(choice: &Choice) -> Vec<&str> {
        choice.targets.iter().map(|target| target.name.as_str()).collect()
    }

    fn node() -> Vec<Interface> {
        let mut lo = interface(1, "lo", Kind::Other);
        (lo.is_ethernet, lo.address4) = (false, [127, 0, 0, 1]);
        let mut eth0 = interface(2, "eth0", Kind::Nic);
        (eth0.address4, eth0.has_subnet, eth0.has_default) = ([10, 0, 0, 1], true, true);
        let mut eth1 = interface(3, "eth1", Kind::Nic);
        eth1.address6 = [1; 16];
        let eth2 = interface(4, "eth2", Kind::Nic);
        let mut slave = interface(5, "slave", Kind::Nic);
        (slave.has_master, slave.address4) = (true, [10, 0, 0, 3]);
        let mut cni0 = interface(6, "cni0", Kind::Other);
        (cni0.address4, cni0.has_subnet) = ([10, 1, 0, 1], true);
        let mut pod = interface(7, "veth7", Kind::Veth);
        pod.address4 = [10, 1, 0, 1];
        let mut nic = interface(8, "uplink", Kind::Veth);
        (nic.address4, nic.has_subnet) = ([10, 2, 0, 1], true);
        let tunnel = interface(9, "flannel.1", Kind::Tunnel);
        let mut down = interface(10, "vxlan9", Kind::Tunnel);
        down.is_up = false;
        vec![lo, eth0, eth1, eth2, slave, cni0, pod, nic, tunnel, down]
    }

    #[test]
    fn by_themselves_found_are_the_sides_that_face_the_network() {
        let choice = choose(&Devices::Auto, &node());
        assert_eq!(names(&choice), ["eth0", "eth1", "uplink", "flannel.1"]);
        let without_xdp: Vec<_> = choice.targets.iter().map(|to| to.without_xdp.clone()).collect();
        assert_eq!(without_xdp, [None, None, None, Some(Refusal::Tunnel)]);
        choice.check(&Devices::Auto, &node(), &[]).unwrap();
    }

    #[test]
    fn pods_veths_are_those_that_lead_out_and_are_nothing_else() {
        let veth = |ifindex, name| {
            let mut veth = interface(ifindex, name, Kind::Veth);
            veth.is_way_out = true;
            veth
        };
        let mut pod = veth(3, "pod");
        pod.address4 = [10, 1, 0, 1];
        let (mut bridged, mut nic) = (veth(4, "bridged"), veth(5, "nic"));
        (bridged.has_master, nic.has_subnet) = (true, true);
        let mut named = veth(6, "named");
        named.address4 = [10, 0, 0, 1];
        let mut default = veth(7, "default");
        default.has_default = true;
        let mut here = veth(8, "here");
        here.is_way_out = false;
        let all = [pod, bridged, nic, named, default, here];
        for (wanted, pods) in
            [(Devices::Auto, vec!["pod", "named"]), (self::named(&["named"]), vec!["pod"])]
        {
            let choice = choose(&wanted, &all);
            let nobody = BTreeSet::new();
            let found: Vec<_> =
                of_pods(&choice, &all, &nobody).map(|pod| pod.name.as_str()).collect();
            assert_eq!(found, pods, "{wanted:?}");
        }
        // One that is served, and has lost its address for a moment.
        let (choice, served) = (choose(&Devices::Auto, &all), BTreeSet::from([all[0].ifindex]));
        assert!(of_pods(&choice, &all, &served).all(|pod| pod.name != all[0].name));
        let device = describe(&all[0], &all, |_| None, true, true);
        assert_eq!(device.flags, DEVICE_POD);
    }

    #[test]
    fn a_bridge_with_the_default_route_is_served() {
        let mut br0 = interface(3, "br0", Kind::Other);
        br0.has_default = true;
        assert_eq!(names(&choose(&Devices::Auto, &[br0])), ["br0"]);
    }

    #[test]
    fn what_has_no_ethernet_header_is_left_out_and_refused_by_name() {
        let mut wg0 = interface(3, "wg0", Kind::Other);
        (wg0.is_ethernet, wg0.has_default) = (false, true);
        let there = [wg0];
        let choice = choose(&Devices::Auto, &there);
        assert_eq!((choice.targets.len(), &choice.unfit), (0, &vec![("wg0".to_owned(), 3)]));
        choice.check(&Devices::Auto, &there, &[]).unwrap();
        let wanted = named(&["wg0"]);
        let choice = choose(&wanted, &there);
        let error = choice.check(&wanted, &there, &[]).unwrap_err().to_string();
        assert!(error.contains("wg0") && error.contains("--devices"), "{error}");
    }

    fn named(names: &[&str]) -> Devices {
        Devices::Named(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_name_that_nobody_knows_is_an_error_and_one_that_was_served_is_waited_for() {
        let wanted = named(&["eth9"]);
        let choice = choose(&wanted, &node());
        let error = choice.check(&wanted, &node(), &[]).unwrap_err().to_string();
        assert!(error.contains("no interface eth9") && error.contains("eth1"), "{error}");
        choice.check(&wanted, &node(), &["eth9".to_owned()]).unwrap();
        let wanted = named(&["eth0", "eth9"]);
        let choice = choose(&wanted, &node());
        choice.check(&wanted, &node(), &[]).unwrap();
        assert_eq!(names(&choice), ["eth0"]);
        assert_eq!(choice.absent, ["eth9"]);
    }

    #[test]
    fn frames_are_sent_only_where_they_are_taken() {
        let (nic, pod, tunnel) = (
            interface(2, "eth0", Kind::Nic),
            interface(3, "veth3", Kind::Veth),
            interface(4, "vxlan0", Kind::Tunnel),
        );
        let (xdp, tc) = (Some(DeviceMode::Xdp), Some(DeviceMode::Tc));
        for (interface, mode, any_xdp, flags) in [
            (&nic, xdp, true, DEVICE_ATTACHED | DEVICE_REDIRECT),
            (&nic, tc, true, DEVICE_ATTACHED),
            (&nic, tc, false, DEVICE_ATTACHED | DEVICE_REDIRECT),
            (&nic, Some(DeviceMode::None), false, DEVICE_REDIRECT),
            (&pod, None, true, 0),
            (&pod, None, false, DEVICE_REDIRECT),
            (&tunnel, tc, false, DEVICE_ATTACHED),
            (&tunnel, tc, true, DEVICE_ATTACHED),
        ] {
            let name = &interface.name;
            let device = describe(interface, &[], |_| mode, any_xdp, false);
            assert_eq!((device.flags, device.lower), (flags, 0), "{name} {mode:?}");
        }
    }

    #[test]
    fn xdp_is_kept_from_cards_that_may_take_tags_off() {
        let mut nic = interface(2, "eth0", Kind::Nic);
        nic.address4 = [10, 0, 0, 1];
        let mut vlan = interface(3, "eth0.5", Kind::Nic);
        (vlan.address4, vlan.vlan) = ([10, 0, 5, 1], Some(Vlan { lower: 2, tag: [0x81, 0, 0, 5] }));
        for wanted in [Devices::Auto, named(&["eth0", "eth0.5"])] {
            let of = |interfaces: &[Interface]| -> Vec<_> {
                let targets = choose(&wanted, interfaces).targets;
                targets.into_iter().map(|target| target.without_xdp).collect()
            };
            assert_eq!(of(&[nic.clone()]), [None]);
            let both = [Some(Refusal::CarriesVlans), Some(Refusal::VlanDevice)];
            assert_eq!(of(&[nic.clone(), vlan.clone()]), both);
        }
    }

    #[test]
    fn frames_of_a_vlan_device_leave_from_the_interface_below_with_its_tags() {
        let vlan = |lower, tag| Some(Vlan { lower, tag });
        let nic = interface(2, "eth0", Kind::Nic);
        let mut outer = interface(3, "eth0.5", Kind::Nic);
        outer.vlan = vlan(2, [0x88, 0xa8, 0, 5]);
        let mut inner = interface(4, "eth0.5.6", Kind::Nic);
        inner.vlan = vlan(3, [0x81, 0, 0, 6]);
        let mut third = interface(5, "eth0.5.6.7", Kind::Nic);
        third.vlan = vlan(4, [0x81, 0, 0, 7]);
        let mut stray = interface(6, "stray", Kind::Nic);
        stray.vlan = vlan(99, [0x81, 0, 0, 7]);
        let all = [nic, outer, inner, third, stray];
        let told = |index: usize, mode| {
            let mode_of = |ifindex| (ifindex == 2).then_some(mode);
            let device = describe(&all[index], &all, mode_of, true, false);
            (device.lower, device.tags.map(u32::to_ne_bytes))
        };
        let none = (0, [[0; 4]; 2]);
        let expected = [
            none,
            (2, [[0x88, 0xa8, 0, 5], [0; 4]]),
            (2, [[0x88, 0xa8, 0, 5], [0x81, 0, 0, 6]]),
            none,
            none,
        ];
        for (index, expected) in expected.into_iter().enumerate() {
            assert_eq!(told(index, DeviceMode::Xdp), expected, "{}", all[index].name);
            assert_eq!(told(index, DeviceMode::Tc), none, "{}", all[index].name);
        }
    }
}
