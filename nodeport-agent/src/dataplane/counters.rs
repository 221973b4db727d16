//! What each CPU has counted.

use std::fmt;

use anyhow::Context as _;
use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use nodeport_common::abi::{Reason, ServiceStats, maps};

use super::maps::per_cpu;
use super::pins::Pins;
use super::wire::Wire;

/// The counters.
pub(crate) struct Counters {
    reasons: PerCpuArray<MapData, u64>,
    services: PerCpuArray<MapData, Wire<ServiceStats>>,
}

impl Counters {
    pub(crate) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let reasons = per_cpu(pins, maps::COUNTERS)?;
        let services = per_cpu(pins, maps::SERVICE_STATS)?;
        Ok(Self { reasons, services })
    }

    /// Packets that were counted for this reason.
    pub(crate) fn reason(&self, reason: Reason) -> anyhow::Result<u64> {
        let values =
            self.reasons.get(&(reason as u32), 0).with_context(|| format!("reading {reason:?}"))?;
        Ok(values.iter().sum())
    }

    /// What was counted for a service port.
    pub(crate) fn service(&self, id: u32) -> anyhow::Result<ServiceStats> {
        let values = self.services.get(&id, 0).with_context(|| format!("reading service {id}"))?;
        Ok(values.iter().map(|value| value.0).fold(ServiceStats::default(), add))
    }

    /// Forgets what was counted for a service port.
    pub(crate) fn clear_service(&mut self, id: u32) -> anyhow::Result<()> {
        let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!(error).context(path))?;
        let zeros = PerCpuValues::try_from(vec![Wire(ServiceStats::default()); cpus])?;
        let clear = self.services.set(id, zeros, 0);
        clear.with_context(|| format!("map {}, service {id}", maps::SERVICE_STATS))
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

fn add(one: ServiceStats, other: ServiceStats) -> ServiceStats {
    let ServiceStats { opened, no_backend, no_port, table_full, denied } = other;
    ServiceStats {
        opened: one.opened + opened,
        no_backend: one.no_backend + no_backend,
        no_port: one.no_port + no_port,
        table_full: one.table_full + table_full,
        denied: one.denied + denied,
    }
}
