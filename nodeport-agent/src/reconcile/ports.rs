//! What is wrong with the ports by which backends on other nodes know us.

use std::sync::Arc;

use super::Reconciler;
use crate::dataplane::{PortReport, Scarce};
use crate::events::{RESERVED, SOURCE_PORTS};
use crate::inspect::protocol;
use crate::model::{Finding, Kind, Name, Origin, Severity};
use crate::telemetry::Scope;

impl Reconciler {
    /// Says what is new, and what is over.
    pub(super) fn heed_ports(&mut self) {
        let report = self.sync.port_report();
        // Before the start, no service has a name.
        if Arc::ptr_eq(&report, &self.ports) || !self.started {
            return;
        }
        let findings = self.findings(&report);
        self.note(Scope::Ports, findings);
        self.ports = report;
    }

    fn findings(&self, report: &PortReport) -> Vec<Finding> {
        let node = Name::new("", &self.node_name);
        let unreserved = report.unreserved.iter();
        let mut findings: Vec<_> = unreserved
            .map(|problem| finding(Kind::Node, node.clone(), RESERVED, problem.clone()))
            .collect();
        for one in &report.scarce {
            let name = self.services.name(one.service);
            let name = name.unwrap_or_else(|| Name::new("", &format!("#{}", one.service)));
            findings.push(finding(Kind::Service, name, SOURCE_PORTS, scarce(one, report.ports)));
        }
        findings
    }
}

/// The same as long as it holds: no number that changes.
fn scarce(one: &Scarce, ports: u32) -> String {
    let Scarce { service: _, to } = one;
    format!(
        "most of the {ports} from {} to the backend {}/{} are in use; when all are, new connections to it \
         are dropped (no_port): add backends, or give more with --snat-ports",
        to.source,
        to.backend,
        protocol(to.protocol)
    )
}

fn finding(kind: Kind, object: Name, field: &str, problem: String) -> Finding {
    let (severity, origin) = (Severity::Warning, Origin::Api);
    Finding { severity, origin, kind, object, field: field.to_owned(), problem }
}
