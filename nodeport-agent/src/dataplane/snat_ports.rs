//! Watches over the ports by which backends on other nodes know our flows: how many are in use
//! towards each backend, and that the kernel keeps them free of the node's own connections.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use super::census::{Key, Use, in_use};
use super::reserve::Reservation;

/// Between two looks at what the kernel keeps free.
const LOOK: Duration = Duration::from_secs(60);
/// A backend towards which so many percent of the ports are in use is reported ...
const SCARCE: u64 = 80;
/// ... until there are fewer than so many again.
const AMPLE: u64 = 70;

/// What is known of SNAT ports at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortReport {
    /// Number of SNAT ports.
    pub ports: u32,
    /// Towards these backends few are left.
    pub scarce: Vec<Scarce>,
    /// Why the kernel may give them to the node's own connections.
    pub unreserved: Option<String>,
}

/// A backend towards which few ports are left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scarce {
    /// The service that most of the flows are of: its index in `service_stats`.
    pub service: u32,
    /// The backend, and the node's address that it sees.
    pub to: Key,
}

/// Where the latest report is.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Arc<PortReport>>);

impl Board {
    pub(super) fn read(&self) -> Arc<PortReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, report: PortReport) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if **board != report {
            *board = Arc::new(report);
        }
    }
}

/// Who watches.
pub(super) struct Watching {
    reservation: Reservation,
    board: Arc<Board>,
    unreserved: Option<String>,
    looked: Option<Instant>,
    scarce: BTreeSet<Key>,
}

impl Watching {
    pub(super) fn new(reservation: Reservation, board: Arc<Board>) -> Self {
        let (unreserved, looked, scarce) = (None, None, BTreeSet::new());
        Self { reservation, board, unreserved, looked, scarce }
    }

    /// Takes a first look at what the kernel keeps free.
    pub(super) fn begin(&mut self) {
        self.look();
        let unreserved = self.unreserved.clone();
        self.board.write(PortReport { unreserved, ..PortReport::default() });
    }

    /// Takes up a count: of so many ports, these are in use. Looks at what the kernel keeps free, if it is
    /// time to.
    pub(super) fn heed(&mut self, uses: &[Use], ports: u32) {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.look();
        }
        let scarce = scarce(uses, &self.scarce, ports);
        self.scarce = scarce.iter().map(|one| one.to).collect();
        self.board.write(PortReport { ports, scarce, unreserved: self.unreserved.clone() });
    }

    fn look(&mut self) {
        self.unreserved = self.reservation.keep().err().map(|error| format!("{error:#}"));
        self.looked = Some(Instant::now());
    }
}

/// The backends towards which few of so many ports are left; `before`, those of the last round.
fn scarce(uses: &[Use], before: &BTreeSet<Key>, ports: u32) -> Vec<Scarce> {
    let is_scarce = |one: &&Use| {
        let share = if before.contains(&one.to) { AMPLE } else { SCARCE };
        u64::from(one.ports) * 100 >= u64::from(ports) * share
    };
    let mut scarce: Vec<_> = uses
        .iter()
        .filter(is_scarce)
        .map(|one| Scarce { service: one.service, to: one.to })
        .collect();
    scarce.sort_unstable();
    scarce
}

#[cfg(test)]
mod tests {
    use nodeport_common::abi::IPPROTO_TCP;

    use super::*;

    fn to(last: u8) -> Key {
        let backend = ([10, 0, 0, last], 80).into();
        Key { backend, source: [10, 1, 0, 1].into(), protocol: IPPROTO_TCP }
    }

    #[test]
    fn a_backend_is_scarce_from_80_percent_on_and_until_70() {
        let uses = |counts: [u32; 2]| {
            let one = |(last, ports)| Use { to: to(last), service: u32::from(last), ports };
            [1, 2].into_iter().zip(counts).map(one).collect::<Vec<_>>()
        };
        let mut before = BTreeSet::new();
        for (counts, expected) in [
            ([799, 0], vec![]),
            ([800, 799], vec![1]),
            ([799, 1_000], vec![1, 2]),
            ([700, 699], vec![1]),
            ([699, 700], vec![]),
            ([799, 799], vec![]),
        ] {
            let now = scarce(&uses(counts), &before, 1_000);
            before = now.iter().map(|one| one.to).collect();
            let services: Vec<u32> = now.iter().map(|one| one.service).collect();
            assert_eq!(services, expected, "{counts:?}");
        }
    }
}
