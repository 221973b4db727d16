//! A half of a flow where it lies.

use core::sync::atomic::{Ordering, compiler_fence};

use nodeport_common::abi::{Flow, FlowDetails, FlowKey, FlowState, NextHop};
use nodeport_common::core::env::FlowRef;
use nodeport_common::core::state;
use nodeport_common::core::table::half;
use nodeport_common::core::table::handle::Handle;
use nodeport_common::core::table::slot::Slot;
use nodeport_common::core::table::status::Status;
use nodeport_common::core::table::{self, Word as _};

use super::memory::{InMaps, MapEntry, MapWord};

/// How often a status that others change as well is tried to be changed.
const TRIES: u32 = 4;

/// A half in its entry: it is gone when the entry has another version.
pub(crate) struct MapFlow<F: InMaps> {
    entry: MapEntry<F>,
    version: u16,
}

impl<F: InMaps> MapFlow<F> {
    /// What lies in the entry of that number now; `None` beyond the last.
    #[inline(always)]
    pub(crate) fn at(number: u32) -> Option<Self> {
        let entry = MapEntry::of(number)?;
        let version = entry.load_status().version;
        Some(Self { entry, version })
    }

    /// The half of a handle, which may have ended; `None` of no half.
    #[inline(always)]
    pub(super) fn of(half: Handle) -> Option<Self> {
        Some(Self { entry: MapEntry::of(half.entry())?, version: half.version() })
    }

    /// What a slot names, if the key is that one's.
    #[inline(always)]
    pub(super) fn of_key(slot: Slot, key: &FlowKey<F::Addr>) -> Option<Self> {
        let entry = MapEntry::of(slot.entry())?;
        let version = table::holds(&entry, key)?.version;
        Some(Self { entry, version })
    }

    /// Whether a half lies here. If none does, but the entry is in no list, it is put into that
    /// of the free ones; if the half's next hop is of another epoch than `epoch`, it is forgotten.
    #[inline(always)]
    pub(crate) fn take_up_or_refresh(&self, epoch: u16) -> bool {
        let word = self.entry.status_word();
        let old = word.load();
        let status = Status::from_word(old);
        if !status.is_live() {
            table::take_up(F::TABLE, self.entry.number);
            return false;
        }
        if status.epoch != epoch && status.epoch != 0 {
            // If it changes in this instant, the next sweep sees it.
            word.swap(old, Status { epoch: 0, ..status }.word());
        }
        true
    }

    /// Whether a half lies here, or ever did.
    #[inline(always)]
    pub(crate) fn was_used(&self) -> bool {
        let status = self.entry.load_status();
        status.version != 0 || status.state != 0
    }

    /// The half's protocol.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        half::protocol(self.entry.load_status().flags)
    }

    /// Copies all of it; false, and `to` may be anything, if it ends in this instant.
    #[inline(always)]
    pub(super) fn read_into(&self, to: &mut Flow<F::Addr>) -> bool {
        *to = self.entry.copy();
        if let Some(details) = F::details(self.entry.number) {
            // SAFETY: an element of an array map, of which every bit pattern is a value.
            let details = unsafe { &*details };
            (to.service, to.created) = (details.service, details.created);
            to.answered = details.answered;
        }
        Handle::new(self.entry.number, self.version).note_in(to);
        self.is_intact()
    }

    /// Copies the half's key; false if it ends in this instant.
    #[inline(always)]
    pub(crate) fn key_into(&self, key: &mut FlowKey<F::Addr>) -> bool {
        *key = self.entry.key();
        self.is_intact()
    }

    /// Whether it has not ended.
    #[inline(always)]
    pub(super) fn is_intact(&self) -> bool {
        compiler_fence(Ordering::SeqCst);
        self.entry.load_status().version == self.version
    }

    /// Merges the half's state; the state that it is in then. `None` if it has ended.
    #[inline(always)]
    pub(super) fn merge_state(&self, to: FlowState) -> Option<FlowState> {
        let word = self.entry.status_word();
        for _ in 0..TRIES {
            let old = word.load();
            let status = Status::from_word(old);
            if status.version != self.version || !status.is_live() {
                return None;
            }
            let merged = state::merge(status.flow_state(), to);
            if word.swap(old, status.with_state(merged).word()) {
                return Some(merged);
            }
        }
        None
    }

    /// Notes by which number the client acknowledges the backend's SYN, unless the half has ended.
    #[inline(always)]
    pub(super) fn note_answer(&self, answered: u32) {
        let Some(details) = F::details(self.entry.number) else { return };
        // SAFETY: the field is at a multiple of eight, and the word reaches to the end.
        let word = MapWord::<u64>(unsafe { (&raw mut (*details).answered).cast() });
        for _ in 0..TRIES {
            let old = word.load();
            let is_ours = old >> 32 == FlowDetails::answer_word(0, self.version) >> 32;
            if !is_ours || word.swap(old, FlowDetails::answer_word(answered, self.version)) {
                return;
            }
        }
    }

    /// Gives the half another next hop, unless it has ended.
    #[inline(always)]
    pub(super) fn set_hop(&self, hop: &NextHop) {
        // If another CPU gives it one in this instant, the next packet sees whether it is current.
        table::set_hop(&self.entry, self.version, hop, (hop.epoch, hop.mtu));
    }
}

impl<F: InMaps> FlowRef<F::Addr> for MapFlow<F> {
    #[inline(always)]
    fn read(&self) -> Option<Flow<F::Addr>> {
        let flow = self.entry.copy();
        self.is_intact().then_some(flow)
    }

    #[inline(always)]
    fn touch(&mut self, now: u32, bytes: u32) {
        let entry = self.entry.at;
        // SAFETY: an element of an array map. A count that another CPU adds in the same instant may
        // be lost, as one may be added to a half that was given the entry a moment ago: statistics
        // can bear both, and a lock they cannot.
        unsafe {
            (*entry).last_seen = now;
            (*entry).packets = (*entry).packets.wrapping_add(1);
            (*entry).bytes = (*entry).bytes.wrapping_add(bytes as u64);
        }
    }
}
