//! How a half gets another next hop where it lies.

use super::status::Status;
use super::{Entry, Word as _};

/// How often a word that others change as well is tried to be changed.
const TRIES: u32 = 4;

/// Gives the half of that version another next hop, which is of `epoch` and has that MTU; false if it
/// has ended, or if another CPU is doing the same.
///
/// The next hop is a word of its own beside the status, and a CPU may stall between a look at the one
/// and its write to the other. So the half is held meanwhile: nobody ends it, and the entry cannot
/// be another's by the time of the write.
#[inline(always)]
pub fn set_hop<E: Entry>(entry: &E, version: u16, hop: &E::Hop, (epoch, mtu): (u16, u16)) -> bool {
    if !hold(entry, version) {
        return false;
    }
    entry.write_hop(hop);
    entry.let_go(epoch, Status::usable(mtu));
    true
}

/// Holds a half. Whoever meets it so looks its next hop up, and does not keep what he finds.
#[inline(always)]
fn hold<E: Entry>(entry: &E, version: u16) -> bool {
    let mut tries = 0;
    while tries < TRIES {
        let word = entry.status().load();
        let status = Status::from_word(word);
        if status.version != version || !status.is_live() || status.is_held() {
            return false;
        }
        if entry.status().swap(word, status.held().word()) {
            return true;
        }
        tries += 1;
    }
    false
}
