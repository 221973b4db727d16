//! Says which service is hit when a table is full or SNAT ports run out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nodeport_common::abi::{Addr4, Addr6, Frontend, FrontendKey, Reason, ServiceStats, maps};

use super::counters::Counters;
use super::maps::read_all;
use super::pins::Pins;
use crate::config::Instance;
use crate::state_file::Names;

/// How often the counters are looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// How often all services are read though nothing went wrong.
const REFRESH: Duration = Duration::from_secs(60);
/// A service is named again after so long at the earliest.
const AGAIN: Duration = Duration::from_secs(60);

/// Watches the counters.
pub(super) struct Overload {
    counters: Counters,
    pins: Pins,
    instance: Instance,
    looked: Option<Instant>,
    total: u64,
    /// When all services were read.
    read: Option<Instant>,
    seen: BTreeMap<u32, ServiceStats>,
    named: BTreeMap<u32, Instant>,
}

impl Overload {
    pub(super) fn open(pins: &Pins, instance: Instance) -> anyhow::Result<Self> {
        let counters = Counters::open(pins)?;
        let (total, pins) = (total(&counters)?, pins.clone());
        let (seen, named) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { counters, pins, instance, looked: None, total, read: None, seen, named })
    }

    /// Looks, if it is time to.
    pub(super) fn look(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < PERIOD) {
            return;
        }
        if let Err(error) = self.look_now() {
            tracing::warn!("reading the counters: {error:#}");
        }
        self.looked = Some(Instant::now());
    }

    /// The two sums tell whether there is anything to find; only then all services are read, and
    /// now and then to know what those that came had counted before.
    fn look_now(&mut self) -> anyhow::Result<()> {
        let total = total(&self.counters)?;
        let growth = total.saturating_sub(self.total);
        if growth == 0 && self.read.is_some_and(|read| read.elapsed() < REFRESH) {
            return Ok(());
        }
        let ids = self.services()?;
        (self.total, self.read) = (total, Some(Instant::now()));
        self.seen.retain(|id, _| ids.contains(id));
        for id in ids {
            let now = self.counters.service(id)?;
            let before = self.seen.insert(id, now).unwrap_or_else(|| at_first(&now, growth));
            self.warn(id, &before, &now);
        }
        Ok(())
    }

    fn services(&self) -> anyhow::Result<BTreeSet<u32>> {
        let of4 = read_all::<FrontendKey<Addr4>, Frontend>(&self.pins, maps::FRONTENDS4)?;
        let of6 = read_all::<FrontendKey<Addr6>, Frontend>(&self.pins, maps::FRONTENDS6)?;
        let of4 = of4.into_iter().map(|(_, frontend)| frontend.service);
        Ok(of4.chain(of6.into_iter().map(|(_, frontend)| frontend.service)).collect())
    }

    fn warn(&mut self, id: u32, before: &ServiceStats, now: &ServiceStats) {
        let Some(trouble) = trouble(before, now) else { return };
        if self.named.get(&id).is_some_and(|named| named.elapsed() < AGAIN) {
            return;
        }
        self.named.insert(id, Instant::now());
        let names = Names::of(&self.instance);
        let name = names.service(id);
        tracing::warn!("service {name}: {trouble}");
    }
}

fn total(counters: &Counters) -> anyhow::Result<u64> {
    Ok(counters.reason(Reason::TableFull)? + counters.reason(Reason::NoPort)?)
}

/// What an id had counted before we met it: nothing, unless there is more than has been counted
/// since the last look. That was in the days of the agent before.
fn at_first(now: &ServiceStats, growth: u64) -> ServiceStats {
    if now.table_full + now.no_port <= growth { ServiceStats::default() } else { *now }
}

/// What has gone wrong for a service in between.
fn trouble(before: &ServiceStats, now: &ServiceStats) -> Option<String> {
    let full = growth(before.table_full, now.table_full);
    let ports = growth(before.no_port, now.no_port);
    let mut troubles = Vec::new();
    if full > 0 {
        troubles.push(format!(
            "{full} flows found no room in the tables of flows; give more with --max-flows"
        ));
    }
    if ports > 0 {
        troubles.push(format!(
            "{ports} new flows found no free source port to their backend; give more with \
             --snat-ports, or add backends"
        ));
    }
    (!troubles.is_empty()).then(|| troubles.join("; "))
}

/// How much was counted in between. A count that is less than it was began anew with another
/// service, which was given the id.
const fn growth(before: u64, now: u64) -> u64 {
    if now < before { now } else { now - before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_long_ago_is_not_held_against_a_service() {
        let now = ServiceStats { opened: 9, no_backend: 9, no_port: 3, table_full: 4, denied: 9 };
        assert_eq!(at_first(&now, 7), ServiceStats::default());
        assert_eq!(at_first(&now, 6), now);
        assert_eq!(at_first(&ServiceStats::default(), 0), ServiceStats::default());
    }

    #[test]
    fn only_what_grew_is_trouble() {
        let before =
            ServiceStats { opened: 1, no_backend: 2, no_port: 3, table_full: 4, denied: 5 };
        assert_eq!(trouble(&before, &ServiceStats { opened: 9, no_backend: 9, ..before }), None);
        let text = trouble(&before, &ServiceStats { table_full: 6, ..before }).unwrap();
        assert!(text.starts_with("2 flows") && text.contains("--max-flows"), "{text}");
        let anew = ServiceStats { table_full: 3, ..ServiceStats::default() };
        assert!(trouble(&before, &anew).unwrap().starts_with("3 flows"));
        let text = trouble(&before, &ServiceStats { no_port: 4, ..before }).unwrap();
        assert!(text.starts_with("1 new flows") && text.contains("--snat-ports"), "{text}");
    }
}
