//! Programs at the interfaces that are served: at the best hook, kept by restarts, never half there.

use aya::maps::{HashMap, MapData};
use nodeport_agent::config::{Devices, Mode};
use nodeport_agent::dataplane;
use nodeport_agent::dataplane::status::DeviceMode;
use nodeport_common::abi::{DEVICE_ATTACHED, Device};

use crate::look::{epoch, xdp};
use crate::world::{in_own_world, ip, names, run, until};

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
        config.devices = Devices::Named(vec!["n1".to_owned()]);
        drop(dataplane::open(&config).unwrap());
        assert!(!run("bpftool", &["net", "show"]).contains("n0("), "n0 is not named any more");
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
