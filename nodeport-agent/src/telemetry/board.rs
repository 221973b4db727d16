//! What is wrong at present. Each thing is logged when it comes up and when it is over, not in
//! between.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{error, info, warn};

use crate::model::{Finding, Name, Severity};

/// What a set of findings is about: a new set replaces the old one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The source of objects.
    Source,
    /// This machine's node.
    Node,
    /// The ports by which backends know us.
    Ports,
    /// A service and its slices.
    Service(Name),
}

/// All that is wrong at present.
#[derive(Debug, Default)]
pub struct Board {
    findings: BTreeMap<Scope, BTreeSet<Finding>>,
}

impl Board {
    /// Replaces what is wrong about something, and logs what is new and what is over. Returns
    /// whether anything is.
    pub fn set(&mut self, scope: Scope, findings: Vec<Finding>) -> bool {
        let new: BTreeSet<_> = findings.into_iter().collect();
        let old = match new.is_empty() {
            true => self.findings.remove(&scope),
            false => self.findings.insert(scope, new.clone()),
        };
        let old = old.unwrap_or_default();
        new.difference(&old).for_each(log);
        old.difference(&new).for_each(|finding| info!("over: {finding}"));
        new != old
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.findings.values().flatten()
    }
}

fn log(finding: &Finding) {
    match finding.severity {
        Severity::Error => error!("{finding}"),
        Severity::Warning => warn!("{finding}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Origin};

    fn finding(problem: &str) -> Finding {
        Finding {
            severity: Severity::Error,
            origin: Origin::Api,
            kind: Kind::Service,
            object: Name::new("default", "web"),
            field: String::new(),
            problem: problem.to_owned(),
        }
    }

    #[test]
    fn only_what_is_new_or_over_is_news() {
        let mut board = Board::default();
        assert!(board.set(Scope::Source, vec![finding("a"), finding("b")]));
        assert!(!board.set(Scope::Source, vec![finding("b"), finding("a"), finding("a")]));
        assert!(board.set(Scope::Source, vec![finding("b")]));
        assert_eq!(board.iter().count(), 1);
        assert!(board.set(Scope::Source, vec![]));
        assert!(!board.set(Scope::Source, vec![]));
        assert_eq!(board.iter().count(), 0);
    }
}
