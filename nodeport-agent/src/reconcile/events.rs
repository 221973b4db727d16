//! What is wrong, said beside the objects that it is about.

use std::sync::Arc;

use super::Reconciler;
use crate::events::{Remark, Topic};
use crate::model::{Finding, Name};
use crate::telemetry::Scope;

impl Reconciler {
    /// Notes all that is wrong about something, and says what of it is new.
    pub(super) fn note(&mut self, scope: Scope, findings: Vec<Finding>) {
        let told = self.events.are_told().then(|| findings.clone());
        if !self.board.set(scope.clone(), findings) {
            return;
        }
        self.outdated = true;
        let Some(findings) = told else { return };
        let service = match &scope {
            Scope::Service(name) => Some(name),
            Scope::Source | Scope::Node | Scope::Ports => None,
        };
        let remark = |finding| Remark::of_finding(finding, service, &|name| self.uid(name));
        let remarks = findings.iter().filter_map(remark).collect();
        self.events.set(&Topic::Findings(scope), remarks);
    }

    pub(super) fn tell_of_listeners(&self) {
        let all = self.listeners.all();
        let remarks = all.filter_map(|one| Remark::of_listener(one, &|name| self.uid(name)));
        self.events.set(&Topic::Listeners, remarks.collect());
    }

    pub(super) fn tell_of_failures(&self) {
        let of_groups =
            self.failures.iter().filter_map(|(subject, why)| Some((subject.group()?, why)));
        let remark =
            |(group, why): (_, &String)| Remark::of_failure(group, why, &|name| self.uid(name));
        self.events.set(&Topic::Failures, of_groups.map(remark).collect());
    }

    /// The UID of a Service.
    fn uid(&self, name: &Name) -> Option<Arc<str>> {
        let service = self.planner.model().entries.get(name)?.service.as_ref()?;
        Some(service.uid.clone())
    }
}
