//! Says which service is hit when a table is full or SNAT ports run out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nodeport_common::abi::{Addr4, Addr6, Frontend, FrontendKey, Reason, ServiceStats, maps};

use super::counters::Counters;
use super::maps::{Hash, hash};
use super::pins::Pins;
use crate::config::Instance;
use crate::inspect::names::Names;

/// How often the counters are looked at.
const PERIOD: Duration = Duration::from_secs(5);
/// A service is named again after so long at the earliest.
const AGAIN: Duration = Duration::from_secs(60);

/// Watches the counters.
pub(super) struct Overload {
    counters: Counters,
    frontends4: Hash<FrontendKey<Addr4>, Frontend>,
    frontends6: Hash<FrontendKey<Addr6>, Frontend>,
    instance: Instance,
    looked: Option<Instant>,
    total: u64,
    seen: BTreeMap<u32, ServiceStats>,
    named: BTreeMap<u32, Instant>,
}

impl Overload {
    pub(super) fn open(pins: &Pins, instance: Instance) -> anyhow::Result<Self> {
        let counters = Counters::open(pins)?;
        let frontends4 = hash(pins, maps::FRONTENDS4)?;
        let frontends6 = hash(pins, maps::FRONTENDS6)?;
        let total = total(&counters)?;
        let (seen, named) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { counters, frontends4, frontends6, instance, looked: None, total, seen, named })
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

    /// The two sums tell whether there is anything to find; only then all services are read.
    fn look_now(&mut self) -> anyhow::Result<()> {
        let total = total(&self.counters)?;
        if total == self.total && self.looked.is_some() {
            return Ok(());
        }
        self.total = total;
        for id in self.services() {
            let now = self.counters.service(id)?;
            // What an id counted before we knew it may have been another service's.
            if let Some(before) = self.seen.insert(id, now) {
                self.warn(id, &before, &now);
            }
        }
        Ok(())
    }

    fn services(&self) -> BTreeSet<u32> {
        let of4 = self.frontends4.iter().flatten().map(|(_, frontend)| frontend.0.service);
        let of6 = self.frontends6.iter().flatten().map(|(_, frontend)| frontend.0.service);
        of4.chain(of6).collect()
    }

    fn warn(&mut self, id: u32, before: &ServiceStats, now: &ServiceStats) {
        let Some(trouble) = trouble(before, now) else { return };
        if self.named.get(&id).is_some_and(|named| named.elapsed() < AGAIN) {
            return;
        }
        self.named.insert(id, Instant::now());
        let name = Names::of(&self.instance).service(id);
        tracing::warn!("service {name}: {trouble}");
    }
}

fn total(counters: &Counters) -> anyhow::Result<u64> {
    Ok(counters.reason(Reason::TableFull)? + counters.reason(Reason::NoPort)?)
}

/// What has gone wrong for a service in between.
fn trouble(before: &ServiceStats, now: &ServiceStats) -> Option<String> {
    let full = now.table_full.saturating_sub(before.table_full);
    let ports = now.no_port.saturating_sub(before.no_port);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_is_trouble() {
        let before = ServiceStats { opened: 1, no_backend: 2, no_port: 3, table_full: 4 };
        assert_eq!(trouble(&before, &ServiceStats { opened: 9, no_backend: 9, ..before }), None);
        let text = trouble(&before, &ServiceStats { table_full: 6, ..before }).unwrap();
        assert!(text.starts_with("2 flows") && text.contains("--max-flows"), "{text}");
        let text = trouble(&before, &ServiceStats { no_port: 4, ..before }).unwrap();
        assert!(text.starts_with("1 new flows") && text.contains("--snat-ports"), "{text}");
    }
}
