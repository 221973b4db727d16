//! From what is known to what shall be: pure, without clock or input and output.
//!
//! [`plan`] makes the whole of it from nothing. [`Planner`] does the same work step by step: it
//! keeps what it planned last and plans again only the services that a change touches.

#[cfg(test)]
mod bad_input_tests;
pub mod check;
mod claims;
mod desired;
mod frontends;
mod health;
mod held;
mod hints;
pub mod policy;
pub mod seed;
mod service;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod weights_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use foldhash::HashMap;

pub use claims::NodePort;
pub use desired::{Desired, FrontendAt, Group, GroupKey, Target, Traffic};
pub use health::HealthCheck;
pub use held::Held;
pub use seed::{Seed, SeedRule};

use crate::config::SourceRanges;
use crate::model::{Entry, Finding, Model, Name, Node};
use claims::{Claim, Claims};
use service::View;

/// What the plan depends on beside the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of this machine's node: endpoints on it are local.
    pub node_name: Arc<str>,
    /// What source ranges guard.
    pub source_ranges: SourceRanges,
    /// Ports that are left to processes of the node.
    pub held: Held,
}

/// Services that one thread plans, at least.
const ALONE: usize = 512;

/// Plans the whole world from nothing.
#[must_use]
pub fn plan(model: &Model, settings: &Settings) -> Desired {
    let mut planner = Planner::new(settings.clone());
    planner.update(Update { node: model.node.clone(), entries: model.entries.clone() });
    planner.desired
}

/// What changed in the world: the new state of everything that differs.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// The node, if it is known.
    pub node: Option<Arc<Node>>,
    /// Services that changed or whose slices did; an empty entry for one that went.
    pub entries: HashMap<Name, Entry>,
}

/// What an update changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Groups that came, changed or went.
    pub groups: BTreeSet<GroupKey>,
    /// All that is now wrong with the services that were planned again.
    pub findings: BTreeMap<Name, Vec<Finding>>,
    /// What is now wrong with the node, if it changed.
    pub node: Option<Vec<Finding>>,
}

impl Changed {
    /// What a later update changed as well.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        let Self { groups, findings, node } = later;
        self.groups.extend(groups);
        self.findings.extend(findings);
        self.node = node.or(self.node);
        self
    }
}

/// Whether services are planned alike on both: they depend on no more of a node than this.
fn are_planned_alike(one: Option<&Node>, other: Option<&Node>) -> bool {
    let counts = |node: Option<&Node>| {
        node.map(|node| (node.zone.clone(), node.addresses.clone(), node.is_selected))
    };
    counts(one) == counts(other)
}

/// Plans, and remembers what it planned.
#[derive(Debug)]
pub struct Planner {
    settings: Settings,
    model: Model,
    claims: Claims,
    /// Groups of each service, and the node's own ports among its endpoints.
    planned: HashMap<Name, Planned>,
    /// Services with an endpoint or a frontend at this node's own address and that port.
    at_node: HashMap<NodePort, BTreeSet<Name>>,
    desired: Desired,
}

#[derive(Debug, Default)]
struct Planned {
    groups: Vec<GroupKey>,
    at_node: BTreeSet<NodePort>,
}

impl Planner {
    /// A planner that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            model: Model::default(),
            claims: Claims::default(),
            planned: HashMap::default(),
            at_node: HashMap::default(),
            desired: Desired::default(),
        }
    }

    /// What shall be.
    #[must_use]
    pub const fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What it depends on beside the model.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it was made from.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Takes in what changed and plans again what that touches.
    pub fn update(&mut self, update: Update) -> Changed {
        let Update { node, entries } = update;
        let mut dirty: BTreeSet<Name> = entries.keys().cloned().collect();
        let mut changed = Changed::default();
        if node != self.model.node {
            if !are_planned_alike(node.as_deref(), self.model.node.as_deref()) {
                // It happens seldom.
                dirty.extend(self.model.entries.keys().cloned());
            }
            changed.node = Some(node.iter().flat_map(|node| node.findings.clone()).collect());
            let known = node.as_ref().filter(|node| node.knows_addresses());
            self.desired.node_addresses =
                known.map(|node| node.addresses.iter().copied().collect());
            self.model.node = node;
        }
        for (name, entry) in entries {
            dirty.extend(self.take(name, entry));
        }
        self.plan_again(dirty, &mut changed);
        changed
    }

    /// Leaves these ports to processes of the node, and no others.
    pub fn leave(&mut self, held: Held) -> Changed {
        let before = std::mem::replace(&mut self.settings.held, held);
        let mut dirty = BTreeSet::new();
        for port in before.difference(&self.settings.held) {
            dirty.extend(self.owners(port, &before).chain(self.owners(port, self.held())).cloned());
        }
        let mut changed = Changed::default();
        self.plan_again(dirty, &mut changed);
        changed
    }

    /// Groups with a frontend at that port.
    pub fn groups_at(&self, port: NodePort) -> impl Iterator<Item = (&GroupKey, &Group)> {
        let owners: BTreeSet<_> = self.owners(port, self.held()).collect();
        let planned = owners.into_iter().filter_map(|owner| self.planned.get(owner));
        let keys = planned.flat_map(|planned| &planned.groups);
        let groups = keys.filter_map(|key| Some((key, &**self.desired.groups.get(key)?)));
        groups.filter(move |(_, group)| {
            group.frontends.iter().any(|at| (at.port, at.protocol) == port)
        })
    }

    const fn held(&self) -> &Held {
        &self.settings.held
    }

    /// Services that have the port as a nodePort, at an address of the node, or at one that is held.
    fn owners<'a>(&'a self, port: NodePort, held: &'a Held) -> impl Iterator<Item = &'a Name> {
        let own = self.model.node.iter().flat_map(|node| &node.addresses).copied();
        let at = own.chain(held.addresses(port));
        let exact = at.map(move |address| Claim::at(address, port.0, port.1));
        std::iter::once(Claim::node_port(port))
            .chain(exact)
            .filter_map(|claim| self.claims.owner(claim))
    }

    fn plan_again(&mut self, dirty: BTreeSet<Name>, changed: &mut Changed) {
        let dirty: Vec<Name> = dirty.into_iter().collect();
        for (name, plan) in dirty.iter().zip(self.plans(&dirty)) {
            self.replace(name, plan, changed);
        }
    }

    /// Takes in one service; returns the services that it touches through a nodePort.
    fn take(&mut self, name: Name, entry: Entry) -> BTreeSet<Name> {
        let moved = self.claims.replace(&name, entry.service.as_deref());
        if entry == Entry::default() {
            self.model.entries.remove(&name);
        } else {
            self.model.entries.insert(name, entry);
        }
        let mut touched = moved.services;
        for port in moved.claims.into_iter().filter_map(Claim::as_node_port) {
            touched.extend(self.at_node.get(&port).into_iter().flatten().cloned());
        }
        touched
    }

    /// The plans for these services, made by all CPUs if they are many.
    fn plans(&self, names: &[Name]) -> Vec<service::Plan> {
        let view = View {
            node_name: &self.settings.node_name,
            node: self.model.node.as_deref(),
            source_ranges: self.settings.source_ranges,
            claims: &self.claims,
            held: &self.settings.held,
        };
        let plan = |name: &Name| {
            let entry = self.model.entries.get(name);
            entry.map(|entry| service::plan(entry, &view)).unwrap_or_default()
        };
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let share = names.len().div_ceil(cpus).max(ALONE);
        if names.len() <= share {
            return names.iter().map(plan).collect();
        }
        thread::scope(|scope| {
            let start = |part: &'_ [Name]| -> Vec<_> { part.iter().map(plan).collect() };
            let threads: Vec<_> =
                names.chunks(share).map(|part| scope.spawn(move || start(part))).collect();
            let join = |thread: ScopedJoinHandle<'_, Vec<_>>| {
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            threads.into_iter().flat_map(join).collect()
        })
    }

    fn replace(&mut self, name: &Name, plan: service::Plan, changed: &mut Changed) {
        let service::Plan { groups, health_check, findings, at_node } = plan;
        let old = self.planned.remove(name).unwrap_or_default();
        self.replace_at_node(name, &old.at_node, &at_node);
        match health_check {
            Some(check) => drop(self.desired.health_checks.insert(name.clone(), check)),
            None => drop(self.desired.health_checks.remove(name)),
        }
        let groups = self.replace_groups(&old.groups, groups, changed);
        changed.findings.insert(name.clone(), findings);
        if self.model.entries.contains_key(name) {
            self.planned.insert(name.clone(), Planned { groups, at_node });
        }
    }

    /// Returns the keys of the new ones.
    fn replace_groups(
        &mut self,
        old: &[GroupKey],
        new: BTreeMap<GroupKey, Group>,
        changed: &mut Changed,
    ) -> Vec<GroupKey> {
        for key in old.iter().filter(|key| !new.contains_key(key)) {
            self.desired.groups.remove(key);
            changed.groups.insert(key.clone());
        }
        let mut keys = Vec::with_capacity(new.len());
        for (key, group) in new {
            keys.push(key.clone());
            let known = self.desired.groups.get(&key);
            if known.is_none_or(|known| **known != group) {
                changed.groups.insert(key.clone());
                self.desired.groups.insert(key, Arc::new(group));
            }
        }
        keys
    }

    fn replace_at_node(&mut self, name: &Name, old: &BTreeSet<NodePort>, new: &BTreeSet<NodePort>) {
        for port in old.difference(new) {
            let Some(names) = self.at_node.get_mut(port) else { continue };
            names.remove(name);
            if names.is_empty() {
                self.at_node.remove(port);
            }
        }
        for port in new.difference(old) {
            self.at_node.entry(*port).or_default().insert(name.clone());
        }
    }
}
