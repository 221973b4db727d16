//! The kernel side for real: loads, attaches, restarts, follows and cleans up, each test in
//! namespaces of its own.

mod flows;
mod world;

use std::fs::DirBuilder;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;

use aya::maps::{Array, HashMap, MapData};
use nodeport_agent::config::{Config, Devices, LocalMode, Mode};
use nodeport_agent::dataplane::status::DeviceMode;
use nodeport_agent::dataplane::{self, Dataplane, Kernel, Op};
use nodeport_common::abi::{
    BACKEND_USABLE, Backend, DEVICE_ATTACHED, DEVICE_POD, Device, Frontend, FrontendKey,
    IPPROTO_TCP, PORT_BACKEND, PORT_FRONTEND,
};
use world::{Elsewhere, World, in_own_world, ip, names, run, until};

fn xdp() -> Option<(DeviceMode, String)> {
    Some((DeviceMode::Xdp, String::new()))
}

fn epoch(world: &World) -> u32 {
    let map = MapData::from_pin(world.pins("a").join("control")).unwrap();
    let map = aya::maps::Map::from_map_data(map).unwrap();
    let control: Array<_, [u8; 64]> = map.try_into().unwrap();
    u32::from_ne_bytes(control.get(&0, 0).unwrap()[..4].try_into().unwrap())
}

fn frontend(port: u16) -> FrontendKey<[u8; 4]> {
    FrontendKey { address: [10, 9, 0, 1], port, protocol: IPPROTO_TCP, pad: 0 }
}

fn some_ops() -> Vec<Op> {
    let backend = Backend {
        address: [10, 0, 0, 9],
        port: 80,
        flags: 0,
        state: BACKEND_USABLE,
        generation: 3,
        pad: 0,
    };
    vec![
        Op::PutBackend4(7, backend),
        Op::WriteSlots { offset: 10, slots: (100..140).collect() },
        Op::PutFrontend4(
            frontend(30_007),
            Frontend { service: 1, slots_offset: 10, slots_len: 40, flags: 0 },
        ),
        Op::SetPort(30_007, PORT_FRONTEND),
        Op::SetPort(10_007, PORT_BACKEND),
        Op::AddNodeAddress4([10, 9, 0, 1]),
        Op::AddNodeAddress6([1; 16]),
        Op::Barrier,
    ]
}

#[test]
fn what_is_written_is_read_and_survives_a_restart() {
    in_own_world(|world| {
        let config = world.config("a", &["n0"]);
        let mut first = dataplane::open(&config).unwrap();
        assert_eq!(first.observe().unwrap(), dataplane::Observed::default());
        let failures = first.apply(&some_ops());
        assert!(failures.is_empty(), "{failures:?}");
        let seen = first.observe().unwrap();
        assert_eq!(seen.backends4.len(), 1);
        assert_eq!(seen.frontends4.len(), 1);
        // The bit of the SNAT range is not the control side's.
        assert_eq!(seen.ports, [(10_007, PORT_BACKEND), (30_007, PORT_FRONTEND)]);
        assert_eq!(first.read_slots(9, 5).unwrap(), [0, 100, 101, 102, 103]);
        assert_eq!(first.read_slots(48, 3).unwrap(), [138, 139, 0]);
        assert_eq!(first.slot_capacity(), 65_536);
        assert!(first.read_slots(65_530, 7).is_err());
        drop(first);
        let mut second = dataplane::open(&config).unwrap();
        assert_eq!(second.observe().unwrap(), seen);
        let failures = second.apply(&[
            Op::RemoveFrontend4(frontend(30_007)),
            Op::RemoveFrontend4(frontend(1)),
            Op::SetPort(30_007, 0),
            Op::SetPort(10_007, 0),
            Op::RemoveNodeAddress4([10, 9, 0, 1]),
            Op::RemoveNodeAddress6([1; 16]),
            Op::PutBackend4(7, Backend::default()),
        ]);
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(second.observe().unwrap(), dataplane::Observed::default());
    });
}

#[test]
fn a_restart_puts_new_programs_into_the_same_links() {
    in_own_world(|world| {
        let config = world.config("a", &["n0"]);
        let first = dataplane::open(&config).unwrap();
        assert_eq!(world.mode("a", "n0"), xdp());
        let (before, epoch_before) = (world.links("a"), epoch(world));
        assert_eq!(before.len(), 3, "{before:?}");
        assert_ne!(epoch_before, 0);
        let error = dataplane::open(&config).unwrap_err().to_string();
        assert!(error.contains("another agent runs"), "{error}");
        drop(first);
        assert!(ip("-d link show n0").contains("prog/xdp"), "stays attached");

        let _second = dataplane::open(&config).unwrap();
        let after = world.links("a");
        for ((name, link, program), (name_now, link_now, program_now)) in before.iter().zip(&after)
        {
            assert_eq!((name, link), (name_now, link_now));
            assert_ne!(program, program_now, "{name} has the new program");
        }
        assert_eq!(before.len(), after.len());
        assert!(epoch(world) > epoch_before);
    });
}

#[test]
fn an_interface_that_vanishes_is_served_again_when_it_comes_back() {
    in_own_world(|world| {
        let config = world.config("a", &["n0"]);
        let agent = dataplane::open(&config).unwrap();
        let before = world.links("a");
        ip("link delete n0");
        let absent = Some((DeviceMode::None, "absent".to_owned()));
        until("n0 is gone", || world.mode("a", "n0") == absent && world.links("a").is_empty());
        world.veth("n0", [10, 9, 0, 1].into());
        until("n0 is served", || world.mode("a", "n0") == xdp());
        assert_ne!(world.links("a"), before);
        drop(agent);

        // The same while the agent is away, and with nobody to come back.
        ip("link delete n0");
        let agent = dataplane::open(&config).unwrap();
        assert_eq!(world.mode("a", "n0"), absent);
        drop(agent);
        world.veth("n0", [10, 9, 0, 1].into());
        let _agent = dataplane::open(&config).unwrap();
        assert_eq!(world.mode("a", "n0"), xdp());
        assert_eq!(world.links("a").len(), 3);
    });
}

#[test]
fn what_others_detach_is_attached_again() {
    in_own_world(|world| {
        let _agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        let before = world.links("a");
        for (name, ..) in &before {
            let pin = world.pins("a").join("links").join(name);
            run("bpftool", &["link", "detach", "pinned", &pin.to_string_lossy()]);
        }
        ip("link set n0 mtu 1400");
        until("all is attached anew", || {
            let now = world.links("a");
            let is_new = |(a, b): (&(_, u32, u32), &(_, u32, u32))| a.1 != b.1;
            now.len() == before.len() && now.iter().zip(&before).all(is_new)
        });
        assert!(ip("-d link show n0").contains("prog/xdp"));
    });
}

#[test]
fn every_change_of_the_way_raises_the_epoch() {
    in_own_world(|world| {
        let _agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        let mut last = settled_epoch(world);
        for change in [
            "route add 10.77.0.0/16 via 10.9.0.2",
            "route delete 10.77.0.0/16 via 10.9.0.2",
            "neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev n0 nud reachable",
            "neighbour change 10.9.0.2 lladdr 02:00:00:00:00:03 dev n0 nud reachable",
            "neighbour delete 10.9.0.2 dev n0",
            "address add 10.9.0.7/24 dev n0",
            "link set n0 mtu 1400",
            "rule add from 10.1.0.0/16 table 100",
        ] {
            ip(change);
            until(change, || epoch(world) > last);
            last = settled_epoch(world);
        }
        ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev n0 nud reachable");
        until("the neighbour is known", || epoch(world) > last);
        last = settled_epoch(world);
        ip("neighbour change 10.9.0.2 lladdr 02:00:00:00:00:02 dev n0 nud stale");
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(epoch(world), last, "a neighbour that stays usable changes nothing");
    });
}

/// The epoch, when it has not been raised for a while: interfaces that come up talk on.
fn settled_epoch(world: &World) -> u32 {
    let mut last = (epoch(world), std::time::Instant::now());
    until("the network is quiet", || {
        let now = epoch(world);
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        last.1.elapsed() > std::time::Duration::from_millis(150)
    });
    last.0
}

#[test]
fn filters_are_replaced_in_place_where_there_are_no_tcx_links() {
    in_own_world(|world| {
        let config = {
            let mut config = world.config("a", &["n0"]);
            config.mode = Mode::Tc;
            config
        };
        let old_kernel = Kernel { tcx: false, fib_source: false };
        let shown = |hook| run("tc", &["filter", "show", "dev", "n0", hook]);
        let program = |text: &str| {
            let (_, rest) = text.split_once(" id ").unwrap();
            rest.split(' ').next().unwrap().to_owned()
        };
        run("tc", &["qdisc", "add", "dev", "n0", "clsact"]);
        drop(dataplane::open_on(&config, old_kernel).unwrap());
        assert_eq!(world.mode("a", "n0"), Some((DeviceMode::Tc, "chosen".to_owned())));
        let before = [shown("ingress"), shown("egress")];
        drop(dataplane::open_on(&config, old_kernel).unwrap());
        let after = [shown("ingress"), shown("egress")];
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.matches("nodeport_").count(), before.matches("nodeport_").count());
            assert_ne!(program(before), program(after));
        }
        let removed = dataplane::cleanup(&world.instance("a")).unwrap();
        assert!(removed.iter().any(|line| line.contains("ingress filter of n0")), "{removed:?}");
        assert_eq!([shown("ingress"), shown("egress")], ["", ""]);
        assert!(run("tc", &["qdisc", "show", "dev", "n0"]).contains("clsact"), "not ours");
    });
}

#[test]
fn filters_that_vanish_are_attached_again() {
    in_own_world(|world| {
        let mut config = world.config("a", &["n0"]);
        config.mode = Mode::Tc;
        let old_kernel = Kernel { tcx: false, fib_source: false };
        let _agent = dataplane::open_on(&config, old_kernel).unwrap();
        let count =
            |hook| run("tc", &["filter", "show", "dev", "n0", hook]).matches("nodeport_").count();
        let before = [count("ingress"), count("egress")];
        run("tc", &["qdisc", "delete", "dev", "n0", "clsact"]);
        ip("link set n0 mtu 1400");
        until("the filters are back", || {
            let is_there = run("tc", &["qdisc", "show", "dev", "n0"]).contains("clsact");
            is_there && [count("ingress"), count("egress")] == before
        });
        assert!(before.iter().all(|count| *count > 0));
    });
}

#[test]
fn of_interfaces_that_were_not_named_one_may_fail() {
    in_own_world(|world| {
        world.veth("n1", [10, 8, 0, 1].into());
        let _other = dataplane::open(&world.config("other", &["n1"])).unwrap();
        let mut config = world.config("a", &[]);
        (config.devices, config.mode) = (Devices::Auto, Mode::Xdp);
        let _agent = dataplane::open(&config).unwrap();
        assert_eq!(world.mode("a", "n0"), xdp());
        assert_eq!(world.mode("a", "n1"), Some((DeviceMode::None, "failed".to_owned())));

        let _third = dataplane::open(&world.config("b", &["n0"])).unwrap();
        let mut config = world.config("c", &[]);
        (config.devices, config.mode) = (Devices::Auto, Mode::Xdp);
        let error = format!("{:#}", dataplane::open(&config).unwrap_err());
        assert!(error.contains("--mode xdp"), "{error}");
    });
}

#[test]
fn a_served_interface_finds_room_among_too_many() {
    in_own_world(|world| {
        let _agent = dataplane::open(&world.config("a", &["n0", "n1"])).unwrap();
        let map = MapData::from_pin(world.pins("a").join("devices")).unwrap();
        let map = aya::maps::Map::from_map_data(map).unwrap();
        let mut devices: HashMap<_, u32, [u8; size_of::<Device>()]> = map.try_into().unwrap();
        let full = (1_000_000..)
            .find_map(|ifindex| devices.insert(ifindex, [0; size_of::<Device>()], 0).err());
        assert!(full.is_some());
        world.veth("n1", [10, 8, 0, 1].into());
        until("n1 is served", || world.mode("a", "n1") == xdp());
        let ifindex = world.device("a", "n1").unwrap().ifindex;
        let flags = u32::from_ne_bytes(devices.get(&ifindex, 0).unwrap()[..4].try_into().unwrap());
        assert_eq!(flags & DEVICE_ATTACHED, DEVICE_ATTACHED);
    });
}

#[test]
fn another_xdp_program_is_named_and_respected() {
    in_own_world(|world| {
        let other = dataplane::open(&world.config("other", &["n0"])).unwrap();
        let mut config = world.config("a", &["n0"]);
        config.mode = Mode::Xdp;
        let error = format!("{:#}", dataplane::open(&config).unwrap_err());
        assert!(error.contains("(nodeport_xdp) is attached"), "{error}");
        assert!(error.contains("--mode auto"), "{error}");
        assert!(!world.pins("a").exists());
        config.mode = Mode::Auto;
        let _agent = dataplane::open(&config).unwrap();
        assert_eq!(world.mode("a", "n0"), Some((DeviceMode::Tc, "busy".to_owned())));
        assert_eq!(world.mode("other", "n0"), xdp());
        drop(other);
        dataplane::cleanup(&world.instance("other")).unwrap();
        ip("link set n0 mtu 1400");
        until("the better hook is taken", || world.mode("a", "n0") == xdp());
    });
}

#[test]
fn what_fails_leaves_nothing_half_attached() {
    in_own_world(|world| {
        world.veth("n1", [10, 8, 0, 1].into());
        let _other = dataplane::open(&world.config("other", &["n1"])).unwrap();
        let mut config = world.config("a", &["n0", "n1"]);
        config.mode = Mode::Xdp;
        dataplane::open(&config).unwrap_err();
        assert!(!ip("-d link show n0").contains("xdp"));
        assert!(!run("bpftool", &["net", "show"]).contains("n0("));
        assert!(!world.pins("a").exists());

        let error = format!("{:#}", dataplane::open(&world.config("a", &["n9"])).unwrap_err());
        assert!(error.contains("no interface n9") && error.contains("n0"), "{error}");
        assert!(!world.pins("a").exists());
    });
}

#[test]
fn a_change_of_the_mode_is_followed_by_a_restart() {
    in_own_world(|world| {
        let mut config = world.config("a", &["n0"]);
        drop(dataplane::open(&config).unwrap());
        config.mode = Mode::Tc;
        drop(dataplane::open(&config).unwrap());
        assert_eq!(world.mode("a", "n0"), Some((DeviceMode::Tc, "chosen".to_owned())));
        assert_eq!(world.links("a").len(), 2);
        assert!(!ip("-d link show n0").contains("xdp"));
        world.veth("n1", [10, 8, 0, 1].into());
        config.devices = nodeport_agent::config::Devices::Named(vec!["n1".to_owned()]);
        drop(dataplane::open(&config).unwrap());
        assert!(!run("bpftool", &["net", "show"]).contains("n0("), "n0 is not named any more");
    });
}

#[test]
fn cleanup_leaves_nothing_and_may_be_repeated() {
    in_own_world(|world| {
        let agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        let error = dataplane::cleanup(&world.instance("a")).unwrap_err().to_string();
        assert!(error.contains("stop it first"), "{error}");
        drop(agent);
        let removed = dataplane::cleanup(&world.instance("a")).unwrap();
        assert!(removed.len() > 20, "{removed:?}");
        // The kernel puts two files of its own there.
        let left = names(&world.bpffs()).into_iter().filter(|name| !name.ends_with(".debug"));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
        assert!(!world.run_dir("a").exists());
        assert!(!ip("-d link show n0").contains("xdp"));
        assert!(!run("bpftool", &["net", "show"]).contains("nodeport"));
        assert_eq!(dataplane::cleanup(&world.instance("a")).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_full_map_is_named_and_the_rest_goes_on() {
    in_own_world(|world| {
        let mut agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        let mut ops: Vec<Op> = (0..=u16::MAX)
            .map(|port| Op::PutFrontend4(frontend(port), Frontend::default()))
            .collect();
        ops.push(Op::PutFrontend4(
            FrontendKey { address: [10, 9, 0, 2], ..frontend(80) },
            Frontend::default(),
        ));
        ops.push(Op::AddNodeAddress4([10, 9, 0, 1]));
        let failures = agent.apply(&ops);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].index, 65_536);
        let error = failures[0].error.to_string();
        assert!(
            error.contains("frontends4 is full") && error.contains("10.9.0.2:80 TCP"),
            "{error}"
        );
        assert_eq!(agent.observe().unwrap().node_addresses4, [[10, 9, 0, 1]]);
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused() {
    in_own_world(|world| {
        let folder = world.pins("a");
        DirBuilder::new().recursive(true).mode(0o700).create(folder.join("links")).unwrap();
        let map: Array<_, u32> = Array::create(1, 0).unwrap();
        map.pin(folder.join("control")).unwrap();
        let error = format!("{:#}", dataplane::open(&world.config("a", &["n0"])).unwrap_err());
        assert!(error.contains("control is another than this agent's"), "{error}");
        assert!(error.contains("cleanup"), "{error}");
    });
}

fn pod() -> Option<(DeviceMode, String)> {
    Some((DeviceMode::Pod, String::new()))
}

/// What the programs are told of an interface.
fn flags(world: &World, ifindex: u32) -> u32 {
    let map = MapData::from_pin(world.pins("a").join("devices")).unwrap();
    let map = aya::maps::Map::from_map_data(map).unwrap();
    let devices: HashMap<_, u32, [u8; size_of::<Device>()]> = map.try_into().unwrap();
    let device = devices.get(&ifindex, 0).unwrap_or([0; size_of::<Device>()]);
    u32::from_ne_bytes(device[..4].try_into().unwrap())
}

fn links_to_pods(world: &World) -> usize {
    world.links("a").iter().filter(|(name, _, _)| name.contains("_pod_")).count()
}

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
fn pods_veths_get_filters_where_there_are_no_tcx_links() {
    in_own_world(|world| {
        let there = Elsewhere::new();
        there.veth("pod0");
        let mut config = world.config("a", &["n0"]);
        config.mode = Mode::Tc;
        let old_kernel = Kernel { tcx: false, fib_source: false };
        let count = || {
            let shown = run("tc", &["filter", "show", "dev", "pod0", "ingress"]);
            shown.matches("nodeport_pod").count()
        };
        let agent = dataplane::open_on(&config, old_kernel).unwrap();
        let too_new = Some((DeviceMode::None, "too_new".to_owned()));
        assert_eq!((world.mode("a", "pod0"), count()), (too_new, 0), "its plugin may be at work");
        until("pod0 has settled", || world.mode("a", "pod0") == pod());
        let once = count();
        assert!(once > 0);
        drop(agent);
        let agent = dataplane::open_on(&config, old_kernel).unwrap();
        assert_eq!(world.mode("a", "pod0"), pod(), "at once, as the filter is there");
        assert_eq!(count(), once, "replaced in place");
        run("tc", &["qdisc", "delete", "dev", "pod0", "clsact"]);
        until("the filter is back", || count() == once);
        ip("link add br0 type bridge");
        ip("link set pod0 master br0");
        until("pod0 is a bridge's", || world.mode("a", "pod0").is_none());
        assert_eq!(count(), 0);
        ip("link set pod0 nomaster");
        until("pod0 is a pod's again", || world.mode("a", "pod0") == pod());
        assert_eq!(count(), once);
        drop(agent);
        let removed = dataplane::cleanup(&world.instance("a")).unwrap();
        assert!(removed.iter().any(|line| line.contains("filter of pod0")), "{removed:?}");
        assert_eq!(count(), 0);
    });
}

/// Ids of the programs in our filters at that side of an interface.
fn filters(device: &str, side: &str) -> Vec<String> {
    let shown = run("tc", &["filter", "show", "dev", device, side]);
    let words: Vec<&str> = shown.split_whitespace().collect();
    let ids = words.windows(2).filter(|pair| pair[0] == "id").map(|pair| pair[1].to_owned());
    ids.filter(|_| shown.contains("nodeport_")).collect()
}

#[test]
fn filters_that_a_run_before_has_left_are_adopted_or_removed() {
    in_own_world(|world| {
        let there = Elsewhere::new();
        ["pod0", "pod1"].iter().for_each(|name| there.veth(name));
        world.veth("n1", Ipv4Addr::new(10, 9, 1, 1));
        let old_kernel = Kernel { tcx: false, fib_source: false };
        let mut config = Config { mode: Mode::Tc, ..world.config("a", &["n0", "n1"]) };
        let agent = dataplane::open_on(&config, old_kernel).unwrap();
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
        let agent = dataplane::open_on(&config, old_kernel).unwrap();
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
