//! Filters of traffic control, where the kernel has no TCX links.

use std::net::Ipv4Addr;

use nodeport_agent::config::{Config, Devices, LocalMode, Mode};
use nodeport_agent::dataplane::status::DeviceMode;
use nodeport_agent::dataplane::{self, Kernel};
use nodeport_common::abi::DEVICE_POD;

use crate::look::{flags, pod};
use crate::world::{Elsewhere, in_own_world, ip, run, until};

/// A kernel from before TCX links (6.6).
const OLD_KERNEL: Kernel = Kernel { tcx: false, fib_source: false };

#[test]
fn filters_are_replaced_in_place_where_there_are_no_tcx_links() {
    in_own_world(|world| {
        let config = Config { mode: Mode::Tc, ..world.config("a", &["n0"]) };
        let ours = || ["ingress", "egress"].map(|side| filters("n0", side));
        run("tc", &["qdisc", "add", "dev", "n0", "clsact"]);
        drop(dataplane::open_on(&config, OLD_KERNEL).unwrap());
        assert_eq!(world.mode("a", "n0"), Some((DeviceMode::Tc, "chosen".to_owned())));
        let before = ours();
        drop(dataplane::open_on(&config, OLD_KERNEL).unwrap());
        for (before, after) in before.iter().zip(&ours()) {
            assert_eq!((before.len(), after.len()), (1, 1), "{before:?}, {after:?}");
            assert_ne!(before, after);
        }
        let removed = dataplane::cleanup(&world.instance("a")).unwrap();
        assert!(removed.iter().any(|line| line.contains("ingress filter of n0")), "{removed:?}");
        assert_eq!(["ingress", "egress"].map(|side| shown("n0", side)), ["", ""]);
        assert!(run("tc", &["qdisc", "show", "dev", "n0"]).contains("clsact"), "not ours");
    });
}

#[test]
fn filters_that_vanish_are_attached_again() {
    in_own_world(|world| {
        let config = Config { mode: Mode::Tc, ..world.config("a", &["n0"]) };
        let _agent = dataplane::open_on(&config, OLD_KERNEL).unwrap();
        let count = || ["ingress", "egress"].map(|side| filters("n0", side).len());
        assert_eq!(count(), [1, 1]);
        run("tc", &["qdisc", "delete", "dev", "n0", "clsact"]);
        ip("link set n0 mtu 1400");
        until("the filters are back", || {
            let is_there = run("tc", &["qdisc", "show", "dev", "n0"]).contains("clsact");
            is_there && count() == [1, 1]
        });
    });
}

#[test]
fn pods_veths_get_filters_where_there_are_no_tcx_links() {
    in_own_world(|world| {
        let there = Elsewhere::new();
        there.veth("pod0");
        let config = Config { mode: Mode::Tc, ..world.config("a", &["n0"]) };
        let count = || filters("pod0", "ingress").len();
        let agent = dataplane::open_on(&config, OLD_KERNEL).unwrap();
        let too_new = Some((DeviceMode::None, "too_new".to_owned()));
        assert_eq!((world.mode("a", "pod0"), count()), (too_new, 0), "its plugin may be at work");
        until("pod0 has settled", || world.mode("a", "pod0") == pod());
        assert_eq!(count(), 1);
        drop(agent);
        let agent = dataplane::open_on(&config, OLD_KERNEL).unwrap();
        assert_eq!(world.mode("a", "pod0"), pod(), "at once, as the filter is there");
        assert_eq!(count(), 1, "replaced in place");
        run("tc", &["qdisc", "delete", "dev", "pod0", "clsact"]);
        until("the filter is back", || count() == 1);
        ip("link add br0 type bridge");
        ip("link set pod0 master br0");
        until("pod0 is a bridge's", || world.mode("a", "pod0").is_none());
        assert_eq!(count(), 0);
        ip("link set pod0 nomaster");
        until("pod0 is a pod's again", || world.mode("a", "pod0") == pod());
        assert_eq!(count(), 1);
        drop(agent);
        let removed = dataplane::cleanup(&world.instance("a")).unwrap();
        assert!(removed.iter().any(|line| line.contains("filter of pod0")), "{removed:?}");
        assert_eq!(count(), 0);
    });
}

#[test]
fn filters_that_a_run_before_has_left_are_adopted_or_removed() {
    in_own_world(|world| {
        let there = Elsewhere::new();
        ["pod0", "pod1"].iter().for_each(|name| there.veth(name));
        world.veth("n1", Ipv4Addr::new(10, 9, 1, 1));
        let mut config = Config { mode: Mode::Tc, ..world.config("a", &["n0", "n1"]) };
        let agent = dataplane::open_on(&config, OLD_KERNEL).unwrap();
        let both = || ["pod0", "pod1"].map(|name| world.mode("a", name));
        until("both have settled", || both() == [pod(), pod()]);
        drop(agent);
        let before = filters("pod0", "ingress");
        assert_eq!((before.len(), filters("n1", "egress").len()), (1, 1));

        // One is a bridge's while nobody looks, n1 is served no more, and new flows shall be slow.
        ip("link add br0 type bridge");
        ip("link set pod1 master br0");
        config.local_mode = LocalMode::Slow;
        config.devices = Devices::Named(vec!["n0".to_owned()]);
        there.veth("pod2");
        let agent = dataplane::open_on(&config, OLD_KERNEL).unwrap();
        let old = Some((DeviceMode::Pod, "old_flows".to_owned()));
        assert_eq!(both(), [old.clone(), None]);
        let after = filters("pod0", "ingress");
        assert!(after.len() == 1 && after != before, "{after:?} has the new program");
        for (device, side) in
            [("pod1", "ingress"), ("pod2", "ingress"), ("n1", "ingress"), ("n1", "egress")]
        {
            assert_eq!(filters(device, side).len(), 0, "{device} {side}");
        }
        assert_eq!(filters("n0", "egress").len(), 1);
        let ifindex = world.device("a", "pod0").unwrap().ifindex;
        assert_eq!(flags(world, ifindex) & DEVICE_POD, 0);

        // Flows that are fast are served, whoever takes the filter away.
        run("tc", &["qdisc", "delete", "dev", "pod0", "clsact"]);
        until("the filter is back", || filters("pod0", "ingress").len() == 1);
        assert_eq!(world.mode("a", "pod0"), old);
        drop(agent);
    });
}

/// Ids of the programs in our filters at that side of an interface.
fn filters(device: &str, side: &str) -> Vec<String> {
    let shown = shown(device, side);
    let words: Vec<&str> = shown.split_whitespace().collect();
    let ids = words.windows(2).filter(|pair| pair[0] == "id").map(|pair| pair[1].to_owned());
    ids.filter(|_| shown.contains("nodeport_")).collect()
}

fn shown(device: &str, side: &str) -> String {
    run("tc", &["filter", "show", "dev", device, side])
}
