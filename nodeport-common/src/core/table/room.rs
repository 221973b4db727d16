//! Where there is no room, newcomers make it: of a few the one that was silent longest.

use super::claim::{end, vacate};
use super::slot::{ENTRY_BITS, Place, Slot};
use super::status::Status;
use super::{CHOICES, Entry as _, Found, Line as _, NONE, Store, Word as _, slot_at, swap};
use crate::abi::{FLOW_PROVED, SLOTS_OF_LINE};
use crate::core::expiry;

/// Newcomers of a place that are compared: each costs a look into its entry, which lies anywhere. Who
/// takes so long to prove itself that newcomers meanwhile replace a share `q` of all that there are,
/// is pushed out before with a probability of about `q` to this power: with four, in a flood that
/// replaces all twice a second, one in six hundred of those that take a tenth of a second.
pub const CANDIDATES: u32 = 4;
/// Slots that are looked at for so many: those of halves that have proved themselves since are noted on
/// the way, and passed from then on. (The verifier follows each look.)
const LOOKS: u32 = 12;
/// How often others are compared, if there was none, or the one that was chosen has gone or proved itself
/// meanwhile: often enough to look at every slot.
const PICKS: u32 = 3;
const _: () = assert!(PICKS * LOOKS >= CHOICES);
/// Places where a newcomer is looked for. Newcomers are not spread evenly: who comes pushes out one
/// near it, so that a place that has none stays so. Where they held a third of all entries, in an index
/// of two slots an entry, one place in six had none, and with five places one key in four thousand was
/// refused for good. (That was with lines of eight slots.)
pub const NEARBY: u32 = 12;

/// Bits of a candidate: the number of its entry, and below it that of its slot in the place.
const CANDIDATE_BITS: u32 = ENTRY_BITS + CHOICES.ilog2();
const CANDIDATE_MASK: u32 = (1 << CANDIDATE_BITS) - 1;
/// Where in the word of [`compare`] the number of those begins that were compared.
const COUNT_AT: u32 = 60;

/// A half that was pushed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// The entry it had, which belongs to whoever pushed it out; `u32::MAX` if none was.
    pub entry: u32,
    /// Which slot of its place it had; `u32::MAX` if none.
    pub number: u32,
}

impl Evicted {
    /// Nobody was.
    const NONE: Self = Self { entry: NONE, number: NONE };

    /// As one word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.entry as u64 | (self.number as u64) << 32
    }

    /// From that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { entry: word as u32, number: (word >> 32) as u32 }
    }
}

/// Ends a newcomer of this place, and puts `instead` where its slot was. Its entry is in no list.
#[inline(always)]
pub fn push_out<S: Store>(store: S, place: Place, now: u32, instead: Slot) -> Evicted {
    let mut tries = 0;
    while tries < PICKS {
        let newcomers = newcomers(store, place);
        if newcomers == 0 {
            break;
        }
        let candidate = longest_silent(store, place, newcomers, now);
        if candidate != NONE {
            let entry = store.evict(place, candidate, instead);
            if entry != NONE {
                return Evicted { entry, number: candidate % CHOICES };
            }
        }
        tries += 1;
    }
    Evicted::NONE
}

/// A bit for each slot of a place that is a newcomer's.
#[inline(always)]
fn newcomers<S: Store>(store: S, place: Place) -> u32 {
    newcomers_in(store, place.first()) | newcomers_in(store, place.second()) << SLOTS_OF_LINE
}

#[inline(always)]
fn newcomers_in<S: Store>(store: S, line: u32) -> u32 {
    let Some(line) = store.line(line) else { return 0 };
    let mut bits = 0;
    let mut at = 0;
    while at < SLOTS_OF_LINE {
        bits |= line.load(at).newcomers() << at;
        at += 1;
    }
    bits
}

/// Of some of these newcomers the one that was silent longest, as a candidate. Which are compared
/// depends on the place's tag, so that no slot is met more often than others.
#[inline(always)]
fn longest_silent<S: Store>(store: S, place: Place, newcomers: u32, now: u32) -> u32 {
    let start = place.tag() % CHOICES;
    let mut left = newcomers.rotate_right(start);
    let mut found = 0;
    let mut looks = 0;
    while looks < LOOKS && found >> COUNT_AT < CANDIDATES as u64 && left != 0 {
        let number = (lowest(left) + start) % CHOICES;
        left &= left - 1;
        found = store.compare(place, number, now, found);
        looks += 1;
    }
    if found == 0 { NONE } else { found as u32 & CANDIDATE_MASK }
}

/// Number of the lowest bit that is set. (The kernel's programs have no instruction for it.)
#[inline(always)]
const fn lowest(bits: u32) -> u32 {
    let below = (bits & bits.wrapping_neg()).wrapping_sub(1);
    let pairs = below - (below >> 1 & 0x5555_5555);
    let nibbles = (pairs & 0x3333_3333) + (pairs >> 2 & 0x3333_3333);
    ((nibbles + (nibbles >> 4)) & 0x0f0f_0f0f).wrapping_mul(0x0101_0101) >> 24
}

/// What was found so far, with the newcomer in slot `number` of a place: how many there were (from
/// [`COUNT_AT`] on), for how long the one was silent that was so for longest, and the candidate that it
/// is (its lowest [`CANDIDATE_BITS`]). The same as before if that slot has none by now; of one that has
/// proved itself, this is noted there. (A function of its own: of a number that comes out of one the
/// verifier knows nothing, and does not try every order of them.)
#[inline(always)]
pub fn compare<S: Store>(store: S, place: Place, number: u32, now: u32, found: u64) -> u64 {
    let slot = slot_at(store, place, number);
    let Some(entry) = store.entry(slot.entry()) else { return found };
    let status = Status::from_word(entry.status().load());
    if !status.is_live() {
        return found;
    }
    if status.flags & FLOW_PROVED != 0 {
        // If the entry and the slot are another newcomer's by now, that one stays until it expires.
        swap(store, place, number, slot, slot.proved());
        return found;
    }
    let silence = expiry::age(entry.last_seen(), now) as u64 + 1;
    let this = silence << CANDIDATE_BITS | ((slot.entry() * CHOICES) | number) as u64;
    let longest = found & ((1 << COUNT_AT) - 1);
    let longer = if this > longest { this } else { longest };
    longer | ((found >> COUNT_AT) + 1) << COUNT_AT
}

/// Ends the newcomer that a candidate is (see [`compare`]), and puts `instead` where its slot was; the
/// entry it had, if it is still there. (Another CPU may have put another one into that slot, which has
/// only just come.)
#[inline(always)]
pub fn evict<S: Store>(store: S, place: Place, candidate: u32, instead: Slot) -> u32 {
    let number = candidate % CHOICES;
    let slot = slot_at(store, place, number);
    if slot.entry() != candidate / CHOICES {
        return NONE;
    }
    let Some(entry) = store.entry(slot.entry()) else { return NONE };
    let status = Status::from_word(entry.status().load());
    if !status.is_live() || status.flags & FLOW_PROVED != 0 {
        return NONE;
    }
    if !end(store, place, Found { number, slot, status }) {
        return NONE;
    }
    vacate(store, place, number, instead);
    slot.entry()
}

/// Takes an entry where none is free: that of a newcomer here, or nearby.
#[inline(always)]
pub(super) fn make_room<S: Store>(store: S, place: Place, now: u32) -> u32 {
    let mut distance = 0;
    while distance < NEARBY {
        let Evicted { entry, .. } = store.push_out(place.nearby(distance), now, Slot::EMPTY);
        if entry != NONE {
            return entry;
        }
        distance += 1;
    }
    NONE
}
