//! What clients address of a service port: its nodePort and its Service's own addresses, unless another
//! Service has them.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::claims::{Claim, NodePort};
use super::desired::{FrontendAt, Traffic};
use super::service::View;
use crate::config::SourceRanges;
use crate::model::{
    AddressKind, Family, Finding, Kind, Service, ServiceAddress, ServicePort, Severity,
};

/// The frontends of a service port, those of both families and scopes.
#[derive(Debug, Default)]
pub(super) struct Frontends {
    all: Vec<(Traffic, FrontendAt, Guarded)>,
    at_node: Vec<NodePort>,
}

/// Whether source ranges say who may use it.
type Guarded = bool;

/// The frontends of one group.
#[derive(Debug, Default)]
pub(super) struct OfGroup {
    pub(super) frontends: BTreeSet<FrontendAt>,
    pub(super) guarded: BTreeSet<FrontendAt>,
    pub(super) ranges: Vec<IpNet>,
}

impl Frontends {
    /// Those that are this Service's, and what is wrong with the others.
    pub(super) fn of(
        service: &Service,
        port: &ServicePort,
        view: &View<'_>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut this = Self::default();
        let mut has = |claim: Claim, field: &dyn Fn() -> String, remedy: &str| {
            let other = view.claims.owner(claim).filter(|owner| **owner != service.name);
            let Some(owner) = other else { return true };
            let problem = format!("{claim} is taken by Service {owner}, which comes first{remedy}");
            findings.push(of_service(service, field(), problem));
            false
        };
        let guards_all = view.source_ranges == SourceRanges::All;
        if let Some(number) = port.node_port {
            let field = || format!("spec.ports[{}].nodePort", port.position);
            let claim = Claim::node_port((number, port.protocol));
            if has(claim, &field, "; choose another port") {
                this.all.extend(Family::ALL.map(|family| {
                    let at = FrontendAt::node_port(family, number, port.protocol);
                    (Traffic::External, at, guards_all)
                }));
            }
        }
        for one in &service.addresses {
            let claim = Claim::at(one.address, port.port, port.protocol);
            if !has(claim, &|| one.field(), "; until it goes, packets go there") {
                continue;
            }
            // A nodePort was given out by the cluster, an address is what somebody wrote down.
            if view.node.is_some_and(|node| node.has_address(one.address)) {
                let node_port = (port.port, port.protocol);
                this.at_node.push(node_port);
                let remedy = format!(" as its nodePort on {}; choose another port", one.address);
                if !has(Claim::node_port(node_port), &|| one.field(), &remedy) {
                    continue;
                }
            }
            this.all.push(at(one, port, guards_all));
        }
        this
    }

    /// Ports at this node's own addresses, whether they are served or not.
    pub(super) fn at_node(&self) -> impl Iterator<Item = NodePort> {
        self.at_node.iter().copied()
    }

    /// Those of one group; none if it has none.
    pub(super) fn of_group(
        &self,
        service: &Service,
        family: Family,
        traffic: Traffic,
    ) -> Option<OfGroup> {
        let mut group = OfGroup::default();
        let is_its =
            |(of, at, _): &&(Traffic, FrontendAt, Guarded)| *of == traffic && at.family() == family;
        for (_, at, is_guarded) in self.all.iter().filter(is_its) {
            group.frontends.insert(*at);
            if *is_guarded && service.source_ranges.is_some() {
                group.guarded.insert(*at);
            }
        }
        if !group.guarded.is_empty() {
            let ranges = service.source_ranges.iter().flatten();
            group.ranges =
                ranges.filter(|range| Family::of(range.network()) == family).copied().collect();
        }
        (!group.frontends.is_empty()).then_some(group)
    }
}

fn at(
    one: &ServiceAddress,
    port: &ServicePort,
    guards_all: bool,
) -> (Traffic, FrontendAt, Guarded) {
    let at = FrontendAt { address: one.address, port: port.port, protocol: port.protocol };
    match one.kind {
        AddressKind::ClusterIp => (Traffic::Internal, at, false),
        AddressKind::LoadBalancer => (Traffic::External, at, true),
        AddressKind::External => (Traffic::External, at, guards_all),
    }
}

fn of_service(service: &Service, field: String, problem: String) -> Finding {
    Finding {
        severity: Severity::Error,
        origin: service.origin.clone(),
        kind: Kind::Service,
        object: service.name.clone(),
        field,
        problem,
    }
}

#[cfg(test)]
#[path = "frontends_tests.rs"]
mod tests;
