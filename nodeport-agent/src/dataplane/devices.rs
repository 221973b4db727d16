//! Which interfaces are served, and what the programs may know of all of them.

use anyhow::{bail, ensure};
use nodeport_common::abi::{Addr4, Addr6, DEVICE_ATTACHED, DEVICE_REDIRECT, Device};

use super::net::{Interface, Kind};
use super::status::DeviceMode;
use crate::config::Devices;

/// An interface that shall be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) ifindex: u32,
    /// A tunnel that was not named by the user: it has no XDP, and is not asked.
    pub(super) is_tunnel: bool,
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
                choice.add(interface, interface.kind == Kind::Tunnel);
            }
        }
        Devices::Named(names) => {
            for name in names {
                match interfaces.iter().find(|interface| interface.name == *name) {
                    Some(interface) => choice.add(interface, false),
                    None => choice.absent.push(name.clone()),
                }
            }
        }
    }
    choice
}

impl Choice {
    fn add(&mut self, interface: &Interface, is_tunnel: bool) {
        let Interface { ifindex, name, is_ethernet, xdp_program, .. } = interface;
        if *is_ethernet {
            let (name, xdp_program) = (name.clone(), *xdp_program);
            self.targets.push(Target { name, ifindex: *ifindex, is_tunnel, xdp_program });
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

/// What the programs may know of an interface. `mode` is how it is served, `any_xdp` whether XDP
/// serves any.
pub(super) fn describe(interface: &Interface, mode: Option<DeviceMode>, any_xdp: bool) -> Device {
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
        flags: bit(is_attached, DEVICE_ATTACHED) | bit(may_send, DEVICE_REDIRECT),
        address4: interface.address4,
        address6: interface.address6,
        mac: interface.mac,
        pad: [0; 2],
    }
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
        assert!(choice.targets[3].is_tunnel);
        choice.check(&Devices::Auto, &node(), &[]).unwrap();
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
            assert_eq!(describe(interface, mode, any_xdp).flags, flags, "{name} {mode:?}");
        }
    }
}
