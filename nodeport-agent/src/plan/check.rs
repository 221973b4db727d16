//! What must hold of a desired state. A plan that breaks one of these is a mistake of ours: what
//! it says about that group is not carried out.

use foldhash::HashMap;

#[cfg(test)]
use super::desired::Traffic;
use super::desired::{Desired, FrontendAt, Group, GroupKey, Target};
use crate::model::Family;

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The group that is not as it must be.
    pub group: GroupKey,
    /// What does not hold.
    pub what: String,
}

/// Checks a whole state.
#[must_use]
pub fn desired(desired: &Desired) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut owners: HashMap<FrontendAt, &GroupKey> = HashMap::default();
    for (key, group) in &desired.groups {
        violations.extend(self::group(key, group));
        for frontend in &group.frontends {
            if let Some(other) = owners.insert(*frontend, key) {
                let what = format!("{frontend} belongs to {other} too");
                violations.push(Violation { group: key.clone(), what });
            }
        }
    }
    violations
}

/// Checks one group by itself.
#[must_use]
pub fn group(key: &GroupKey, group: &Group) -> Vec<Violation> {
    let mut broken = Vec::new();
    if group.frontends.is_empty() {
        broken.push("it has no frontend".to_owned());
    }
    if !group.yields.is_subset(&group.frontends) {
        broken.push("it yields what is no frontend of it".to_owned());
    }
    for frontend in &group.frontends {
        if frontend.family() != key.family || frontend.protocol != key.port.protocol {
            broken.push(format!("{frontend} is not of its family and protocol"));
        }
        if frontend.port == 0 {
            broken.push(format!("{frontend} has no port"));
        }
    }
    if !group.guarded.is_subset(&group.frontends) {
        broken.push("it guards what is none of its frontends".to_owned());
    }
    ranges(key.family, group, &mut broken);
    targets("usable", &group.usable, key.family, &mut broken);
    for target in group.usable.iter().filter(|target| target.weight == 0) {
        broken.push(format!("{} is usable and weighs nothing", target.at));
    }
    targets("lingering", &group.lingering, key.family, &mut broken);
    for target in &group.lingering {
        if group.usable.binary_search_by(|one| one.at.cmp(&target.at)).is_ok() {
            broken.push(format!("{} is usable and lingering", target.at));
        }
    }
    broken.into_iter().map(|what| Violation { group: key.clone(), what }).collect()
}

fn ranges(family: Family, group: &Group, broken: &mut Vec<String>) {
    if group.guarded.is_empty() && !group.ranges.is_empty() {
        broken.push("it has source ranges and nothing that they guard".to_owned());
    }
    for range in &group.ranges {
        if Family::of(range.network()) != family || *range != range.trunc() {
            broken.push(format!("{range} is no source range of its family"));
        }
    }
}

fn targets(list: &str, targets: &[Target], family: Family, broken: &mut Vec<String>) {
    for pair in targets.windows(2) {
        if pair[0].at >= pair[1].at {
            broken.push(format!("{list}: {} stands before {}", pair[0].at, pair[1].at));
        }
    }
    for target in targets {
        if Family::of(target.at.ip()) != family || target.at.port() == 0 {
            broken.push(format!("{list}: {} is no endpoint of its family", target.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Algorithm, Name, PortName, Protocol};

    fn key() -> GroupKey {
        let service = Name::new("default", "web");
        let port = PortName { service, port: "".into(), protocol: Protocol::Tcp };
        GroupKey { port, family: Family::V4, traffic: Traffic::External }
    }

    fn target(at: &str) -> Target {
        Target { at: at.parse().unwrap(), local: false, node: None, weight: 1 }
    }

    fn good() -> Group {
        let frontends: BTreeSet<_> =
            [FrontendAt::node_port(Family::V4, 30007, Protocol::Tcp)].into();
        Group {
            port: 80,
            guarded: frontends.clone(),
            ranges: vec!["192.0.2.0/24".parse().unwrap()],
            frontends,
            affinity: 0,
            algorithm: Algorithm::Maglev,
            yields: BTreeSet::new(),
            usable: vec![target("10.0.0.1:80"), target("10.0.0.2:80")],
            lingering: vec![target("10.0.0.3:80")],
            drops: false,
        }
    }

    #[test]
    fn a_good_group_passes() {
        assert_eq!(group(&key(), &good()), []);
    }

    #[test]
    fn each_rule_is_checked() {
        type Break = (&'static str, fn(&mut Group));
        let broken: [Break; 12] = [
            ("none of its frontends", |group| {
                group.guarded = [FrontendAt::node_port(Family::V4, 1, Protocol::Tcp)].into();
            }),
            ("nothing that they guard", |group| group.guarded.clear()),
            ("no source range", |group| group.ranges = vec!["fd00::/8".parse().unwrap()]),
            ("no frontend", |group| group.frontends.clear()),
            ("not of its family", |group| {
                group.frontends = [FrontendAt::node_port(Family::V6, 1, Protocol::Tcp)].into();
            }),
            ("no port", |group| {
                group.frontends = [FrontendAt::node_port(Family::V4, 0, Protocol::Tcp)].into();
            }),
            ("yields what is no frontend", |group| {
                group.yields = [FrontendAt::node_port(Family::V4, 1, Protocol::Tcp)].into();
            }),
            ("stands before", |group| group.usable.reverse()),
            ("no endpoint of its family", |group| group.usable = vec![target("[fd00::1]:80")]),
            ("no endpoint of its family", |group| group.usable = vec![target("10.0.0.1:0")]),
            ("weighs nothing", |group| group.usable[0].weight = 0),
            ("usable and lingering", |group| group.lingering = group.usable.clone()),
        ];
        for (part, breaks) in broken {
            let mut bad = good();
            breaks(&mut bad);
            let violations = group(&key(), &bad);
            assert!(violations.iter().any(|one| one.what.contains(part)), "{part}: {violations:?}");
        }
    }

    #[test]
    fn a_frontend_has_one_group() {
        let mut other = key();
        other.port.port = "other".into();
        let groups = [(key(), Arc::new(good())), (other, Arc::new(good()))].into();
        let violations = desired(&Desired { groups, ..Desired::default() });
        assert!(violations[0].what.contains("belongs to"), "{violations:?}");
    }
}
