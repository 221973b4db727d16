//! Fragments on the host: frames that wait, over an ordered map.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec::Vec;

use super::frame::SkbFrame;
use super::maps::OnHost;
use super::world::At;
use crate::abi::{DATAGRAMS_OF_SET, Datagram, Reason, WAITING_BYTES};
use crate::core::env::Env as _;
use crate::core::fragment::{Fragments, Kept, Limits, MOST_WAITING, Set};

/// A frame that waits.
#[derive(Clone, Debug)]
struct Frame {
    ticket: u64,
    previous: u64,
    since: u32,
    bytes: Vec<u8>,
}

/// The frames that wait, and those that were sent on.
#[derive(Debug)]
pub struct Ring {
    /// The limits; `None` until the agent has written them.
    pub limits: Cell<Option<Limits>>,
    /// Frames that were sent on, in the order in which they were, each with the interface where it
    /// is met again.
    pub sent: RefCell<Vec<(u32, Vec<u8>)>>,
    /// Lets the next frames that would be kept meet one that is being written.
    pub busy: Cell<u32>,
    /// Lets the next programs find their set taken.
    pub locked: Cell<u32>,
    ticket: Cell<u64>,
    frames: RefCell<BTreeMap<u64, Frame>>,
}

impl Default for Ring {
    fn default() -> Self {
        let limits = Limits { seed: 1, sets: 1_024, waiting: 512, timeout: 1_250 };
        Self {
            limits: Cell::new(Some(limits)),
            sent: RefCell::default(),
            busy: Cell::default(),
            locked: Cell::default(),
            ticket: Cell::default(),
            frames: RefCell::default(),
        }
    }
}

/// What is known of packets, by the number of their set.
pub type Sets<A> = RefCell<BTreeMap<u32, Set<A>>>;

impl Ring {
    /// How many wait, or have waited too long and were not replaced yet.
    pub fn len(&self) -> usize {
        self.frames.borrow().len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&self, ticket: u64, limits: &Limits) -> Option<Frame> {
        let mut frames = self.frames.borrow_mut();
        let place = ticket % u64::from(limits.waiting);
        frames
            .get(&place)
            .is_some_and(|frame| frame.ticket == ticket)
            .then(|| frames.remove(&place))?
    }
}

/// Takes one from a count; whether there was one.
fn spend(count: &Cell<u32>) -> bool {
    let left = count.get();
    count.set(left.saturating_sub(1));
    left > 0
}

impl<F: OnHost, const HOOK: u8> Fragments<F, SkbFrame> for At<'_, HOOK> {
    fn limits(&self) -> Option<Limits> {
        self.world.ring.limits.get()
    }

    fn with_set<R>(&self, set: u32, body: impl FnOnce(&mut Set<F::Addr>) -> R) -> Option<R> {
        if spend(&self.world.ring.locked) {
            return None;
        }
        let mut sets = F::maps(self.world).datagrams.borrow_mut();
        let empty = [Datagram::default(); DATAGRAMS_OF_SET];
        Some(body(sets.entry(set).or_insert(empty)))
    }

    fn keep(&self, packet: &mut SkbFrame, limits: &Limits) -> Option<Kept> {
        let ring = &self.world.ring;
        if packet.bytes.len() > WAITING_BYTES || limits.waiting == 0 {
            return None;
        }
        let ticket = ring.ticket.get() + 1;
        ring.ticket.set(ticket);
        if spend(&ring.busy) {
            return None;
        }
        let (since, bytes) = (self.now(), packet.bytes.clone());
        let place = ticket % u64::from(limits.waiting);
        let old =
            ring.frames.borrow_mut().insert(place, Frame { ticket, previous: 0, since, bytes });
        let age = old.map(|old| since.wrapping_sub(old.since));
        let ousted = age.is_some_and(|age| age < limits.timeout);
        if age.is_some() {
            self.count(if ousted { Reason::FragmentOusted } else { Reason::FragmentLate });
        }
        Some(Kept { ticket, ousted })
    }

    fn link(&self, ticket: u64, previous: u64) {
        let mut frames = self.world.ring.frames.borrow_mut();
        if let Some(frame) = frames.values_mut().find(|frame| frame.ticket == ticket) {
            frame.previous = previous;
        }
    }

    fn let_go(&self, ticket: u64) {
        self.world.ring.frames.borrow_mut().retain(|_, frame| frame.ticket != ticket);
    }

    fn send_on(&self, packet: &mut SkbFrame, head: u64, limits: &Limits) -> bool {
        // As in the kernel, the frame at hand is kept while others are sent by its means.
        let Some(own) = Fragments::<F, _>::keep(self, packet, limits) else { return true };
        let mut next = head;
        for _ in 0..MOST_WAITING {
            let Some(frame) = self.world.ring.take(next, limits) else { break };
            self.world.ring.sent.borrow_mut().push((self.ifindex, frame.bytes));
            self.count(Reason::FragmentSent);
            next = frame.previous;
        }
        Fragments::<F, _>::let_go(self, own.ticket);
        true
    }
}
