//! Reads everything when a scrape asks.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nodeport_common::abi::{self, LAYOUT_VERSION, Reason};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::process::Usage;
use super::sheet::Sheet;
use super::{Detail, Progress, catalog, services};
use crate::config::Instance;
use crate::dataplane::control::Control;
use crate::dataplane::counters::Counters;
use crate::dataplane::fragments::Level;
use crate::dataplane::levels::{flow_capacities, levels};
use crate::dataplane::pins::Pins;
use crate::dataplane::status::{self, DeviceMode, DeviceStatus};
use crate::dataplane::{Traffic, TrafficBoard};
use crate::health::Health;
use crate::listeners::Outcome;
use crate::model::{Kind, Severity};
use crate::plan::Traffic as Policy;
use crate::reconcile::{Directory, Listed};
use crate::watch::Store;

/// Where everything is.
#[derive(Debug)]
pub struct Sources {
    /// Whose maps and files to read.
    pub instance: Instance,
    /// Of what to tell.
    pub detail: Detail,
    /// What the source of objects tells.
    pub store: Arc<Store>,
    /// This proxy's health.
    pub health: Arc<Health>,
    /// The loop's work.
    pub progress: Arc<Progress>,
    /// The services by name.
    pub directory: Arc<Directory>,
    /// What flows carry.
    pub traffic: Arc<TrafficBoard>,
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sheet = &mut Sheet(encoder);
        let listed = self.directory.all();
        let traffic = self.traffic.read();
        let kernel = Kernel::read(&self.instance);
        self.loops(sheet, &listed)?;
        self.agent(sheet)?;
        self.listeners(sheet)?;
        kernel.encode(sheet, &traffic)?;
        if self.detail >= Detail::Services {
            let stats = |id| kernel.counters.as_ref()?.service(id).ok();
            services::encode(sheet, &listed, &traffic, stats, self.detail)?;
        }
        if let Some(usage) = kernel.usage {
            usage.encode(sheet)?;
        }
        sheet.one(&catalog::SCRAPE_FAILURES, kernel.failures)
    }
}

impl Sources {
    /// What kube-proxy has names for.
    fn loops(&self, sheet: &mut Sheet<'_>, listed: &[Listed]) -> fmt::Result {
        let tally = self.store.tally();
        sheet.histogram(&catalog::SYNC_DURATION, self.progress.sync_duration())?;
        sheet.histogram(&catalog::PROGRAMMING, self.progress.programming())?;
        sheet.one(&catalog::LAST_SYNC, seconds(self.health.updated()))?;
        sheet.one(&catalog::LAST_QUEUED, seconds(tally.last))?;
        sheet.one(&catalog::ENDPOINT_CHANGES, tally.slices)?;
        sheet.one(&catalog::ENDPOINT_CHANGES_PENDING, tally.pending_slices)?;
        sheet.one(&catalog::SERVICE_CHANGES, tally.services)?;
        sheet.one(&catalog::SERVICE_CHANGES_PENDING, tally.pending_services)?;
        sheet.rows(&catalog::NO_LOCAL_ENDPOINTS, no_local(listed))?;
        let by_code =
            |counts: &crate::health::Counts| counts.by_code().map(|(code, count)| ([code], count));
        sheet.rows(&catalog::HEALTHZ, by_code(self.health.healthz_counts()))?;
        sheet.rows(&catalog::LIVEZ, by_code(self.health.livez_counts()))
    }

    fn agent(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let layout = LAYOUT_VERSION.to_string();
        let situation = self.progress.situation();
        sheet.rows(&catalog::BUILD, [([env!("CARGO_PKG_VERSION"), &layout], true)])?;
        sheet.one(&catalog::STARTED, situation.started)?;
        let watches = self.store.watches().all();
        sheet.rows(&catalog::WATCH_UP, watches.iter().map(|(what, one)| ([*what], one.works)))?;
        sheet.rows(
            &catalog::WATCH_ERRORS,
            watches.iter().map(|(what, one)| ([*what], one.errors)),
        )?;
        let findings = situation.findings.iter();
        let findings = findings
            .map(|((kind, severity), count)| ([label(*kind), severity_label(*severity)], *count));
        sheet.rows(&catalog::FINDINGS, findings)?;
        sheet.one(&catalog::WRITE_FAILURES, situation.failures)?;
        sheet.one(&catalog::MAP_WRITES, situation.writes)
    }

    fn listeners(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        if self.detail < Detail::Services {
            return Ok(());
        }
        let situation = self.progress.situation();
        let mut rows: Vec<[String; 5]> = situation
            .listeners
            .iter()
            .map(|one| {
                let outcome = match one.outcome {
                    Outcome::Served => "served",
                    Outcome::Left => "left",
                    Outcome::Placeholder => "placeholder",
                    Outcome::OneInterface => "one_interface",
                };
                let (service, port_name) = (one.service.clone(), one.port_name.clone());
                let (port, protocol) = (one.port.to_string(), one.protocol.to_string());
                [service, port_name, port, protocol, outcome.to_owned()]
            })
            .collect();
        // Several processes may have the same port.
        rows.sort_unstable();
        rows.dedup();
        sheet.rows(&catalog::HOST_LISTENER, rows.into_iter().map(|labels| (labels, true)))
    }
}

/// What a scrape reads from the kernel. What cannot be read is left out, and counted.
#[derive(Debug, Default)]
struct Kernel {
    control: Option<abi::Control>,
    counters: Option<Counters>,
    reasons: Vec<(&'static str, u64)>,
    levels: Vec<Level>,
    flows: Vec<(&'static str, u64)>,
    devices: Vec<DeviceStatus>,
    usage: Option<Usage>,
    failures: u64,
}

impl Kernel {
    fn read(instance: &Instance) -> Self {
        let mut this = Self::default();
        let pins = Pins::new(instance);
        this.control = this.note(Control::open(&pins).map(|control| control.read()));
        this.counters = this.note(Counters::open(&pins));
        let reasons = this.counters.as_ref().map(reasons).transpose();
        this.reasons = this.note(reasons).flatten().unwrap_or_default();
        this.levels = this.note(levels(&pins)).unwrap_or_default();
        this.flows = this.note(flow_capacities(&pins)).map(Vec::from).unwrap_or_default();
        this.devices = this.note(status::read(&instance.run_dir)).unwrap_or_default();
        this.usage = this.note(Usage::read().map_err(anyhow::Error::from));
        this
    }

    fn note<T>(&mut self, outcome: anyhow::Result<T>) -> Option<T> {
        if let Err(error) = &outcome {
            self.failures += 1;
            // Each scrape would say it again.
            tracing::debug!("for metrics: {error:#}");
        }
        outcome.ok()
    }

    fn encode(&self, sheet: &mut Sheet<'_>, traffic: &Traffic) -> fmt::Result {
        if let Some(control) = self.control {
            sheet.one(&catalog::DRAINING, control.draining != 0)?;
            sheet.one(&catalog::SNAT_PORTS, u64::from(control.snat_count))?;
        }
        sheet.rows(
            &catalog::PACKETS_BY_REASON,
            self.reasons.iter().map(|(reason, n)| ([*reason], *n)),
        )?;
        self.devices(sheet)?;
        let flows = self.flows.iter().zip(traffic.halves);
        let flows: Vec<Level> =
            flows.map(|(&(map, size), used)| Level { map, used, size }).collect();
        let levels = || self.levels.iter().chain(&flows);
        sheet.rows(&catalog::MAP_ENTRIES, levels().map(|level| ([level.map], level.used)))?;
        sheet.rows(&catalog::MAP_CAPACITY, levels().map(|level| ([level.map], level.size)))
    }

    fn devices(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let (pods, own): (Vec<_>, Vec<_>) = self.devices.iter().partition(|device| is_pods(device));
        let rows = own.iter().map(|device| {
            let reason = device.attached.reason.as_ref().map_or("", |reason| &*reason.code);
            ([&*device.name, mode(device.attached.mode), reason], true)
        });
        sheet.rows(&catalog::DEVICE, rows)?;
        let served = pods.iter().filter(|pod| pod.attached.mode == DeviceMode::Pod).count();
        let left = pods.len() - served;
        sheet.rows(&catalog::POD_DEVICES, [(["pod"], served), (["none"], left)])
    }
}

fn reasons(counters: &Counters) -> anyhow::Result<Vec<(&'static str, u64)>> {
    Reason::ALL.iter().map(|reason| Ok((reason.label(), counters.reason(*reason)?))).collect()
}

/// Service ports by family and policy that have endpoints elsewhere alone.
fn no_local(listed: &[Listed]) -> Vec<([&'static str; 2], u64)> {
    use crate::model::Family;

    let policies = [(Policy::External, "external"), (Policy::Internal, "internal")];
    let mut rows = Vec::new();
    for family in Family::ALL {
        for (policy, label) in policies {
            let is_meant = |one: &&Listed| {
                one.no_local && (one.key.family, one.key.traffic) == (family, policy)
            };
            let count = listed.iter().filter(is_meant).count() as u64;
            rows.push(([family.label(), label], count));
        }
    }
    rows
}

fn is_pods(device: &DeviceStatus) -> bool {
    const OF_PODS: [&str; 3] = ["old_flows", "others", "too_new"];
    let reason = device.attached.reason.as_ref().map(|reason| &*reason.code);
    device.attached.mode == DeviceMode::Pod || reason.is_some_and(|code| OF_PODS.contains(&code))
}

const fn mode(mode: DeviceMode) -> &'static str {
    match mode {
        DeviceMode::Xdp => "xdp",
        DeviceMode::Tc => "tc",
        DeviceMode::Pod => "pod",
        DeviceMode::None => "none",
    }
}

const fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "Service",
        Kind::EndpointSlice => "EndpointSlice",
        Kind::Node => "Node",
        Kind::Agent => "Agent",
        Kind::File => "File",
    }
}

const fn severity_label(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

pub(super) fn seconds(at: Option<SystemTime>) -> f64 {
    let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or(0.0, |since| since.as_secs_f64())
}
