//! Ports are kept free of the node's own connections, in the kernel's own settings.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nodeport_agent::dataplane::{self, Dataplane as _};

use crate::world::{World, in_own_world, until};

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const NOTE: &str = "reserved-ports.json";

/// The kernel gives away 10,050 to 30,009: half of the world's SNAT ports, and ten nodePorts.
fn prepare() {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10050 30009").unwrap();
    fs::write(RESERVED, "10060-10069,12345").unwrap();
}

fn reserved() -> String {
    fs::read_to_string(RESERVED).unwrap().trim().to_owned()
}

fn note(world: &World) -> bool {
    world.run_dir("a").join(NOTE).exists()
}

#[test]
fn what_overlaps_is_reserved_while_the_instance_is_there() {
    in_own_world(|world| {
        prepare();
        let agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        assert_eq!(reserved(), "10050-10099,12345,30000-30009");
        // The kernel keeps its word: of what it gives away, nothing is ours.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10050 10101").unwrap();
        let ports: Vec<u16> = (0..20)
            .map_while(|_| TcpListener::bind("0.0.0.0:0").ok())
            .map(|socket| socket.local_addr().unwrap().port())
            .collect();
        let is_free = |port: &u16| (10_100..=10_101).contains(port);
        assert!(!ports.is_empty() && ports.iter().all(is_free), "{ports:?}");
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10050 30009").unwrap();
        // The agent goes, the programs stay, and so do the ports: also by a new agent.
        drop(agent);
        assert_eq!(reserved(), "10050-10099,12345,30000-30009");
        drop(dataplane::open(&world.config("a", &["n0"])).unwrap());
        let removed = dataplane::cleanup(&world.instance("a")).unwrap();
        let line = "removed 10050-10059,10070-10099,30000-30009 from";
        assert!(removed.iter().any(|removed| removed.starts_with(line)), "{removed:?}");
        assert_eq!(reserved(), "10060-10069,12345");
        assert!(!note(world) && !world.run_dir("a").exists());
    });
}

#[test]
fn where_nothing_overlaps_nothing_is_touched() {
    in_own_world(|world| {
        fs::write(RESERVED, "12345").unwrap();
        let agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        assert_eq!(reserved(), "12345");
        assert!(!note(world));
        assert_eq!(agent.port_report().unreserved, None);
    });
}

#[test]
fn where_the_setting_cannot_be_written_it_is_said_what_to_type() {
    in_own_world(|world| {
        prepare();
        let (file, none) = (Path::new(RESERVED), None::<&str>);
        mount(Some(file), file, none, MsFlags::MS_BIND, none).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, file, none, flags, none).unwrap();
        let agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
        until("it is said", || agent.port_report().unreserved.is_some());
        let said = agent.port_report().unreserved.clone().unwrap();
        let typed = "sysctl -w net.ipv4.ip_local_reserved_ports=10050-10099,12345,30000-30009";
        assert!(said.contains(typed) && said.contains("port 10050"), "{said}");
        assert_eq!(reserved(), "10060-10069,12345");
        drop(agent);
        assert!(!note(world), "nothing was changed");
        dataplane::cleanup(&world.instance("a")).unwrap();
    });
}
