//! The plan for one service: its ports, with the endpoints that each may use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::HashSet;
use nodeport_common::core::maglev::LONGEST;

use super::claims::{Claim, Claims, NodePort};
use super::desired::{Group, GroupKey, Target, Traffic};
use super::frontends::{Frontends, OfGroup};
use super::health::{self, HealthCheck};
use super::held::Held;
use super::hints;
use super::policy::{Policy, categorize};
use crate::config::SourceRanges;
use crate::model::{
    AddressKind, Endpoint, Entry, Family, Finding, Kind, Node, PortName, Protocol, Service,
    ServicePort, Severity, Slice,
};

/// What a service is planned against.
pub(super) struct View<'a> {
    pub(super) node_name: &'a Arc<str>,
    pub(super) node: Option<&'a Node>,
    pub(super) source_ranges: SourceRanges,
    pub(super) claims: &'a Claims,
    pub(super) held: &'a Held,
}

/// The plan for one service.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) groups: BTreeMap<GroupKey, Group>,
    pub(super) health_check: Option<HealthCheck>,
    /// All that is wrong with the Service and its slices.
    pub(super) findings: Vec<Finding>,
    /// Ports at this node's own addresses among its endpoints and frontends: if one becomes or
    /// ceases to be a nodePort, the service must be planned again.
    pub(super) at_node: BTreeSet<NodePort>,
}

/// An endpoint with the slice that it stands in.
pub(super) type Found<'a> = (&'a Slice, &'a Endpoint);

/// Plans one service.
pub(super) fn plan(entry: &Entry, view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    if let Some(service) = &entry.service {
        plan.findings.extend(service.findings.iter().cloned());
        plan.health_check = health::check(service, &entry.slices, view.node_name);
        for port in &service.ports {
            plan.port(service, port, &entry.slices, view);
        }
        plan.shut_out(service);
    }
    plan.findings.extend(entry.slices.iter().flat_map(|slice| slice.findings.iter().cloned()));
    plan
}

impl Plan {
    fn port(
        &mut self,
        service: &Service,
        port: &ServicePort,
        slices: &[Arc<Slice>],
        view: &View<'_>,
    ) {
        let frontends = Frontends::of(service, port, view, &mut self.findings);
        self.at_node.extend(frontends.at_node());
        for family in families(service, slices) {
            self.family(service, port, family, (&frontends, slices), view);
        }
    }

    /// Says in which family source ranges let nobody in. kube-proxy lets everybody in there.
    fn shut_out(&mut self, service: &Service) {
        let ranges = service.source_ranges.as_deref().unwrap_or_default();
        let shut = |(key, group): (&GroupKey, &Group)| {
            let frontend = group.guarded.first().filter(|_| group.ranges.is_empty())?;
            Some((key.family, *frontend))
        };
        // Of a list that cannot be read it is said already that it lets nobody in.
        let Some((family, frontend)) =
            self.groups.iter().find_map(shut).filter(|_| !ranges.is_empty())
        else {
            return;
        };
        self.say(Some(Finding {
            severity: Severity::Warning,
            origin: service.origin.clone(),
            kind: Kind::Service,
            object: service.name.clone(),
            field: "spec.loadBalancerSourceRanges".to_owned(),
            problem: format!(
                "it has no {family} network, so nobody may use {frontend}; add the {family} networks \
                 of those who may"
            ),
        }));
    }

    /// The groups of a port in one family: for each kind of traffic that has a frontend.
    fn family(
        &mut self,
        service: &Service,
        port: &ServicePort,
        family: Family,
        (frontends, slices): (&Frontends, &[Arc<Slice>]),
        view: &View<'_>,
    ) {
        let mut found: Option<BTreeMap<SocketAddr, Found<'_>>> = None;
        for traffic in Traffic::ALL {
            let Some(of_group) = frontends.of_group(service, family, traffic) else { continue };
            let found = found.get_or_insert_with(|| {
                let mut found = endpoints(port, family, slices, view);
                found.retain(|at, (slice, one)| self.may_use(*at, slice, one, port, view));
                self.say(hints::finding(&found, view));
                found
            });
            let group = group(service, port, (traffic, of_group), found, view);
            self.say(too_many(service, port, group.usable.len()));
            let name = PortName {
                service: service.name.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
            };
            self.groups.insert(GroupKey { port: name, family, traffic }, group);
        }
    }

    /// Refuses an endpoint that is a nodePort of this very node: its packets would go in a circle.
    fn may_use(
        &mut self,
        at: SocketAddr,
        slice: &Slice,
        endpoint: &Endpoint,
        port: &ServicePort,
        view: &View<'_>,
    ) -> bool {
        if !view.node.is_some_and(|node| node.has_address(at.ip())) {
            return true;
        }
        let node_port = (at.port(), port.protocol);
        self.at_node.insert(node_port);
        let Some(owner) = view.claims.owner(Claim::node_port(node_port)) else { return true };
        let problem = format!(
            "{at} is the nodePort of Service {owner} on this very node: packets would go in a \
             circle; give the address of the endpoint itself"
        );
        let field = format!("endpoints[{}].addresses[0]", endpoint.position);
        self.say(Some(of_slice(slice, field, problem)));
        false
    }

    /// Once, although several ports may have it.
    fn say(&mut self, finding: Option<Finding>) {
        let new = finding.filter(|finding| !self.findings.contains(finding));
        self.findings.extend(new);
    }
}

/// Its families; where it does not say, those of its slices.
fn families(service: &Service, slices: &[Arc<Slice>]) -> Vec<Family> {
    let has_slice = |family: &Family| slices.iter().any(|slice| slice.family == Some(*family));
    let wanted = |family: &Family| match &service.families {
        Some(families) => families.contains(family),
        None => has_slice(family),
    };
    Family::ALL.into_iter().filter(wanted).collect()
}

/// The endpoints behind a port, each once. Where two slices list the same one, as happens while
/// slices are packed anew, the account that says more for it counts.
fn endpoints<'a>(
    port: &ServicePort,
    family: Family,
    slices: &'a [Arc<Slice>],
    view: &View<'_>,
) -> BTreeMap<SocketAddr, Found<'a>> {
    let rank = |endpoint: &Endpoint| (is_local(endpoint, view), endpoint.ready, endpoint.serving);
    let mut found: BTreeMap<SocketAddr, Found<'a>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.family == Some(family)) {
        let ports =
            slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for (number, endpoint) in
            ports.flat_map(|port| slice.endpoints.iter().map(|endpoint| (port.port, endpoint)))
        {
            let at = SocketAddr::new(endpoint.address, number);
            let known = found.entry(at).or_insert((slice, endpoint));
            if rank(endpoint) > rank(known.1) {
                *known = (slice, endpoint);
            }
        }
    }
    found
}

/// What is behind the frontends of one kind of traffic.
fn group(
    service: &Service,
    port: &ServicePort,
    (traffic, of_group): (Traffic, OfGroup),
    found: &BTreeMap<SocketAddr, Found<'_>>,
    view: &View<'_>,
) -> Group {
    // One that weighs nothing is to the rules as one that is not ready, and no last resort either.
    let weighs = |endpoint: &&Endpoint| service.weights.weight(endpoint) > 0;
    let all: Vec<_> = found.values().map(|(_, endpoint)| *endpoint).filter(weighs).collect();
    let (usable, any) = usable(&all, (service, port), traffic, view);
    let drops = any && usable.is_empty();
    let target = |at, endpoint: &Endpoint| Target {
        at,
        local: is_local(endpoint, view),
        node: endpoint.node.clone(),
        weight: service.weights.weight(endpoint),
    };
    let targets = found.iter().map(|(at, (_, endpoint))| (target(*at, endpoint), *endpoint));
    let (usable, rest): (Vec<_>, Vec<_>) =
        targets.partition(|(_, endpoint)| usable.contains(&std::ptr::from_ref(*endpoint)));
    let lingering = rest.into_iter().filter(|(_, endpoint)| lingers(endpoint, port.protocol));
    let OfGroup { mut frontends, guarded, ranges } = of_group;
    let is_own = |address| view.node.is_some_and(|node| node.has_address(address));
    let yields = view.held.take(&mut frontends, is_own);
    Group {
        port: port.port,
        frontends,
        guarded,
        ranges,
        yields,
        affinity: service.affinity.unwrap_or(0),
        algorithm: service.algorithm,
        lingering: lingering.map(|(target, _)| target).collect(),
        usable: usable.into_iter().map(|(target, _)| target).collect(),
        drops,
    }
}

/// Those that new flows of that traffic may go to, by identity, and whether any could answer at all.
fn usable(
    all: &[&Endpoint],
    (service, port): (&Service, &ServicePort),
    traffic: Traffic,
    view: &View<'_>,
) -> (HashSet<*const Endpoint>, bool) {
    let policy = Policy {
        node: view.node_name,
        zone: view.node.and_then(|node| node.zone.as_deref()),
        external_local: service.external_local,
        internal_local: service.internal_local,
        external: is_external(service, port),
    };
    let categories = categorize(all, &policy);
    let is_local = match traffic {
        Traffic::External => service.external_local,
        Traffic::Internal => service.internal_local,
    };
    let chosen = if is_local { categories.local } else { categories.cluster };
    (chosen.into_iter().map(std::ptr::from_ref).collect(), categories.any)
}

/// Whether its flows go on although it takes no new ones. A UDP client notices nothing of an
/// endpoint that does not serve, so its flow must find another.
fn lingers(endpoint: &Endpoint, protocol: Protocol) -> bool {
    protocol == Protocol::Tcp || endpoint.serving
}

fn is_local(endpoint: &Endpoint, view: &View<'_>) -> bool {
    endpoint.node.as_ref() == Some(view.node_name)
}

/// Whether clients outside can address it.
fn is_external(service: &Service, port: &ServicePort) -> bool {
    port.node_port.is_some()
        || service.addresses.iter().any(|one| one.kind != AddressKind::ClusterIp)
}

/// Every endpoint that takes new flows needs a slot of the table of its port.
fn too_many(service: &Service, port: &ServicePort, usable: usize) -> Option<Finding> {
    let most = LONGEST as usize;
    (usable > most).then(|| Finding {
        severity: Severity::Error,
        origin: service.origin.clone(),
        kind: Kind::Service,
        object: service.name.clone(),
        field: format!("spec.ports[{}]", port.position),
        problem: format!(
            "it has {usable} endpoints, and no more than {most} can have new connections; split the \
             Service"
        ),
    })
}

fn of_slice(slice: &Slice, field: String, problem: String) -> Finding {
    Finding {
        severity: Severity::Error,
        origin: slice.origin.clone(),
        kind: Kind::EndpointSlice,
        object: slice.name.clone(),
        field,
        problem,
    }
}
