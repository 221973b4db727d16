//! The node's network: interfaces, addresses, routes and neighbours, in a namespace of its own.

use std::fs;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nodeport_common::core::family::{V4, V6};
use nodeport_common::frames::Net;

/// The node's outer interface, where clients are.
pub(crate) const OUT: u32 = 10;
/// The inner one, where backends are.
pub(crate) const IN: u32 = 12;
/// One that takes no frames from XDP.
pub(crate) const SLOW: u32 = 14;
/// One that nobody watches.
pub(crate) const DARK: u32 = 16;

/// The near end of the veth of a pod.
pub(crate) const POD: u32 = 18;

/// Interfaces: name, index, and the net that they are in.
const LINKS: [(&str, u32, u8); 5] =
    [("out0", OUT, 1), ("in0", IN, 8), ("slow0", SLOW, 7), ("dark0", DARK, 6), ("pod0", POD, 3)];

/// The router towards clients and narrow paths.
pub(crate) const ROUTER: u8 = 254;
/// Largest packet on a narrow path.
pub(crate) const NARROW: u16 = 1300;
/// Largest packet on the pod's veth.
pub(crate) const NARROW_POD: u16 = 1400;
/// Largest packet everywhere else.
pub(crate) const MTU: u16 = 1500;

/// Ethernet address of the node's interface in net `net`.
pub(crate) const fn own_mac(net: u8) -> [u8; 6] {
    [2, 0, 0, 0, net, 1]
}

/// Ethernet address of party `number` in net `net`.
pub(crate) const fn mac(net: u8, number: u8) -> [u8; 6] {
    [2, 0, 0, 1, net, number]
}

/// Puts this thread, and all that it starts from now on, into a namespace with that network.
pub(crate) fn isolate() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of one's own: needs root");
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"] {
        fs::write(format!("/proc/sys/net/{setting}"), "1").expect("a setting of our own namespace");
    }
    fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("as above");
    ip("link set lo up");
    for (name, index, net) in LINKS {
        let mac = text(own_mac(net));
        ip(&format!("link add {name} index {index} address {mac} type veth peer name {name}p"));
        ip(&format!("link set {name} up"));
        ip(&format!("link set {name}p up"));
    }
    ip(&format!("link set pod0 mtu {NARROW_POD}"));
    addresses::<V4>(24);
    addresses::<V6>(64);
}

fn addresses<F: Net>(prefix: u8) {
    for (name, _, net) in LINKS {
        let nodad = if F::VERSION == 6 { "nodad" } else { "" };
        ip(&format!("addr add {}/{prefix} dev {name} {nodad}", F::party(net, 1)));
    }
    for (name, net, numbers) in [
        ("out0", 1, &[ROUTER][..]),
        ("in0", 8, &[20, 21, ROUTER]),
        ("slow0", 7, &[20]),
        ("dark0", 6, &[20]),
        ("pod0", 3, &[20]),
    ] {
        for number in numbers {
            let (to, mac) = (F::party(net, *number), text(mac(net, *number)));
            ip(&format!("neigh replace {to} lladdr {mac} dev {name} nud permanent"));
        }
    }
    let net = |number| format!("{}/{prefix}", F::party(number, 0));
    let via = |number| F::party(number, ROUTER);
    let family = format!("-{}", F::VERSION);
    ip(&format!("{family} route add {} via {} dev out0", net(9), via(1)));
    // To the pod behind a bridge, as it were; its packets are given to the stack.
    ip(&format!("{family} route add {} via {} dev out0", net(5), via(1)));
    // Forwarding heeds a route's MTU only where it is locked.
    ip(&format!("{family} route add {} via {} dev in0 mtu lock {NARROW}", net(4), via(8)));
    ip(&format!("{family} route add unreachable {}", net(98)));
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {message}");
}
