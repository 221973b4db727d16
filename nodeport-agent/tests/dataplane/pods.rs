//! Programs at pods' veths.

use nodeport_agent::config::LocalMode;
use nodeport_agent::dataplane;
use nodeport_agent::dataplane::status::DeviceMode;
use nodeport_common::abi::DEVICE_POD;

use crate::look::{epoch, flags, links_to_pods, pod};
use crate::world::{Elsewhere, in_own_world, ip, run, until};

#[test]
fn pods_veths_are_followed_while_they_come_and_go() {
    in_own_world(|world| {
        let there = Elsewhere::new();
        let config = world.config("a", &["n0"]);
        let agent = dataplane::open(&config).unwrap();
        there.veth("pod0");
        until("pod0 is followed", || world.mode("a", "pod0") == pod());
        let ifindex = world.device("a", "pod0").unwrap().ifindex;
        assert_eq!((flags(world, ifindex), links_to_pods(world)), (DEVICE_POD, 1));
        assert_eq!(world.mode("a", "n0p"), None, "its other end is here");

        ip("link add br0 type bridge");
        ip("link set pod0 master br0");
        until("pod0 is a bridge's", || world.mode("a", "pod0").is_none());
        assert_eq!((flags(world, ifindex), links_to_pods(world)), (0, 0));
        ip("link set pod0 nomaster");
        until("pod0 is a pod's again", || world.mode("a", "pod0") == pod());
        let before = world.links("a");
        drop(agent);

        // One goes and another comes while nobody looks.
        there.veth("pod1");
        let agent = dataplane::open(&config).unwrap();
        assert_eq!((world.mode("a", "pod0"), world.mode("a", "pod1")), (pod(), pod()));
        assert_eq!(world.links("a").len(), before.len() + 1);
        drop(agent);
        ip("link delete pod0");
        let agent = dataplane::open(&config).unwrap();
        assert_eq!((world.mode("a", "pod0"), links_to_pods(world)), (None, 1));
        assert_eq!(flags(world, ifindex), 0);
        ip("link delete pod1");
        until("pod1 is gone", || world.mode("a", "pod1").is_none());
        assert_eq!(links_to_pods(world), 0);
        drop(agent);
    });
}

#[test]
fn by_the_users_wish_only_flows_that_are_fast_already_are_served_at_veths() {
    in_own_world(|world| {
        let there = Elsewhere::new();
        there.veth("pod0");
        let mut config = world.config("a", &["n0"]);
        config.local_mode = LocalMode::Slow;
        drop(dataplane::open(&config).unwrap());
        assert_eq!((world.mode("a", "pod0"), links_to_pods(world)), (None, 0));
        config.local_mode = LocalMode::Auto;
        drop(dataplane::open(&config).unwrap());
        let before = world.links("a");
        config.local_mode = LocalMode::Slow;
        let _agent = dataplane::open(&config).unwrap();
        let old = Some((DeviceMode::Pod, "old_flows".to_owned()));
        assert_eq!(world.mode("a", "pod0"), old);
        for ((name, link, program), (_, link_now, program_now)) in
            before.iter().zip(&world.links("a"))
        {
            assert_eq!(link, link_now, "{name}");
            assert_ne!(program, program_now, "{name} has the new program");
        }
        let ifindex = world.device("a", "pod0").unwrap().ifindex;
        assert_eq!(flags(world, ifindex), 0);
        let before = epoch(world);
        there.veth("pod1");
        until("pod1 is seen", || epoch(world) > before);
        assert_eq!((world.mode("a", "pod1"), links_to_pods(world)), (None, 1));
    });
}

#[test]
fn where_others_have_a_hand_in_a_pods_veth_new_flows_are_slow() {
    in_own_world(|world| {
        let there = Elsewhere::new();
        there.veth("pod0");
        let _agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        let ifindex = world.device("a", "pod0").unwrap().ifindex;
        assert_eq!((world.mode("a", "pod0"), flags(world, ifindex)), (pod(), DEVICE_POD));
        let others = |mode| Some((mode, "others".to_owned()));

        run("tc", &["qdisc", "add", "dev", "pod0", "root", "pfifo"]);
        until("the queue is seen", || world.mode("a", "pod0") == others(DeviceMode::Pod));
        assert_eq!((flags(world, ifindex), links_to_pods(world)), (0, 1));
        run("tc", &["qdisc", "delete", "dev", "pod0", "root"]);
        until("the queue is gone", || world.mode("a", "pod0") == pod());

        run("tc", &["qdisc", "add", "dev", "pod0", "clsact"]);
        let filter = ["bpf", "bytecode", "1,6 0 0 4294967295,", "flowid", "1:1"];
        run("tc", &[&["filter", "add", "dev", "pod0", "egress"][..], &filter].concat());
        until("the filter is seen", || world.mode("a", "pod0") == others(DeviceMode::Pod));
        run("tc", &["qdisc", "delete", "dev", "pod0", "clsact"]);
        until("the filter is gone", || world.mode("a", "pod0") == pod());
    });
}
