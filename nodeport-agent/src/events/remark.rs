//! What an Event says, made from what was found: pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Combined;
use crate::listeners::{HostListener, Outcome};
use crate::model::{Finding, Kind, Name, Origin};
use crate::plan::GroupKey;

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Regarding {
    /// Its kind; of a file and of the agent itself there are no Events.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Its UID, if it is known: `kubectl describe` shows the Events that bear it.
    pub uid: Arc<str>,
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The object.
    pub regarding: Regarding,
    /// What is wrong, as one word.
    pub reason: &'static str,
    /// What the agent was about to do.
    pub action: &'static str,
    /// What is wrong and what to do.
    pub problem: String,
}

/// What is told in one Event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) regarding: Regarding,
    pub(super) reason: &'static str,
}

/// What that Event says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Told {
    pub(super) action: &'static str,
    pub(super) note: String,
}

/// The UID of a Service, if it is known.
pub type Uids<'a> = &'a dyn Fn(&Name) -> Option<Arc<str>>;

/// Bytes of a note that the API server takes.
const LONGEST_NOTE: usize = 1_024;
/// Bytes that are kept for saying how much more there is.
const FOR_MORE: usize = 96;

impl Remark {
    /// What a finding says about an object of the cluster; none about others. What is wrong with a
    /// slice is told beside its Service, where its author looks, if `service` names one.
    #[must_use]
    pub fn of_finding(finding: &Finding, service: Option<&Name>, uids: Uids<'_>) -> Option<Self> {
        if finding.origin != Origin::Api || matches!(finding.kind, Kind::File | Kind::Agent) {
            return None;
        }
        let Finding { kind, object, field, problem, .. } = finding;
        let place = match (kind, service) {
            (Kind::EndpointSlice, Some(_)) => format!("EndpointSlice {}: ", object.name),
            _ => String::new(),
        };
        let colon = if field.is_empty() { "" } else { ": " };
        let regarding = match (kind, service) {
            (Kind::EndpointSlice, Some(service)) => of_service(service, uids),
            (Kind::Service, _) => of_service(object, uids),
            (Kind::Node, _) => of_node(object),
            _ => Regarding { kind: *kind, name: object.clone(), uid: "".into() },
        };
        Some(Self {
            regarding,
            reason: reason(*kind, field),
            action: if field == HEALTH_CHECK { "Listen" } else { "Serve" },
            problem: format!("{place}{field}{colon}{problem}"),
        })
    }

    /// What is told of an interface of this node that is not served, or by TC where XDP could be.
    #[must_use]
    pub fn of_interface(node: &str, interface: &str, is_served: bool, why: &str) -> Self {
        let outcome = if is_served { "TC, not XDP" } else { "not served" };
        Self {
            regarding: of_node(&Name::new("", node)),
            reason: if is_served { "WithoutXDP" } else { "InterfaceNotServed" },
            action: "Attach",
            problem: format!("{interface}: {outcome}: {why}"),
        }
    }

    /// What is told of a process that listens where a Service is; nothing where that is as it should be.
    #[must_use]
    pub fn of_listener(listener: &HostListener, uids: Uids<'_>) -> Option<Self> {
        let (namespace, name) = listener.service.split_once('/')?;
        (listener.outcome != Outcome::Placeholder).then(|| Self {
            regarding: of_service(&Name::new(namespace, name), uids),
            reason: "PortInUseOnNode",
            action: "Listen",
            problem: listener.to_string(),
        })
    }

    /// What is told of a service port that could not be written into the maps.
    #[must_use]
    pub fn of_failure(group: &GroupKey, why: &str, uids: Uids<'_>) -> Self {
        Self {
            regarding: of_service(&group.port.service, uids),
            reason: "NotInMaps",
            action: "Program",
            problem: format!("{group}: {why} (it is tried again)"),
        }
    }
}

/// The kubelet's own Events bear a Node's name for its UID, and `kubectl` looks for that.
fn of_node(name: &Name) -> Regarding {
    Regarding { kind: Kind::Node, name: name.clone(), uid: name.name.clone() }
}

fn of_service(name: &Name, uids: Uids<'_>) -> Regarding {
    Regarding { kind: Kind::Service, name: name.clone(), uid: uids(name).unwrap_or_default() }
}

/// kube-proxy's own word and action are kept for it: people have alerts on them.
const HEALTH_CHECK: &str = "spec.healthCheckNodePort";

/// What a finding is about that the ports to a backend are scarce.
pub(crate) const SOURCE_PORTS: &str = "source ports";
/// What a finding is about that ports could not be reserved.
pub(crate) const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

/// A word for what a field's being wrong comes to.
fn reason(kind: Kind, field: &str) -> &'static str {
    const OF_SERVICE: [(&str, &str); 5] = [
        ("spec.externalIPs", "ExternalIPNotServed"),
        ("spec.clusterIPs", "ClusterIPNotServed"),
        ("status.loadBalancer", "LoadBalancerIPNotServed"),
        ("spec.loadBalancerSourceRanges", "SourceRangesShutOut"),
        ("metadata.annotations", "AnnotationNotUsable"),
    ];
    match kind {
        Kind::Service if field == HEALTH_CHECK => "FailedToStartServiceHealthcheck",
        Kind::Service if field == SOURCE_PORTS => "SourcePortsScarce",
        Kind::Node if field == RESERVED => "PortsNotReserved",
        Kind::Service if field.ends_with(".protocol") => "ProtocolNotSupported",
        Kind::Service if field.ends_with(".nodePort") => "NodePortConflict",
        Kind::Service => OF_SERVICE
            .iter()
            .find(|(start, _)| field.starts_with(start))
            .map_or("ServedOtherwise", |(_, reason)| reason),
        Kind::EndpointSlice if field.starts_with("endpoints") => "EndpointNotUsable",
        Kind::EndpointSlice => "EndpointSliceNotUsable",
        Kind::Node | Kind::File | Kind::Agent => "NodeNotUsable",
    }
}

/// Remarks with one reason about one object become one, which says as many of them as there is
/// room for, and how many more there are.
pub(super) fn combine(remarks: Vec<Remark>) -> Combined {
    let mut sorted: BTreeMap<Key, (&'static str, Vec<String>)> = BTreeMap::new();
    for Remark { regarding, reason, action, problem } in remarks {
        let (_, problems) = sorted.entry(Key { regarding, reason }).or_insert((action, Vec::new()));
        problems.push(problem);
    }
    let told = |(action, problems)| Told { action, note: note(problems) };
    sorted.into_iter().map(|(key, value)| (key, told(value))).collect()
}

fn note(mut problems: Vec<String>) -> String {
    // The same things in another order are the same, whichever node says them.
    problems.sort_unstable();
    problems.dedup();
    let mut note = String::new();
    for (told, problem) in problems.iter().enumerate() {
        let between = if told == 0 { "" } else { "; " };
        if told > 0 && note.len() + between.len() + problem.len() > LONGEST_NOTE - FOR_MORE {
            let more = problems.len() - told;
            // Writing to a text cannot fail.
            let _ = write!(note, "; and {more} more: `nodeport-agent status` lists them");
            break;
        }
        note.push_str(between);
        note.push_str(problem);
        note.truncate(note.floor_char_boundary(LONGEST_NOTE - FOR_MORE));
    }
    note
}

/// The name of an Event: for the same thing the same on every node.
pub(super) fn event_name(key: &Key, told: &Told) -> String {
    let mut hasher = DefaultHasher::new();
    (key, told).hash(&mut hasher);
    let hash = format!(".{:016x}", hasher.finish());
    // A name of the API has 253 characters at most.
    let object = &key.regarding.name.name;
    let object = &object[..object.floor_char_boundary(253 - hash.len())];
    format!("{}{hash}", object.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;

    pub(in super::super) fn finding(kind: Kind, object: &str, field: &str) -> Finding {
        Finding {
            severity: Severity::Error,
            origin: Origin::Api,
            kind,
            object: Name::new("default", object),
            field: field.to_owned(),
            problem: "is wrong; make it right".to_owned(),
        }
    }

    fn uids(name: &Name) -> Option<Arc<str>> {
        (&*name.name == "web").then(|| "u-1".into())
    }

    #[test]
    fn each_field_has_its_reason_and_its_object() {
        let web = Name::new("default", "web");
        for (kind, object, field, reason, told) in [
            (Kind::Service, "web", "spec.ports[1].protocol", "ProtocolNotSupported", "web u-1"),
            (Kind::Service, "web", "spec.ports[0].nodePort", "NodePortConflict", "web u-1"),
            (Kind::Service, "web", "spec.externalIPs[0]", "ExternalIPNotServed", "web u-1"),
            (Kind::Service, "web", HEALTH_CHECK, "FailedToStartServiceHealthcheck", "web u-1"),
            (Kind::Service, "web", "spec.sessionAffinity", "ServedOtherwise", "web u-1"),
            (
                Kind::EndpointSlice,
                "web-1",
                "endpoints[3].addresses[0]",
                "EndpointNotUsable",
                "web u-1",
            ),
            (Kind::EndpointSlice, "web-1", "addressType", "EndpointSliceNotUsable", "web u-1"),
            (Kind::Service, "web", SOURCE_PORTS, "SourcePortsScarce", "web u-1"),
            (Kind::Node, "n1", "status.addresses", "NodeNotUsable", "n1 n1"),
            (Kind::Node, "n1", RESERVED, "PortsNotReserved", "n1 n1"),
        ] {
            let found = finding(kind, object, field);
            let remark = Remark::of_finding(&found, Some(&web), &uids).unwrap();
            let Regarding { name, uid, .. } = &remark.regarding;
            assert_eq!(
                (remark.reason, &*format!("{} {uid}", name.name)),
                (reason, told),
                "{field}"
            );
            assert!(remark.problem.contains(field) && remark.problem.contains("make it right"));
        }
        let found = finding(Kind::EndpointSlice, "lonely", "metadata.labels");
        let remark = Remark::of_finding(&found, None, &uids).unwrap();
        assert_eq!(
            (remark.regarding.kind, &*remark.regarding.name.name),
            (Kind::EndpointSlice, "lonely")
        );
    }

    #[test]
    fn files_have_no_events() {
        let mut found = finding(Kind::Service, "web", "spec");
        found.origin = Origin::File(Arc::new("web.yaml".into()));
        assert_eq!(Remark::of_finding(&found, None, &uids), None);
    }

    #[test]
    fn many_of_one_kind_become_one_event_that_fits() {
        let remarks = |order: &mut dyn Iterator<Item = u32>| {
            let remark = |number| {
                let field = format!("endpoints[{number}].addresses[0]");
                let found = finding(Kind::EndpointSlice, "web-1", &field);
                Remark::of_finding(&found, Some(&Name::new("default", "web")), &uids).unwrap()
            };
            combine(order.map(remark).collect())
        };
        let combined = remarks(&mut (0..5_000));
        assert_eq!(combined, remarks(&mut (0..5_000).rev()), "in whatever order they come");
        let [told] = &combined.values().collect::<Vec<_>>()[..] else { panic!("{combined:?}") };
        assert!(told.note.len() <= LONGEST_NOTE, "{}", told.note.len());
        assert!(told.note.contains("endpoints[0]"), "{}", told.note);
        let shown = told.note.matches("endpoints[").count();
        assert!(told.note.contains(&format!("and {} more", 5_000 - shown)), "{}", told.note);
    }

    #[test]
    fn a_text_of_any_length_fits_and_stays_text() {
        let mut found = finding(Kind::Service, "web", "spec");
        found.problem = "ü".repeat(3_000);
        let combined = combine(vec![Remark::of_finding(&found, None, &uids).unwrap()]);
        assert!(combined.values().all(|told| told.note.len() <= LONGEST_NOTE));
    }

    #[test]
    fn names_are_the_api_s_and_tell_different_things_apart() {
        let named = |object: &str, field: &str| {
            let remark = Remark::of_finding(&finding(Kind::Service, object, field), None, &uids);
            let combined = combine(remark.into_iter().collect());
            combined.iter().map(|(key, told)| event_name(key, told)).next().unwrap()
        };
        assert_eq!(named("web", "spec.x"), named("web", "spec.x"));
        assert_ne!(named("web", "spec.x"), named("web", "spec.y"));
        let long = named(&"a-".repeat(126), "spec.x");
        assert!(long.len() <= 253 && !long.contains("-."), "{long}");
    }
}
