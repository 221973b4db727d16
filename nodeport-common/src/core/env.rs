//! What a decision needs from the outside: the packet, the clock and the kernel's routes, the
//! tables. The kernel programs implement these over contexts, helpers and maps, the tests over
//! byte slices and ordered maps.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::family::Family;
use super::table::handle::Handle;
use super::work::Work;
use crate::abi::{
    ADDRESS_OWN, ADDRESS_SERVED, Affinity, AffinityKey, Backend, Control, Flow, FlowKey, FlowState,
    Frontend, FrontendKey, Load, NextHop, Reason, ServiceStats, Tags,
};

/// Largest offset in a frame at which a [`Window`] may stand. The verifier needs a bound for
/// offsets that are not constants; headers that begin later are not looked at.
pub const MAX_OFFSET: usize = 0x3ff;

/// What a [`Window`] loads and stores: plain words.
pub trait Word: Copy + FromBytes + IntoBytes + Immutable + private::Sealed {}

mod private {
    pub trait Sealed {}
}

macro_rules! words {
    ($($type:ty),+) => { $(impl private::Sealed for $type {} impl Word for $type {})+ };
}
words!(u8, u16, u32, [u8; 2], [u8; 4], [u8; 6], [u8; 16]);

/// `N` bytes of the packet, checked to be there. Multi-byte integers are loaded and stored as
/// they lie in memory: no change of byte order.
pub trait Window<const N: usize> {
    /// Loads the word at `OFF`, which must lie inside (checked at compile time).
    fn load<T: Word, const OFF: usize>(&self) -> T;
    /// Stores the word at `OFF`, which must lie inside (checked at compile time).
    fn store<T: Word, const OFF: usize>(&mut self, value: T);
}

/// A frame, from its Ethernet header on.
pub trait Packet {
    /// A checked part of the frame.
    type Window<'a, const N: usize>: Window<N>
    where
        Self: 'a;

    /// The `N` bytes from `offset` on; `None` if the frame ends before.
    fn window<const N: usize>(&mut self, offset: usize) -> Option<Self::Window<'_, N>>;

    /// Payload bytes of each segment into which the kernel will cut the packet (GSO); 0 if it
    /// leaves as it is.
    fn gso_size(&self) -> u16;

    /// Makes the first `bytes` bytes accessible, if there are so many and they are not yet.
    fn make_linear(&mut self, bytes: u32);

    /// Whether the walk keeps the TCP or UDP checksum itself. Where a network card may finish
    /// the checksum later, the kernel has to do it: [`Packet::replace_checksum`].
    const OWN_CHECKSUM: bool;

    /// Adds differences to the transport checksum at `offset` by the kernel's means. `udp` keeps
    /// a zero checksum zero. Returns false if it could not.
    fn replace_checksum(&mut self, offset: usize, change: ChecksumChange) -> bool;

    /// Adds a ones'-complement difference to the sum that the network card has made of the frame,
    /// where there is one: a stack that gets the frame relies on it.
    fn add_to_sum(&mut self, diff: u16);

    /// Notes on the packet that it is done with, so that the TC program behind XDP leaves it
    /// alone. False if that cannot be noted: then the packet must go up as it came.
    fn mark_done(&mut self) -> bool;

    /// Cuts the frame after `keep` bytes, if it is longer. Returns false if it could not.
    fn cut(&mut self, keep: usize) -> bool;

    /// Cuts the frame after `keep` bytes and makes room for `room` bytes behind the Ethernet
    /// header (which is `l3` bytes long and is moved to the front). Returns false if it could not.
    fn open_room(&mut self, l3: usize, room: Room, keep: usize) -> bool;
}

/// How a transport checksum changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumChange {
    /// Difference of the addresses (part of the pseudo-header), ones'-complement.
    pub address_diff: u16,
    /// Difference of the ports, ones'-complement.
    pub port_diff: u16,
    /// The field is UDP's: zero means "none".
    pub udp: bool,
}

/// Room for the headers of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// 28 bytes: IPv4 and ICMP.
    V4,
    /// 48 bytes: IPv6 and ICMPv6.
    V6,
}

impl Room {
    /// Its size in bytes.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        match self {
            Self::V4 => 28,
            Self::V6 => 48,
        }
    }
}

/// Where a program sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP on the node's network interface.
    Xdp,
    /// TC where packets arrive.
    Ingress,
    /// TC where packets leave.
    Egress,
    /// TC where a pod's packets come out of its veth.
    Pod,
}

/// A question to the kernel's routes, and the answer.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route<A> {
    /// Source address; all zero asks for the one that the node would use on that path, which is
    /// then written here.
    pub from: A,
    /// Destination address.
    pub to: A,
    /// Where to send it. Epoch 0 says that the answer must not be kept.
    pub hop: NextHop,
    /// Whether an answer comes back through an interface that we watch.
    pub watched: bool,
    /// Whether it goes into the veth of a pod, whose answers are met where they come out of it.
    pub to_pod: bool,
}

/// One half of a flow where it lies, shared with other CPUs.
pub trait FlowRef<A> {
    /// What the packets of a live flow need to know of it: all but [`Flow::service`],
    /// [`Flow::created`] and [`Flow::answered`]. `None` if another CPU is ending it.
    fn read(&self) -> Option<Flow<A>>;
    /// Counts a packet of `bytes` at `now`.
    fn touch(&mut self, now: u32, bytes: u32);
}

/// What a packet changes about its half.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// When it came, in jiffies.
    pub now: u32,
    /// Its bytes.
    pub bytes: u32,
    /// The next hop, if it is another.
    pub hop: Option<&'a NextHop>,
    /// The flow's state, if it is another.
    pub state: Option<FlowState>,
}

/// What came of a [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// The half is gone: another CPU has ended the flow.
    Gone,
    /// The half is as the packet has made it.
    Done,
    /// It is in this state: another CPU had changed that as well (see
    /// [`state::merge`](super::state::merge)).
    Merged(FlowState),
}

/// What a claim came to.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there now.
    Done,
    /// The key was taken.
    Taken,
    /// The table is full.
    Full,
}

/// The maps of one address family.
pub trait Tables<F: Family> {
    /// A half of a flow where it lies.
    type Flow<'a>: FlowRef<F::Addr>
    where
        Self: 'a;

    /// Looks a half up where it is found at once. One that is elsewhere may be missed; whoever
    /// needs to know calls [`Tables::read_flow`].
    fn flow(&self, key: &FlowKey<F::Addr>) -> Option<Self::Flow<'_>>;
    /// Whether there is surely no half with this key: a quick look, which may leave it open.
    fn lacks(&self, key: &FlowKey<F::Addr>) -> bool;
    /// Reads all of a half, and which it is ([`Handle::of`]); false if there is none, and then `to`
    /// may be anything.
    fn read_flow(&self, key: &FlowKey<F::Addr>, to: &mut Flow<F::Addr>) -> bool;
    /// Takes a half one step further.
    fn step_flow(&self, half: Handle, step: Step<'_>) -> Stepped;
    /// Sets [`Flow::answered`] of a half, if it is there.
    fn note_answer(&self, half: Handle, answered: u32);
    /// Puts a half into a state, merged with the one that it is in by now; the state that comes
    /// of it. `None` if it is gone.
    fn merge_flow(&self, half: Handle, to: FlowState) -> Option<FlowState>;
    /// Puts a half into the table, if its key is free, and notes in it which one it is from then on.
    /// Newcomers are pushed out for it if there is no room.
    fn claim_flow(&self, key: &FlowKey<F::Addr>, flow: &mut Flow<F::Addr>) -> Inserted;
    /// Removes the half of a key, if it is there.
    fn remove_flow(&self, key: &FlowKey<F::Addr>, half: Handle);
    /// Removes the half of a key, if it is there and its flow has not proved itself by then; whether
    /// it did.
    fn remove_newcomer(&self, key: &FlowKey<F::Addr>, half: Handle) -> bool;
    /// The frontend with exactly this key.
    fn frontend(&self, key: &FrontendKey<F::Addr>) -> Option<Frontend>;
    /// Whether a client with that address may use the guarded frontends of a service port.
    fn admits(&self, service: u32, client: &F::Addr) -> bool;
    /// Reads which backend a client has; false if that is not known.
    fn read_affinity(&self, key: &AffinityKey<F::Addr>, to: &mut Affinity) -> bool;
    /// Keeps which backend a client has.
    fn keep_affinity(&self, key: &AffinityKey<F::Addr>, affinity: &Affinity);
    /// The `ADDRESS_*` bits of an address; 0 if nothing is known of it.
    fn address_bits(&self, address: &F::Addr) -> u32;

    /// Whether it is an address of the node.
    #[inline(always)]
    fn is_node_address(&self, address: &F::Addr) -> bool {
        self.address_bits(address) & (ADDRESS_OWN | ADDRESS_SERVED) != 0
    }

    /// Whether nodePorts are served on this address.
    #[inline(always)]
    fn serves_node_ports(&self, address: &F::Addr) -> bool {
        self.address_bits(address) & ADDRESS_SERVED != 0
    }

    /// The backend of that index.
    fn backend(&self, index: u32) -> Option<Backend<F::Addr>>;
    /// How busy the backend of that index is.
    fn load(&self, index: u32) -> Load;
    /// Notes that a flow to the backend of that index was opened.
    fn note_opened(&self, index: u32);
    /// The bits of a backend's generation that its flows keep (see
    /// [`kept`](super::table::half::kept)).
    fn generation(&self, index: u32) -> Option<u32>;
    /// Lends the working area; `None` if there is none.
    fn with_work<R>(&self, body: impl FnOnce(&mut Work<F::Addr>) -> R) -> Option<R>;
    /// Asks the kernel where a packet to `way.to` goes from here, and writes the answer into `way`.
    fn route(&self, way: &mut Route<F::Addr>, protocol: u8);
}

/// What does not depend on the address family.
pub trait Env {
    /// Where this program sits.
    const HOOK: Hook;

    /// Jiffies, low 32 bits.
    fn now(&self) -> u32;
    /// A random word.
    fn random(&self) -> u32;
    /// Interface on which the packet arrived, or from which it leaves.
    fn ifindex(&self) -> u32;
    /// The interface below a VLAN device, and the tags that frames have there; `None` if XDP
    /// cannot send from that interface, or it is no VLAN device.
    fn below(&self, ifindex: u32) -> Option<(u32, Tags)>;
    /// The settings of the data path; `None` before the agent has written them.
    fn control(&self) -> Option<Control>;
    /// The `PORT_*` bits of a port (host order).
    fn port_bits(&self, port: u16) -> u8;
    /// The slot of that index: an index of a backend.
    fn slot(&self, index: u32) -> Option<u32>;
    /// Counts a packet by reason.
    fn count(&self, reason: Reason);
    /// Changes the counters of a service port on this CPU.
    fn service_stats(&self, service: u32, change: impl FnOnce(&mut ServiceStats));
    /// Whether this CPU may send one more ICMP error in this second, and `spared` are left for others.
    fn may_send_error(&self, spared: u32) -> bool;
}

/// All that the walk needs beside the packet.
pub trait World<F: Family>: Env + Tables<F> {}
impl<F: Family, W: Env + Tables<F>> World<F> for W {}
