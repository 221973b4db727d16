//! What is wrong with an object, as a value: said once, shown as long as it holds.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Name;

/// Where an object came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The API server, which checked it: what it accepted is served where that is possible.
    Api,
    /// A file of manifests: nobody has checked it yet.
    File(Arc<PathBuf>),
}

impl Origin {
    /// How much it matters if a rule of the API server is broken, which looks at such things
    /// itself: in a manifest the part is refused.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Api => Severity::Warning,
            Self::File(_) => Severity::Error,
        }
    }
}

/// Kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A Service.
    Service,
    /// An EndpointSlice.
    EndpointSlice,
    /// A Node.
    Node,
    /// This agent itself, as it was configured.
    Agent,
    /// A file of manifests that cannot be told apart into objects.
    File,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Served all the same, perhaps not as meant.
    Warning,
    /// The part it is about is not served.
    Error,
}

/// Something wrong with an object. Two are the same if all of it is the same, so one that stays
/// is said once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Where the object came from.
    pub origin: Origin,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub object: Name,
    /// Path of the field in it; empty if it is about the whole.
    pub field: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity: _, origin, kind, object, field, problem } = self;
        if let Origin::File(path) = origin {
            write!(f, "{}: ", path.display())?;
        }
        if !matches!(kind, Kind::File | Kind::Agent) {
            write!(f, "{kind:?} {object}: ")?;
        }
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(problem)
    }
}

/// Findings about one object, while it is being read.
#[derive(Debug)]
pub struct Findings {
    origin: Origin,
    kind: Kind,
    object: Name,
    found: Vec<Finding>,
    unsaid: usize,
}

impl Findings {
    /// An object of ten thousand endpoints may have ten thousand faults: so many are kept, the
    /// rest is counted.
    const KEPT: usize = 16;

    /// For an object of that kind and name.
    #[must_use]
    pub const fn new(origin: Origin, kind: Kind, object: Name) -> Self {
        Self { origin, kind, object, found: Vec::new(), unsaid: 0 }
    }

    /// Where the object came from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The part at `field` is not served.
    pub fn error(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.add(Severity::Error, field.into(), problem.into());
    }

    /// The part at `field` is served, but.
    pub fn warn(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.add(Severity::Warning, field.into(), problem.into());
    }

    /// As much as [`Origin::severity`] says.
    pub fn broken_rule(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.add(self.origin.severity(), field.into(), problem.into());
    }

    fn add(&mut self, severity: Severity, field: String, problem: String) {
        if self.found.len() >= Self::KEPT {
            self.unsaid += 1;
            return;
        }
        self.found.push(self.finding(severity, field, problem));
    }

    fn finding(&self, severity: Severity, field: String, problem: String) -> Finding {
        let (origin, object) = (self.origin.clone(), self.object.clone());
        Finding { severity, origin, kind: self.kind, object, field, problem }
    }

    /// All of them.
    #[must_use]
    pub fn finish(mut self) -> Vec<Finding> {
        if self.unsaid > 0 {
            let problem = format!("{} more problems of this object are not listed", self.unsaid);
            self.found.push(self.finding(Severity::Error, String::new(), problem));
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_file_object_and_field() {
        let origin = Origin::File(Arc::new("web.yaml".into()));
        let mut findings = Findings::new(origin, Kind::Service, Name::new("default", "web"));
        findings.error("spec.ports[0].port", "0 is not a port");
        let text = findings.finish()[0].to_string();
        assert_eq!(text, "web.yaml: Service default/web: spec.ports[0].port: 0 is not a port");
    }

    #[test]
    fn many_are_counted() {
        let mut findings = Findings::new(Origin::Api, Kind::EndpointSlice, Name::new("a", "b"));
        (0..100).for_each(|index| findings.warn(format!("endpoints[{index}]"), "bad"));
        let found = findings.finish();
        assert_eq!(found.len(), Findings::KEPT + 1);
        assert!(found.last().unwrap().problem.starts_with("84 more"));
    }
}
