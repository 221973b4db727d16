//! The table of packets.

mod admission;
mod errors;
mod fast;
mod flows;
mod headers;
mod ways;

use nodeport_common::core::env::Hook;
use nodeport_common::frames::Net;

use crate::step::{Case, Event};

/// All cases of a family.
pub(crate) fn all<F: Net>() -> Vec<Case> {
    let mut table = CaseTable { family: F::VERSION, cases: Vec::new() };
    flows::add::<F>(&mut table);
    admission::add::<F>(&mut table);
    ways::add::<F>(&mut table);
    headers::add::<F>(&mut table);
    errors::add::<F>(&mut table);
    fast::add::<F>(&mut table);
    table.cases
}

/// Where cases are collected.
pub(crate) struct CaseTable {
    family: u8,
    cases: Vec<Case>,
}

impl CaseTable {
    /// Adds a case.
    pub(crate) fn add(&mut self, name: &str, events: impl IntoIterator<Item = Event>) {
        let name = format!("ipv{}::{name}", self.family);
        self.cases.push(Case { name, events: events.into_iter().collect() });
    }

    /// Adds a case for each hook where packets arrive.
    pub(crate) fn add_arriving(&mut self, name: &str, events: impl Fn(Hook) -> Vec<Event>) {
        self.add(&format!("{name}::xdp"), events(Hook::Xdp));
        self.add(&format!("{name}::tc"), events(Hook::Ingress));
    }
}
