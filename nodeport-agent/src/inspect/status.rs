//! `nodeport-agent status`.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use nodeport_common::abi::{
    Addr4, Addr6, Backend, Device, FlowEntry, Frontend, FrontendKey, LAYOUT_VERSION, Plain, Reason,
    SLOTS_PER_LINE, ServiceStats, maps,
};
use serde::Serialize;

use super::output::{Cells, Row, Shown, table};
use super::services;
use super::table::Table;
use super::view::{InFamily, View, protocol};
use crate::addresses::Served;
use crate::dataplane::attach::Hook;
use crate::dataplane::fragments;
use crate::dataplane::maps::{open, read_all};
use crate::dataplane::snat_ports::{self, Use};
use crate::dataplane::status::{self, DeviceMode, DeviceStatus};
use crate::dataplane::sys;
use crate::listeners::{HostListener, Outcome};
use crate::state_file::State;

/// So many backends are shown with the ports that are in use towards them.
const BUSIEST: usize = 10;

/// How an instance is.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    instance: String,
    layout: u32,
    /// The agent's process, if one runs that can be seen from here.
    agent: Option<u32>,
    node: Option<String>,
    /// On which nodePorts are served, and why.
    node_addresses: Vec<Served>,
    epoch: u32,
    draining: bool,
    snat_ports: String,
    /// Nodes with the same choose backends alike.
    hash_seed: u32,
    ticks_per_second: u32,
    devices: Vec<DeviceStatus>,
    programs: Vec<Attachment>,
    maps: Vec<Fill>,
    /// Backends towards which most SNAT ports are in use.
    ports_in_use: Vec<PortsInUse>,
    counters: Vec<Counter>,
    /// Writes to the maps since the agent was started, if that is known; the slots of a table are
    /// one.
    map_writes: Option<u64>,
    /// Service ports that lost something.
    drops: Vec<Drops>,
    /// Processes of the node that listen where services are.
    host_listeners: Vec<HostListener>,
    findings: Vec<String>,
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Attachment {
    program: &'static str,
    hook: String,
    id: u32,
    /// The program that what is not routine goes on in.
    slow_program: &'static str,
    /// None if it is not there: such packets are passed to the stack.
    slow_id: Option<u32>,
    interface: String,
    pin: String,
}

#[derive(Debug, Serialize)]
struct Fill {
    map: &'static str,
    entries: u64,
    max_entries: u64,
    /// Of a table of flows, the halves whose flow has proved itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    established: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PortsInUse {
    backend: SocketAddr,
    protocol: Cow<'static, str>,
    /// The node's address that the backend sees.
    source: IpAddr,
    service: String,
    ports: u32,
    of: u16,
}

#[derive(Debug, Serialize)]
struct Counter {
    reason: &'static str,
    packets: u64,
    description: &'static str,
}

#[derive(Debug, Serialize)]
struct Drops {
    service: String,
    packets_without_backend: u64,
    flows_without_port: u64,
    flows_without_room: u64,
    packets_denied: u64,
}

/// Puts it together.
pub(super) fn status(view: &View) -> anyhow::Result<Status> {
    let control = &view.control;
    let state = State::load(&view.instance).ok();
    let last = u32::from(control.snat_first) + u32::from(control.snat_count).saturating_sub(1);
    Ok(Status {
        instance: view.instance.name.clone(),
        layout: LAYOUT_VERSION,
        agent: view.pins.holder(),
        node: state.as_ref().map(|state| state.node.clone()),
        node_addresses: state.iter().flat_map(|state| state.served_on.clone()).collect(),
        epoch: control.epoch,
        draining: control.draining != 0,
        snat_ports: format!("{}-{last}", control.snat_first),
        hash_seed: control.hash_seed,
        ticks_per_second: control.hz,
        devices: status::read(&view.instance.run_dir)?,
        programs: programs(view)?,
        maps: fills(view)?,
        ports_in_use: ports_in_use(view)?,
        counters: counters(view)?,
        map_writes: state.as_ref().map(|state| state.map_writes),
        drops: drops(view)?,
        host_listeners: state.iter().flat_map(|state| state.host_listeners.clone()).collect(),
        findings: state.iter().flat_map(|state| &state.findings).map(ToString::to_string).collect(),
        failures: state.map(|state| state.failures).unwrap_or_default(),
    })
}

fn programs(view: &View) -> anyhow::Result<Vec<Attachment>> {
    let mut programs = Vec::new();
    for name in view.pins.links()? {
        let path = view.pins.link(name);
        let Ok(link) = sys::get_pinned(&path) else { continue };
        let info = sys::link_info(link.as_fd())?;
        programs.push(Attachment {
            program: name.hook.program(),
            hook: name.hook.to_string(),
            id: info.program,
            slow_program: name.hook.slow_program(),
            slow_id: slow_id(view, name.hook)?,
            interface: view.interface(info.ifindex).into_owned(),
            pin: path.display().to_string(),
        });
    }
    programs.sort_by(|a, b| (&a.interface, &a.hook).cmp(&(&b.interface, &b.hook)));
    Ok(programs)
}

/// The id of the program to which that of a hook gives what is not routine.
fn slow_id(view: &View, hook: Hook) -> anyhow::Result<Option<u32>> {
    let map = open(&view.pins, hook.jump_map())?;
    sys::program_in(map.fd().as_fd()).with_context(|| format!("reading {}", hook.jump_map()))
}

fn fills(view: &View) -> anyhow::Result<Vec<Fill>> {
    let mut fills = family_fills::<Addr4>(view)?;
    fills.extend(family_fills::<Addr6>(view)?);
    for (map, entries) in [
        (maps::NODE_ADDRS4, read_all::<Addr4, u32>(&view.pins, maps::NODE_ADDRS4)?.len()),
        (maps::NODE_ADDRS6, read_all::<Addr6, u32>(&view.pins, maps::NODE_ADDRS6)?.len()),
        (maps::DEVICES, read_all::<u32, Device>(&view.pins, maps::DEVICES)?.len()),
    ] {
        fills.push(fill(view, map, entries as u64)?);
    }
    let mut slots = fill(view, maps::SLOTS, used_slots(view)?)?;
    slots.max_entries *= SLOTS_PER_LINE as u64;
    fills.push(slots);
    fills.extend(fragments::levels(&view.pins, view.now()?)?.map(|level| Fill {
        map: level.map,
        entries: level.used,
        max_entries: level.size,
        established: None,
    }));
    Ok(fills)
}

fn family_fills<A: InFamily>(view: &View) -> anyhow::Result<Vec<Fill>>
where
    FlowEntry<A, A::Pad>: Plain,
    FrontendKey<A>: Plain,
    Backend<A>: Plain,
{
    let flows = Table::<A>::open(&view.pins)?.level();
    Ok(vec![
        Fill {
            map: A::FLOWS,
            entries: flows.halves,
            max_entries: flows.size,
            established: Some(flows.established),
        },
        fill(view, A::FRONTENDS, view.frontends::<A>()?.len() as u64)?,
        fill(view, A::BACKENDS, view.backends::<A>()?.len() as u64)?,
    ])
}

fn fill(view: &View, map: &'static str, entries: u64) -> anyhow::Result<Fill> {
    let max_entries = open(&view.pins, map)?.info()?.max_entries().into();
    Ok(Fill { map, entries, max_entries, established: None })
}

/// Slots in the tables that frontends point to; several frontends may share one.
fn used_slots(view: &View) -> anyhow::Result<u64> {
    let region = |frontend: Frontend| (frontend.slots_offset, frontend.slots_len);
    let of4 = view.frontends::<Addr4>()?.into_iter().map(|(_, frontend)| region(frontend));
    let of6 = view.frontends::<Addr6>()?.into_iter().map(|(_, frontend)| region(frontend));
    let regions: std::collections::BTreeSet<(u32, u32)> = of4.chain(of6).collect();
    Ok(regions.into_iter().map(|(_, len)| u64::from(len)).sum())
}

fn ports_in_use(view: &View) -> anyhow::Result<Vec<PortsInUse>> {
    let mut uses = snat_ports::in_use(&view.pins)?;
    uses.sort_by_key(|one| (Reverse(one.ports), one.to));
    let row = |Use { to, service, ports }| PortsInUse {
        backend: to.backend,
        protocol: protocol(to.protocol),
        source: to.source,
        service: view.names.service(service).into_owned(),
        ports,
        of: view.control.snat_count,
    };
    Ok(uses.into_iter().take(BUSIEST).map(row).collect())
}

fn counters(view: &View) -> anyhow::Result<Vec<Counter>> {
    let counter = |reason: &Reason| {
        Ok(Counter {
            reason: reason.label(),
            packets: view.counters.reason(*reason)?,
            description: reason.description().trim(),
        })
    };
    Reason::ALL.iter().map(counter).collect()
}

fn drops(view: &View) -> anyhow::Result<Vec<Drops>> {
    let mut drops = Vec::new();
    for (id, service) in services::ids(view)? {
        let ServiceStats { opened: _, no_backend, no_port, table_full, denied } =
            view.counters.service(id)?;
        if no_backend + no_port + table_full + denied > 0 {
            drops.push(Drops {
                service,
                packets_without_backend: no_backend,
                flows_without_port: no_port,
                flows_without_room: table_full,
                packets_denied: denied,
            });
        }
    }
    Ok(drops)
}

impl Shown for Status {
    fn text(&self) -> String {
        let agent = match self.agent {
            Some(process) => format!("running, process {process}"),
            None => "not running; the data path serves on as it is".to_owned(),
        };
        let mut text = format!("instance    {} (layout {})\n", self.instance, self.layout);
        let mut line = |title: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("{title:<12}{value}\n"));
            }
        };
        line("agent", &agent);
        line("node", self.node.as_deref().unwrap_or_default());
        let addresses: Vec<_> = self.node_addresses.iter().map(ToString::to_string).collect();
        line("nodePorts", &addresses.join(" "));
        line("epoch", &self.epoch.to_string());
        line("SNAT ports", &self.snat_ports);
        line("hash seed", &self.hash_seed.to_string());
        line("map writes", &self.map_writes.map(|writes| writes.to_string()).unwrap_or_default());
        line("draining", if self.draining { "yes" } else { "" });
        section(&mut text, "Interfaces", &self.devices);
        section(&mut text, "Programs", &self.programs);
        section(&mut text, "Maps", &self.maps);
        section(&mut text, "Source ports in use, by backend", &self.ports_in_use);
        let counted: Vec<&Counter> =
            self.counters.iter().filter(|counter| counter.packets > 0).collect();
        section(&mut text, "Packets not simply forwarded", &counted);
        section(&mut text, "Services that lost something", &self.drops);
        section(
            &mut text,
            "Processes of the node that listen where services are",
            &self.host_listeners,
        );
        for (title, lines) in [("Findings", &self.findings), ("Failures", &self.failures)] {
            if !lines.is_empty() {
                text.push_str(&format!("\n{title}\n{}\n", lines.join("\n")));
            }
        }
        text
    }
}

/// A table with a title, if there is anything in it.
fn section<R: Row>(text: &mut String, title: &str, rows: &[R]) {
    if !rows.is_empty() {
        text.push_str(&format!("\n{title}\n{}", table(rows)));
    }
}

impl Row for DeviceStatus {
    const TITLES: &'static [&'static str] = &["NAME", "INDEX", "MODE", "REASON"];

    fn add_to(&self, cells: &mut Cells) {
        let mode = match self.attached.mode {
            DeviceMode::Xdp => "XDP",
            DeviceMode::Tc => "TC",
            DeviceMode::Pod => "pod",
            DeviceMode::None => "none",
        };
        let reason = self.attached.reason.as_ref();
        let reason = reason.map(|reason| format!("{} ({})", reason.text, reason.code));
        cells.texts([
            self.name.clone(),
            self.ifindex.to_string(),
            mode.to_owned(),
            reason.unwrap_or_default(),
        ]);
    }
}

impl Row for Attachment {
    const TITLES: &'static [&'static str] =
        &["PROGRAM", "ID", "INTERFACE", "HOOK", "NOT-ROUTINE", "ID"];

    fn add_to(&self, cells: &mut Cells) {
        let Self { program, hook, id, slow_program, slow_id, interface, pin: _ } = self;
        cells.texts([
            (*program).to_owned(),
            id.to_string(),
            interface.clone(),
            hook.clone(),
            (*slow_program).to_owned(),
            slow_id.map_or_else(|| "missing".to_owned(), |id| id.to_string()),
        ]);
    }
}

impl Row for Fill {
    const TITLES: &'static [&'static str] = &["MAP", "ENTRIES", "OF", "FULL", "ESTABLISHED"];

    fn add_to(&self, cells: &mut Cells) {
        let share = self.entries as f64 * 100.0 / self.max_entries.max(1) as f64;
        cells.texts([
            self.map.to_owned(),
            self.entries.to_string(),
            self.max_entries.to_string(),
            format!("{share:.1}%"),
            self.established.map(|count| count.to_string()).unwrap_or_default(),
        ]);
    }
}

impl Row for PortsInUse {
    const TITLES: &'static [&'static str] =
        &["BACKEND", "PROTO", "SOURCE", "SERVICE", "PORTS", "OF", "FULL"];

    fn add_to(&self, cells: &mut Cells) {
        let Self { backend, protocol, source, service, ports, of } = self;
        let share = f64::from(*ports) * 100.0 / f64::from((*of).max(1));
        cells.texts([
            backend.to_string(),
            protocol.to_string(),
            source.to_string(),
            service.clone(),
            ports.to_string(),
            of.to_string(),
            format!("{share:.1}%"),
        ]);
    }
}

impl Row for &Counter {
    const TITLES: &'static [&'static str] = &["REASON", "PACKETS", "MEANING"];

    fn add_to(&self, cells: &mut Cells) {
        cells.texts([self.reason, self.packets.to_string().as_str(), self.description]);
    }
}

impl Row for HostListener {
    const TITLES: &'static [&'static str] =
        &["SERVICE", "PORT", "FAMILIES", "LISTENS-ON", "PROCESS", "POD-OR-CGROUP", "PACKETS-GO-TO"];

    fn add_to(&self, cells: &mut Cells) {
        let families: Vec<_> = self.families.iter().map(|family| family.label()).collect();
        let process = self.process.as_ref();
        let process = process.map(|process| format!("{} ({})", process.command, process.pid));
        let pod = self.pod.as_ref().map(|pod| format!("pod {pod}"));
        let group = pod.or_else(|| self.cgroup.clone());
        let winner = match self.outcome {
            Outcome::Served => "service",
            Outcome::Left => "process",
            Outcome::Placeholder => "service (kube-proxy's placeholder: harmless)",
            Outcome::OneInterface => "service (the process listens at one interface alone)",
        };
        cells.texts([
            self.service.clone(),
            format!("{}/{}", self.port, self.protocol),
            families.join(","),
            SocketAddr::new(self.address, self.port).to_string(),
            process.unwrap_or_else(|| format!("not seen, user {}", self.uid)),
            group.unwrap_or_default(),
            winner.to_owned(),
        ]);
    }
}

impl Row for Drops {
    const TITLES: &'static [&'static str] =
        &["SERVICE", "NO-BACKEND", "NO-PORT", "NO-ROOM", "DENIED"];

    fn add_to(&self, cells: &mut Cells) {
        let Self {
            service,
            packets_without_backend,
            flows_without_port,
            flows_without_room,
            packets_denied,
        } = self;
        let numbers =
            [packets_without_backend, flows_without_port, flows_without_room, packets_denied];
        let numbers = numbers.into_iter().map(ToString::to_string);
        cells.texts(std::iter::once(service.clone()).chain(numbers));
    }
}
