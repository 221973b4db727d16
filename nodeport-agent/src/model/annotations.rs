//! What a Service asks for by annotations: things of this load balancer's own, which no field of the
//! API has.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Endpoint, Findings};

/// What all our annotations begin with.
pub const PREFIX: &str = "nodeport.dev/";
/// Which algorithm chooses the endpoint of a new connection.
const ALGORITHM: &str = "nodeport.dev/algorithm";
/// How much endpoints take beside each other.
const WEIGHTS: &str = "nodeport.dev/weights";

/// The heaviest weight.
const HEAVIEST: u32 = 100;
/// What an endpoint weighs of which nothing is said.
const UNNAMED: u32 = 1;

type Annotations = BTreeMap<String, String>;

/// Which endpoint a new connection goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// The one that Maglev names: the same on every node.
    #[default]
    Maglev,
    /// One drawn by lot.
    Random,
    /// Of two drawn by lot, the one with fewer connections of this node for its weight.
    Least,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Maglev, Self::Random, Self::Least];

    const fn name(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Random => "random",
            Self::Least => "least",
        }
    }

    /// The algorithm that the annotation names; Maglev if there is none, or no such.
    pub(super) fn of(annotations: Option<&Annotations>, findings: &mut Findings) -> Self {
        let Some(text) = annotations.and_then(|all| all.get(ALGORITHM)) else {
            return Self::default();
        };
        let found = Self::ALL.into_iter().find(|one| one.name() == text.trim());
        found.unwrap_or_else(|| {
            let problem = format!(
                "{text:?} is no algorithm and counts as maglev; write maglev, random or least"
            );
            findings.warn(field(ALGORITHM), problem);
            Self::default()
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How much endpoints take beside each other, by what a user can name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    by_subject: BTreeMap<Subject, u32>,
}

/// Whom a weight is given. What stands first counts, if several are true of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// The endpoint at that address.
    Address(IpAddr),
    /// The endpoint that is that pod.
    Pod(Arc<str>),
    /// All on that node.
    Node(Arc<str>),
    /// All in that zone.
    Zone(Arc<str>),
    /// All others.
    Rest,
}

impl Weights {
    /// The weights that the annotation gives. If anything is wrong with it, it counts for nothing: who
    /// reads half of a list may send everything to the endpoint that was to be spared.
    pub(super) fn of(annotations: Option<&Annotations>, findings: &mut Findings) -> Self {
        let Some(text) = annotations.and_then(|all| all.get(WEIGHTS)) else {
            return Self::default();
        };
        parse(text).unwrap_or_else(|problem| {
            let problem = format!("{problem}; until then all endpoints weigh the same");
            findings.warn(field(WEIGHTS), problem);
            Self::default()
        })
    }

    /// What an endpoint weighs; 0 if it is to get no new connections.
    #[must_use]
    pub fn weight(&self, endpoint: &Endpoint) -> u32 {
        if self.by_subject.is_empty() {
            return UNNAMED;
        }
        let name =
            |subject: fn(Arc<str>) -> Subject, name: &Option<Arc<str>>| name.clone().map(subject);
        let subjects = [
            Some(Subject::Address(endpoint.address)),
            name(Subject::Pod, &endpoint.pod),
            name(Subject::Node, &endpoint.node),
            name(Subject::Zone, &endpoint.zone),
            Some(Subject::Rest),
        ];
        let found = subjects.iter().flatten().find_map(|subject| self.by_subject.get(subject));
        found.copied().unwrap_or(UNNAMED)
    }
}

/// Reports annotations of ours that we do not know: they were meant to do something.
pub(super) fn report_unknown(annotations: Option<&Annotations>, findings: &mut Findings) {
    let ours = annotations.into_iter().flatten().filter(|(name, _)| name.starts_with(PREFIX));
    for (name, _) in ours.filter(|(name, _)| ![ALGORITHM, WEIGHTS].contains(&name.as_str())) {
        let problem = format!("not known, and ignored; there are {ALGORITHM} and {WEIGHTS}");
        findings.warn(field(name), problem);
    }
}

fn field(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

/// Reads `SUBJECT=WEIGHT, …`.
fn parse(text: &str) -> Result<Weights, String> {
    let mut by_subject = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((who, weight)) = part.split_once('=') else {
            return Err(format!("{part:?} has no weight; write {part}=WEIGHT"));
        };
        let subject = subject(who.trim())?;
        let weight = number(weight.trim(), part)?;
        if by_subject.insert(subject, weight).is_some() {
            return Err(format!("{:?} has two weights; give it one", who.trim()));
        }
    }
    Ok(Weights { by_subject })
}

fn subject(text: &str) -> Result<Subject, String> {
    if text == "*" {
        return Ok(Subject::Rest);
    }
    if let Ok(address) = text.parse() {
        return Ok(Subject::Address(address));
    }
    let known = match text.split_once('/') {
        Some((_, "")) | None => None,
        Some(("pod", name)) => Some(Subject::Pod(name.into())),
        Some(("node", name)) => Some(Subject::Node(name.into())),
        Some(("zone", name)) => Some(Subject::Zone(name.into())),
        Some(_) => None,
    };
    known.ok_or_else(|| {
        format!("{text:?} names no endpoint; write an address, pod/NAME, node/NAME, zone/NAME or *")
    })
}

fn number(text: &str, part: &str) -> Result<u32, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_plain && *number <= HEAVIEST);
    number.ok_or_else(|| format!("{part:?}: a weight is a whole number from 0 to {HEAVIEST}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Finding, Kind, Name, Origin, Severity};

    fn read<T>(
        name: &str,
        text: &str,
        of: fn(Option<&Annotations>, &mut Findings) -> T,
    ) -> (T, Vec<Finding>) {
        let mut findings = Findings::new(Origin::Api, Kind::Service, Name::new("default", "web"));
        let annotations = [(name.to_owned(), text.to_owned())].into();
        (of(Some(&annotations), &mut findings), findings.finish())
    }

    fn weights(text: &str) -> (Weights, Vec<Finding>) {
        read(WEIGHTS, text, Weights::of)
    }

    fn endpoint(address: &str) -> Endpoint {
        Endpoint {
            is_home: false,
            position: 0,
            address: address.parse().unwrap(),
            node: Some("n1".into()),
            pod: Some("web-1".into()),
            zone: Some("a".into()),
            ready: true,
            serving: true,
            terminating: false,
            zones: Vec::new(),
            nodes: Vec::new(),
        }
    }

    #[test]
    fn an_endpoint_has_the_weight_of_what_is_said_most_closely_of_it() {
        for (text, four, six) in [
            ("", 1, 1),
            (" , ,", 1, 1),
            ("*=7", 7, 7),
            ("zone/a=3, *=7", 3, 3),
            ("zone/b=3, *=7", 7, 7),
            ("node/n1=0,zone/a=3", 0, 0),
            ("pod/web-1=9, node/n1=0", 9, 9),
            ("10.0.0.1=2, pod/web-1=9", 2, 9),
            ("fd00:0::1 = 100, 10.0.0.1=0", 0, 100),
            ("pod/web-2=5, node/n2=5, zone/b=5, 10.0.0.2=5", 1, 1),
        ] {
            let (read, findings) = weights(text);
            assert_eq!(findings, [], "{text}");
            let [v4, v6] = ["10.0.0.1", "fd00::1"].map(|at| read.weight(&endpoint(at)));
            assert_eq!((v4, v6), (four, six), "{text}");
        }
    }

    #[test]
    fn nobody_in_particular_is_one_of_the_rest() {
        let nobody = Endpoint { node: None, pod: None, zone: None, ..endpoint("10.0.0.9") };
        assert_eq!(weights("pod/web-1=5, node/n1=5, zone/a=5").0.weight(&nobody), 1);
        assert_eq!(weights("node/n1=5, *=4").0.weight(&nobody), 4);
    }

    #[test]
    fn what_makes_no_sense_is_reported_and_all_weigh_the_same() {
        for (text, part) in [
            ("10.0.0.1", "has no weight"),
            ("10.0.0.1=", "from 0 to 100"),
            ("10.0.0.1=-1", "from 0 to 100"),
            ("10.0.0.1=+1", "from 0 to 100"),
            ("10.0.0.1=0.5", "from 0 to 100"),
            ("10.0.0.1=101", "from 0 to 100"),
            ("10.0.0.1=99999999999", "from 0 to 100"),
            ("web-1=3", "names no endpoint"),
            ("pod/=3", "names no endpoint"),
            ("host/a=3", "names no endpoint"),
            ("10.0.0.0/8=3", "names no endpoint"),
            ("=3", "names no endpoint"),
            ("*=3, *=4", "two weights"),
            ("fd00::1=3, fd00:0::1=4", "two weights"),
        ] {
            let (read, findings) = weights(&format!("pod/web-1=50, {text}"));
            assert_eq!(read, Weights::default(), "{text}");
            assert_eq!(findings.len(), 1, "{text}");
            let said = findings[0].to_string();
            let begin = "Service default/web: metadata.annotations[nodeport.dev/weights]: ";
            assert!(said.starts_with(begin) && said.contains(part), "{text}: {said}");
            assert_eq!(findings[0].severity, Severity::Warning);
        }
    }

    #[test]
    fn an_algorithm_is_one_of_three() {
        for one in Algorithm::ALL {
            let (read, findings) = read(ALGORITHM, &format!(" {one} "), Algorithm::of);
            assert_eq!((read, findings.len()), (one, 0));
        }
        for other in ["", "Maglev", "rr", "least,random"] {
            let (read, findings) = read(ALGORITHM, other, Algorithm::of);
            assert_eq!(read, Algorithm::Maglev);
            assert_eq!(findings[0].field, "metadata.annotations[nodeport.dev/algorithm]");
        }
    }

    #[test]
    fn what_is_not_known_of_ours_is_reported() {
        let unknown = |name: &str| read(name, "", report_unknown).1.len();
        assert_eq!(unknown("nodeport.dev/weight"), 1);
        assert_eq!([WEIGHTS, ALGORITHM, "example.com/weight"].map(unknown), [0; 3]);
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_or_reported(text in "[a-z0-9.:/=*, -]{0,40}") {
            let (read, findings) = weights(&text);
            let weight = read.weight(&endpoint("10.0.0.1"));
            prop_assert!(weight <= HEAVIEST);
            prop_assert!(findings.is_empty() || read == Weights::default());
        }
    }
}
