//! Writes that are handed over together, each with the subject that it is for.

use foldhash::HashMap;

use crate::dataplane::{Dataplane, Failure, Op};
use crate::plan::GroupKey;

/// What a write is for; if it fails, this must be tried again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A group.
    Group(GroupKey),
    /// The seed of the choice of backends.
    Seed,
    /// The node's addresses.
    NodeAddresses,
    /// What was found at the start and is not wanted.
    Adoption,
    /// What was replaced and is to be freed.
    Leavings,
}

impl Subject {
    /// The group, if it is one.
    #[must_use]
    pub const fn group(&self) -> Option<&GroupKey> {
        match self {
            Self::Group(key) => Some(key),
            _ => None,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(key) => key.fmt(f),
            Self::Seed => f.write_str("the seed of the choice of backends"),
            Self::NodeAddresses => {
                f.write_str("the addresses of the node, and those that services name")
            }
            Self::Adoption => f.write_str("what an earlier run left in the maps"),
            Self::Leavings => f.write_str("what was replaced in the maps"),
        }
    }
}

/// Writes, each with what to note down once it has succeeded.
#[derive(Debug)]
pub(super) struct Batch<N> {
    ops: Vec<Op>,
    notes: Vec<(Subject, N)>,
}

/// How a batch went.
#[derive(Debug)]
pub(super) struct Outcome<N> {
    pub(super) done: Vec<N>,
    pub(super) failed: HashMap<Subject, anyhow::Error>,
}

impl<N> Batch<N> {
    pub(super) const fn new() -> Self {
        Self { ops: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn push(&mut self, subject: Subject, op: Op, note: N) {
        self.ops.push(op);
        self.notes.push((subject, note));
    }

    /// Hands all writes over, in order.
    pub(super) fn apply(self, dataplane: &mut dyn Dataplane) -> Outcome<N> {
        let Self { ops, notes } = self;
        let mut outcome =
            Outcome { done: Vec::with_capacity(notes.len()), failed: HashMap::default() };
        if ops.is_empty() {
            return outcome;
        }
        let failures = dataplane.apply(&ops).into_iter();
        let mut failures: HashMap<usize, anyhow::Error> =
            failures.map(|Failure { index, error }| (index, error)).collect();
        for (index, (subject, note)) in notes.into_iter().enumerate() {
            match failures.remove(&index) {
                None => outcome.done.push(note),
                // The first failure of a subject says what the others would say.
                Some(error) => {
                    outcome.failed.entry(subject).or_insert(error);
                }
            }
        }
        outcome
    }
}
