//! Flows that are there: which of them expire, and how they are shown.

use std::process::Command;

use aya::maps::{Array, Map, MapData};
use nodeport_agent::dataplane::{self, Dataplane, Op};
use nodeport_common::abi::{
    BACKEND_USABLE, Backend, Exit, FLOW_REPLY, Flow, FlowDetails, FlowEntry4, FlowKey, FlowState,
    HOP_SEND, Heap, IPPROTO_TCP, IPPROTO_UDP, IndexLine, NextHop, Plain, Ports,
};
use nodeport_common::core::family::V4;
use nodeport_common::core::flow::{partner, partner_key};
use nodeport_common::core::table::half::{details, key_hash, put, status, unpack};
use nodeport_common::core::table::slot::{Place, Slot};

use crate::world::{World, in_own_world, until};

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Wire<T>(T);

// SAFETY: as its original in the agent: `Plain` types have no padding and take every bit pattern.
unsafe impl<T: Plain> aya::Pod for Wire<T> {}

type Key = FlowKey<[u8; 4]>;
type Half = Flow<[u8; 4]>;

const GENERATION: u32 = 5;

/// Entries that the tests use.
const ENTRIES: u32 = 64;

type Shared<T> = Array<MapData, Wire<T>>;

/// The agent's table of IPv4 flows.
struct Table {
    heap: Shared<Heap>,
    index: Shared<IndexLine>,
    flows: Shared<FlowEntry4>,
    details: Shared<FlowDetails>,
    exits: Shared<Exit>,
}

impl Table {
    fn open(world: &World) -> Self {
        fn array<T: Plain>(world: &World, name: &str) -> Shared<T> {
            let map = MapData::from_pin(world.pins("a").join(name)).unwrap();
            Array::try_from(Map::from_map_data(map).unwrap()).unwrap()
        }
        Self {
            heap: array(world, "heap"),
            index: array(world, "index4"),
            flows: array(world, "flows4"),
            details: array(world, "details4"),
            exits: array(world, "exits"),
        }
    }

    /// Puts a half where a packet would.
    fn insert(&mut self, key: &Key, half: &Half) {
        let mut heap = self.heap.get(&0, 0).unwrap().0;
        let number = heap.first as u32;
        heap.first += 1;
        self.heap.set(0, Wire(heap), 0).unwrap();
        let mut half = *half;
        let is_exit = |number: &u16| {
            self.exits.get(&u32::from(*number), 0).unwrap().0.ifindex == half.hop.ifindex
        };
        half.hop.exit = (1..64).find(is_exit).unwrap_or(0);
        let status = status(&half, key.protocol);
        let mut entry = FlowEntry4 {
            epoch: status.epoch,
            mtu: status.mtu,
            state: status.state,
            flags: status.flags,
            ..FlowEntry4::default()
        };
        put(&mut entry, key, &half);
        self.flows.set(number, Wire(entry), 0).unwrap();
        self.details.set(number, Wire(details(&half, 0)), 0).unwrap();
        let place = Place::new(key_hash::<V4>(key, heap.seed), heap.lines);
        let mut line = self.index.get(&place.first(), 0).unwrap().0;
        let free = line.iter_mut().find(|slot| **slot == 0).expect("a line with room");
        *free = Slot::new(number, place.tag()).word();
        self.index.set(place.first(), Wire(line), 0).unwrap();
    }

    fn has(&self, key: &Key) -> bool {
        (0..ENTRIES).any(|number| {
            let entry = self.flows.get(&number, 0).unwrap().0;
            entry.state != 0 && unpack(&entry, &FlowDetails::default()).0 == *key
        })
    }
}

/// Jiffies, low 32 bits.
fn now() -> u32 {
    let text = std::fs::read_to_string("/proc/timer_list").unwrap();
    let jiffies = text.lines().find_map(|line| line.strip_prefix("jiffies: ")).unwrap();
    jiffies.parse::<u64>().unwrap() as u32
}

fn hz() -> u32 {
    let world_clock = (now(), std::time::Instant::now());
    std::thread::sleep(std::time::Duration::from_millis(300));
    let ticks = f64::from(now().wrapping_sub(world_clock.0));
    (ticks / world_clock.1.elapsed().as_secs_f64()).round() as u32
}

/// The client's half of a flow from a port, last seen then.
fn flow(port: u16, protocol: u8, state: FlowState, last_seen: u32) -> (Key, Half) {
    let key = FlowKey {
        src: [10, 1, 0, 1],
        dst: [10, 9, 0, 1],
        ports: Ports::new(port, 30_007),
        protocol,
        pad: [0; 3],
    };
    let hop =
        NextHop { kind: HOP_SEND, ifindex: 1, dst_mac: [2, 0, 0, 0, 0, 9], ..NextHop::UNRESOLVED };
    let half = Flow {
        new_src: [10, 9, 0, 1],
        new_dst: [10, 9, 0, 5],
        new_ports: Ports::new(port - 10_000, 80),
        hop,
        backend: 7,
        generation: GENERATION,
        service: 1,
        last_seen,
        created: last_seen,
        state: state as u8,
        packets: 3,
        bytes: 300,
        ..Flow::default()
    };
    (key, half)
}

fn agent(world: &World) -> dataplane::Bpf {
    let mut agent = dataplane::open(&world.config("a", &["n0"])).unwrap();
    let backend = Backend {
        address: [10, 9, 0, 5],
        port: 80,
        state: BACKEND_USABLE,
        generation: GENERATION,
        ..Backend::default()
    };
    assert!(agent.apply(&[Op::PutBackend4(7, backend)]).is_empty());
    agent
}

#[test]
fn what_was_silent_too_long_goes_with_its_partner_and_nothing_else() {
    in_own_world(|world| {
        let _agent = agent(world);
        let (now, long_ago) = (now(), now().wrapping_sub(200 * hz()));
        let mut flows = Table::open(world);
        let pair = |table: &mut Table, (key, half): (Key, Half), partner_seen: u32| {
            let other = Flow { last_seen: partner_seen, ..partner(&key, &half) };
            let other_key = partner_key(&key, &half);
            table.insert(&key, &half);
            table.insert(&other_key, &other);
            [key, other_key]
        };
        let established = |port, seen| flow(port, IPPROTO_TCP, FlowState::Established, seen);

        let both_silent = pair(&mut flows, established(20_000, long_ago), long_ago);
        let silent_udp =
            pair(&mut flows, flow(20_001, IPPROTO_UDP, FlowState::Established, long_ago), long_ago);
        let unanswered =
            pair(&mut flows, flow(20_002, IPPROTO_TCP, FlowState::Opening, long_ago), long_ago);
        // Whose backend is gone: a connection waits until its client can be told.
        let gone = |(key, half)| (key, Flow { generation: GENERATION - 1, ..half });
        let datagrams = flow(20_003, IPPROTO_UDP, FlowState::Established, now);
        let stale = pair(&mut flows, gone(datagrams), now);
        let waits = pair(&mut flows, gone(established(20_007, now)), now);
        let both_alive = pair(&mut flows, established(20_004, now), now);
        let one_alive = pair(&mut flows, established(20_005, long_ago), now);
        let (alone, half) = established(20_006, now);
        flows.insert(&alone, &half);

        let keys = |pairs: &[[Key; 2]]| pairs.concat();
        until("what is over is gone", || {
            let over = keys(&[both_silent, silent_udp, unanswered, stale]);
            !over.iter().any(|key| flows.has(key))
        });
        for key in keys(&[both_alive, one_alive, waits]).iter().chain([&alone]) {
            assert!(flows.has(key), "{key:?}");
        }
    });
}

#[test]
fn both_halves_of_a_flow_are_shown_as_one() {
    in_own_world(|world| {
        let _agent = agent(world);
        let mut flows = Table::open(world);
        let (key, half) = flow(20_000, IPPROTO_TCP, FlowState::Established, now());
        flows.insert(&key, &half);
        let reply = Flow { packets: 2, bytes: 2_000, ..partner(&key, &half) };
        flows.insert(&partner_key(&key, &half), &reply);
        // Of this one only the backend's half is left.
        let (lost, half) = flow(20_001, IPPROTO_TCP, FlowState::Established, now());
        let left = Flow { packets: 9, ..partner(&lost, &half) };
        assert_eq!(left.flags & FLOW_REPLY, FLOW_REPLY);
        flows.insert(&partner_key(&lost, &half), &left);

        let shown = ask(world, &["flows", "-o", "json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let [one, two] = &shown.as_array().unwrap()[..] else { panic!("{shown}") };
        for (field, value) in [
            ("client", "10.1.0.1:20000"),
            ("frontend", "10.9.0.1:30007"),
            ("backend", "10.9.0.5:80"),
            ("source", "10.9.0.1:10000"),
            ("state", "established"),
            ("protocol", "TCP"),
            ("service", "#1"),
        ] {
            assert_eq!(one[field], value, "{one}");
        }
        assert_eq!(
            (&one["packets_to_backend"], &one["bytes_to_client"]),
            (&3.into(), &2_000.into())
        );
        assert_eq!(one["to_backend"]["mode"], "send");
        assert_eq!(one["to_backend"]["interface"], "lo");
        assert_eq!(one["to_backend"]["mac"], "02:00:00:00:00:09");
        assert_eq!(two["client"], "10.1.0.1:20001");
        assert_eq!((&two["packets_to_backend"], &two["packets_to_client"]), (&0.into(), &9.into()));

        let table = ask(world, &["flows"]);
        assert!(table.contains("10.1.0.1:20000") && table.contains("send lo"), "{table}");
        let backends = ask(world, &["backends", "-o", "json"]);
        let backends: serde_json::Value = serde_json::from_str(&backends).unwrap();
        assert_eq!(
            (&backends[0]["flows"], &backends[0]["packets_to_client"]),
            (&1.into(), &11.into())
        );
    });
}

#[test]
fn the_status_tells_how_interfaces_are_served_also_without_an_agent() {
    in_own_world(|world| {
        let agent = agent(world);
        let status = |is_running: bool| {
            let text = ask(world, &["status", "-o", "json"]);
            let status: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(status["agent"].is_null(), !is_running, "{text}");
            assert_eq!(status["devices"][0]["name"], "n0");
            assert_eq!(status["devices"][0]["mode"], "xdp");
            assert_eq!(status["programs"].as_array().unwrap().len(), 3);
            let counters = status["counters"].as_array().unwrap();
            assert_eq!(counters.len(), nodeport_common::abi::Reason::ALL.len());
        };
        status(true);
        drop(agent);
        status(false);
        assert!(ask(world, &["status"]).contains("not running"));
        dataplane::cleanup(&world.instance("a")).unwrap();
        let output = command(world, &["status"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("--instance"), "{error}");
    });
}

fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeport-agent"));
    command.args(["--instance", "a", "--bpffs"]).arg(world.bpffs());
    command.arg("--run-dir").arg(world.run_dir("a")).args(arguments);
    command
}

fn ask(world: &World, arguments: &[&str]) -> String {
    let output = command(world, arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
