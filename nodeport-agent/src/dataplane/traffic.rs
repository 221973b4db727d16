//! What flows carry, by service port and by backend, from counts of the table of flows.
//!
//! Each half of a flow counts its own packets and bytes. From one count to the next, what a half has
//! more than before is its service's; a half that was not there before is new. A half that comes and
//! goes between two counts is missed with all it carried, and so is what one carried after its last count: a
//! flow that ends by itself is silent for longer than a count takes before it is forgotten, so that
//! happens only to flows that make room for others, that are begun anew on the same ports, or whose
//! timeout is shorter than the pause between two counts. What was carried before the first count
//! counts for nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use foldhash::HashMap;
use nodeport_common::abi::{FLOW_HOST, FLOW_REPLY, FlowEntry, FlowState};
use nodeport_common::core::table::status::Status;

use crate::model::Family;

/// Towards the backend and towards the client: places of the numbers of a [`Carried`].
pub const DIRECTIONS: [&str; 2] = ["to_backend", "to_client"];

/// What flows have carried, and how many there are.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// When the last count ended; none before the first.
    pub at: Option<SystemTime>,
    /// By id of the service port.
    pub ports: HashMap<u32, Carried>,
    /// By family, and index and generation of the backend as flows have them.
    pub backends: HashMap<(Family, u32), Opened>,
    /// Halves of IPv4 and of IPv6.
    pub halves: [u64; 2],
}

/// What the flows of a service port have carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Flows that are not over.
    pub live: u64,
    /// Packets, by direction.
    pub packets: [u64; 2],
    /// Bytes from the IP header on, by direction.
    pub bytes: [u64; 2],
}

/// Flows of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Flows that are not over.
    pub live: u64,
    /// Flows that were new to a count.
    pub opened: u64,
}

/// Where the last count is.
#[derive(Debug, Default)]
pub struct TrafficBoard(Mutex<Arc<Traffic>>);

impl TrafficBoard {
    /// The last count.
    #[must_use]
    pub fn read(&self) -> Arc<Traffic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn write(&self, traffic: Traffic) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(traffic);
    }
}

/// Goes from count to count.
#[derive(Debug, Default)]
pub(super) struct Tally {
    known4: Vec<Mark>,
    known6: Vec<Mark>,
    traffic: Traffic,
    /// What was there before the first count is only noted.
    counts: bool,
}

/// The half that an entry had, and what it had carried.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    bytes: u64,
    packets: u32,
    version: u16,
    is_live: bool,
}

/// What a half has done since it was met last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    is_new: bool,
    packets: u32,
    bytes: u64,
}

impl Tally {
    /// A count begins. Numbers of these ids are another service's from now on.
    pub(super) fn begin(&mut self, renewed: &[u32]) {
        for id in renewed {
            self.traffic.ports.remove(id);
        }
        self.traffic.ports.values_mut().for_each(|port| port.live = 0);
        self.traffic.backends.values_mut().for_each(|backend| backend.live = 0);
        self.traffic.halves = [0, 0];
    }

    /// An entry with a number; `service` tells that of its details, and `again` reads it once more.
    pub(super) fn see<A, P>(
        &mut self,
        family: Family,
        number: u32,
        entry: &FlowEntry<A, P>,
        service: impl FnOnce() -> Option<u32>,
        again: impl FnOnce() -> Option<Status>,
    ) {
        let status = Status::of(entry);
        let known = match family {
            Family::V4 => &mut self.known4,
            Family::V6 => &mut self.known6,
        };
        let number = number as usize;
        if !status.is_live() {
            if let Some(mark) = known.get_mut(number) {
                mark.is_live = false;
            }
            return;
        }
        self.traffic.halves[place(family)] += 1;
        if known.len() <= number {
            known.resize(number + 1, Mark::default());
        }
        let step = known[number].step(entry, status);
        // Nobody's service: the node's own.
        if status.flags & FLOW_HOST != 0 {
            known[number] = Mark::of(entry, status);
            return;
        }
        let Some(service) = service() else { return };
        // What was read piece by piece is one half's if that is still there.
        if !again().is_some_and(|again| again.is_live() && again.version == status.version) {
            return;
        }
        known[number] = Mark::of(entry, status);
        self.add(family, entry.backend, service, status, step);
    }

    fn add(&mut self, family: Family, backend: u32, service: u32, status: Status, step: Step) {
        let is_reply = status.flags & FLOW_REPLY != 0;
        let is_over = matches!(status.flow_state(), FlowState::Closed | FlowState::Reset);
        let port = self.traffic.ports.entry(service).or_default();
        if self.counts {
            port.packets[usize::from(is_reply)] += u64::from(step.packets);
            port.bytes[usize::from(is_reply)] += step.bytes;
        }
        if is_reply {
            return;
        }
        let backend = self.traffic.backends.entry((family, backend)).or_default();
        backend.opened += u64::from(step.is_new && self.counts);
        if !is_over {
            port.live += 1;
            backend.live += 1;
        }
    }

    /// A count ends: what has come of it. Backends that nobody knows any more are forgotten.
    pub(super) fn end(
        &mut self,
        now: SystemTime,
        is_known: impl Fn(Family, u32) -> bool,
    ) -> Traffic {
        self.counts = true;
        self.traffic.at = Some(now);
        self.traffic
            .backends
            .retain(|(family, word), one| one.live > 0 || is_known(*family, *word));
        self.traffic.clone()
    }
}

impl Mark {
    const fn of<A, P>(entry: &FlowEntry<A, P>, status: Status) -> Self {
        let FlowEntry { bytes, packets, .. } = *entry;
        Self { bytes, packets, version: status.version, is_live: true }
    }

    /// From here to what the entry has now.
    const fn step<A, P>(&self, entry: &FlowEntry<A, P>, status: Status) -> Step {
        if !self.is_live || self.version != status.version {
            return Step { is_new: true, packets: entry.packets, bytes: entry.bytes };
        }
        // Two CPUs that count at once may lose one, and put an older number over a newer one.
        let packets = entry.packets.wrapping_sub(self.packets);
        let packets = if packets > u32::MAX / 2 { 0 } else { packets };
        Step { is_new: false, packets, bytes: entry.bytes.saturating_sub(self.bytes) }
    }
}

const fn place(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

#[cfg(test)]
mod tests {
    use nodeport_common::abi::FlowEntry4;

    use super::*;

    const SERVICE: u32 = 7;
    const BACKEND: u32 = 3;

    fn half(version: u16, packets: u32, flags: u8) -> FlowEntry4 {
        let state = FlowState::Established as u8 + 1;
        let bytes = u64::from(packets) * 100;
        FlowEntry {
            version,
            packets,
            bytes,
            state,
            flags,
            backend: BACKEND,
            ..FlowEntry::default()
        }
    }

    fn see(tally: &mut Tally, number: u32, entry: &FlowEntry4) {
        let again = || Some(Status::of(entry));
        tally.see(Family::V4, number, entry, || Some(SERVICE), again);
    }

    /// A count that meets these entries, and what is known afterwards.
    fn count(tally: &mut Tally, entries: &[FlowEntry4]) -> (Carried, Opened) {
        tally.begin(&[]);
        for (number, entry) in (0..).zip(entries) {
            see(tally, number, entry);
        }
        let traffic = tally.end(SystemTime::UNIX_EPOCH, |_, _| true);
        let port = traffic.ports.get(&SERVICE).copied().unwrap_or_default();
        (port, traffic.backends.get(&(Family::V4, BACKEND)).copied().unwrap_or_default())
    }

    fn begun() -> Tally {
        let mut tally = Tally::default();
        count(&mut tally, &[]);
        tally
    }

    #[test]
    fn a_half_counts_for_what_it_has_more_than_before() {
        let mut tally = begun();
        let both = |there, back| [half(1, there, 0), half(1, back, FLOW_REPLY)];
        let (port, backend) = count(&mut tally, &both(3, 2));
        assert_eq!((port.live, port.packets, port.bytes), (1, [3, 2], [300, 200]));
        assert_eq!(backend, Opened { live: 1, opened: 1 });
        let (port, backend) = count(&mut tally, &both(10, 2));
        assert_eq!((port.live, port.packets, port.bytes), (1, [10, 2], [1_000, 200]));
        assert_eq!(backend, Opened { live: 1, opened: 1 });
    }

    #[test]
    fn a_flow_that_has_ended_stays_counted_and_the_next_in_its_entry_is_new() {
        let mut tally = begun();
        count(&mut tally, &[half(1, 9, 0)]);
        let free = FlowEntry4 { version: 2, ..FlowEntry::default() };
        let (port, backend) = count(&mut tally, &[free]);
        assert_eq!((port.live, port.packets[0], backend.live, backend.opened), (0, 9, 0, 1));
        let (port, backend) = count(&mut tally, &[half(2, 4, 0)]);
        assert_eq!((port.live, port.packets[0], backend.opened), (1, 13, 2));
        // Ended and begun between two counts.
        let (port, backend) = count(&mut tally, &[half(3, 1, 0)]);
        assert_eq!((port.packets[0], backend.opened), (14, 3));
    }

    #[test]
    fn what_was_there_before_the_first_count_is_only_noted() {
        let mut tally = Tally::default();
        let (port, backend) = count(&mut tally, &[half(5, 1_000, 0)]);
        assert_eq!((port.live, port.packets[0], backend.opened, backend.live), (1, 0, 0, 1));
        let (port, backend) = count(&mut tally, &[half(5, 1_001, 0)]);
        assert_eq!((port.packets[0], backend.opened), (1, 0));
    }

    #[test]
    fn a_flow_that_is_over_is_not_live_and_counts() {
        let mut tally = begun();
        let over = FlowEntry { state: FlowState::Reset as u8 + 1, ..half(1, 2, 0) };
        let (port, backend) = count(&mut tally, &[over]);
        assert_eq!((port.live, port.packets[0]), (0, 2));
        assert_eq!(backend, Opened { live: 0, opened: 1 });
    }

    #[test]
    fn counters_may_go_round_and_never_go_back() {
        let mut tally = begun();
        count(&mut tally, &[half(1, u32::MAX - 1, 0)]);
        let before = u64::from(u32::MAX - 1);
        let (port, _) = count(&mut tally, &[half(1, 3, 0)]);
        assert_eq!(port.packets[0], before + 5);
        let (port, _) = count(&mut tally, &[half(1, 2, 0)]);
        assert_eq!(port.packets[0], before + 5, "an older number that another CPU wrote");
    }

    #[test]
    fn an_entry_that_changes_hands_while_it_is_read_is_read_next_time() {
        let mut tally = begun();
        tally.begin(&[]);
        let (entry, now) = (half(1, 5, 0), Status::of(&half(2, 1, 0)));
        tally.see(Family::V4, 0, &entry, || Some(SERVICE), || Some(now));
        assert!(tally.end(SystemTime::UNIX_EPOCH, |_, _| true).ports.is_empty());
        let (port, backend) = count(&mut tally, &[half(2, 1, 0)]);
        assert_eq!((port.packets[0], backend.opened), (1, 1));
    }

    #[test]
    fn the_nodes_own_connections_are_no_services() {
        let mut tally = begun();
        let (port, _) = count(&mut tally, &[half(1, 5, FLOW_HOST)]);
        assert_eq!(port, Carried::default());
        assert_eq!(tally.traffic.halves, [1, 0]);
    }

    #[test]
    fn an_id_with_another_holder_begins_anew_and_unknown_backends_go() {
        let mut tally = begun();
        count(&mut tally, &[half(1, 5, 0)]);
        tally.begin(&[SERVICE]);
        see(&mut tally, 0, &half(1, 6, 0));
        let traffic = tally.end(SystemTime::UNIX_EPOCH, |_, _| false);
        assert_eq!(traffic.ports[&SERVICE].packets, [1, 0]);
        assert_eq!(traffic.backends.len(), 1, "it has a flow");
        tally.begin(&[]);
        assert!(tally.end(SystemTime::UNIX_EPOCH, |_, _| false).backends.is_empty());
    }
}
