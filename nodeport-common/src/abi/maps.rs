//! Every map: its name (at most 15 characters, which the kernel keeps) and its size. Names and
//! sizes exist nowhere else.
//!
//! Sizes are what the object is built with; those that the agent lets the user choose are
//! overridden at load.

/// Where the free entries of both tables of flows begin, and how large the tables are.
pub const HEAP: &str = "heap";
/// Where an IPv4 key's entry is.
pub const INDEX4: &str = "index4";
/// Where an IPv6 key's entry is.
pub const INDEX6: &str = "index6";
/// IPv4 flows, both halves of each.
pub const FLOWS4: &str = "flows4";
/// IPv6 flows, both halves of each.
pub const FLOWS6: &str = "flows6";
/// What few packets need to know of IPv4 flows.
pub const DETAILS4: &str = "details4";
/// What few packets need to know of IPv6 flows.
pub const DETAILS6: &str = "details6";
/// Interfaces as flows name them.
pub const EXITS: &str = "exits";
/// The program for what is not routine, behind XDP.
pub const JUMP_XDP: &str = "jump_xdp";
/// The same behind TC where packets arrive.
pub const JUMP_INGRESS: &str = "jump_ingress";
/// The same behind TC where packets leave.
pub const JUMP_EGRESS: &str = "jump_egress";
/// The same behind TC where a pod's packets come out of its veth.
pub const JUMP_POD: &str = "jump_pod";
/// What IPv4 clients address.
pub const FRONTENDS4: &str = "frontends4";
/// What IPv6 clients address.
pub const FRONTENDS6: &str = "frontends6";
/// IPv4 networks whose clients may use guarded frontends.
pub const RANGES4: &str = "ranges4";
/// IPv6 networks whose clients may use guarded frontends.
pub const RANGES6: &str = "ranges6";
/// Which backends IPv4 clients of services with session affinity have.
pub const AFFINITY4: &str = "affinity4";
/// Which backends IPv6 clients of services with session affinity have.
pub const AFFINITY6: &str = "affinity6";
/// IPv4 endpoints.
pub const BACKENDS4: &str = "backends4";
/// IPv6 endpoints.
pub const BACKENDS6: &str = "backends6";
/// How busy IPv4 endpoints are.
pub const LOADS4: &str = "loads4";
/// How busy IPv6 endpoints are.
pub const LOADS6: &str = "loads6";
/// All services' Maglev tables, side by side.
pub const SLOTS: &str = "slots";
/// IPv4 addresses of the node, and those that frontends name: `ADDRESS_*` bits.
pub const NODE_ADDRS4: &str = "node_addrs4";
/// The same of IPv6.
pub const NODE_ADDRS6: &str = "node_addrs6";
/// What each interface can do.
pub const DEVICES: &str = "devices";
/// Which ports concern us at all.
pub const PORTS: &str = "ports";
/// What is one for the whole data path.
pub const CONTROL: &str = "control";
/// Packets by [`Reason`](super::Reason), per CPU.
pub const COUNTERS: &str = "counters";
/// Counters of each service port, per CPU.
pub const SERVICE_STATS: &str = "service_stats";
/// IPv4 packets that come in fragments.
pub const DATAGRAMS4: &str = "datagrams4";
/// IPv6 packets that come in fragments.
pub const DATAGRAMS6: &str = "datagrams6";
/// Fragments that wait for the first one.
pub const WAITING: &str = "waiting";
/// Sizes and limits of these.
pub const FRAGMENTS: &str = "fragments";
/// Budget for ICMP errors, per CPU.
pub const ERROR_BUDGET: &str = "error_budget";

/// All maps that live as long as the data path, in the order in which they are pinned.
pub const ALL: [&str; 35] = [
    JUMP_XDP,
    JUMP_INGRESS,
    JUMP_EGRESS,
    JUMP_POD,
    HEAP,
    INDEX4,
    INDEX6,
    FLOWS4,
    FLOWS6,
    DETAILS4,
    DETAILS6,
    EXITS,
    FRONTENDS4,
    FRONTENDS6,
    RANGES4,
    RANGES6,
    AFFINITY4,
    AFFINITY6,
    BACKENDS4,
    BACKENDS6,
    LOADS4,
    LOADS6,
    SLOTS,
    NODE_ADDRS4,
    NODE_ADDRS6,
    DEVICES,
    PORTS,
    CONTROL,
    COUNTERS,
    SERVICE_STATS,
    ERROR_BUDGET,
    DATAGRAMS4,
    DATAGRAMS6,
    WAITING,
    FRAGMENTS,
];

/// Default number of halves in each of `flows4` and `flows6`: two for a flow.
pub const FLOW_ENTRIES: usize = 524_288;
/// Default number of lines in each of `index4` and `index6`, a power of two.
pub const INDEX_LINES: usize = FLOW_ENTRIES * super::SLOTS_PER_ENTRY / super::SLOTS_OF_LINE;
/// Frontends of each family.
pub const FRONTEND_ENTRIES: usize = 65_536;
/// Source ranges of each family.
pub const RANGE_ENTRIES: usize = 65_536;
/// Clients of each family that services with session affinity know; who opened nothing for longest is
/// forgotten first.
pub const AFFINITY_ENTRIES: usize = 65_536;
/// Backends of each family.
pub const BACKEND_ENTRIES: usize = 262_144;
/// Lines of [`SLOTS_PER_LINE`](super::SLOTS_PER_LINE) slots: 24 Mi slots, 96 MiB. Ten thousand
/// services with ten backends in each family take 20.4 million; the rest is for tables that are
/// being replaced.
pub const SLOT_LINES: usize = 1_572_864;
/// Sets of packets that come in fragments, in each of `datagrams4` and `datagrams6`.
pub const DATAGRAM_SETS: usize = 1_024;
/// Default number of fragments that can wait.
pub const WAITING_FRAMES: usize = 512;
/// Addresses of the node, and those that frontends name, of each family. Memory is taken for those that
/// there are.
pub const NODE_ADDRESS_ENTRIES: usize = 65_536;
/// Interfaces.
pub const DEVICE_ENTRIES: usize = 1_024;
/// Lines of [`PORTS_PER_LINE`](super::PORTS_PER_LINE) ports.
pub const PORT_LINES: usize = 65_536 / super::PORTS_PER_LINE;
/// Service ports.
pub const SERVICE_ENTRIES: usize = 65_536;
