//! Cases of kube-proxy's own table for `CategorizeEndpoints`, and some that it lacks.

use super::*;

/// An endpoint from words: its condition (`ready`, `unready`, `draining`: serving while it
/// terminates, `dying`: terminating without serving), `@NODE`, `zone=NAME`, `node=NAME`.
fn endpoint(words: &str) -> Endpoint {
    let mut made = Endpoint {
        position: 0,
        address: [10, 0, 0, 1].into(),
        node: None,
        pod: None,
        zone: None,
        ready: false,
        serving: false,
        terminating: false,
        zones: Vec::new(),
        nodes: Vec::new(),
        is_home: true,
    };
    for word in words.split_whitespace() {
        match word.split_once(['=', '@']) {
            Some(("zone", zone)) => made.zones.push(zone.into()),
            Some(("node", node)) => made.nodes.push(node.into()),
            Some(("", node)) => made.node = Some(node.into()),
            _ => (made.ready, made.serving, made.terminating) = condition(word),
        }
    }
    made
}

fn condition(word: &str) -> (bool, bool, bool) {
    match word {
        "ready" => (true, true, false),
        "unready" => (false, false, false),
        "draining" => (false, true, true),
        "dying" => (false, false, true),
        other => panic!("{other}"),
    }
}

/// A policy from words: `eTP` and `iTP` for Local ones, `cluster-ip` for a port that cannot be
/// reached from outside, `zone=NAME` for the node's zone. The node is `here`.
fn policy(words: &str) -> Policy<'_> {
    let has = |word: &str| words.split_whitespace().any(|one| one == word);
    Policy {
        node: "here",
        zone: words.split_whitespace().find_map(|word| word.strip_prefix("zone=")),
        external_local: has("eTP"),
        internal_local: has("iTP"),
        external: !has("cluster-ip"),
    }
}

struct Case {
    name: &'static str,
    policy: &'static str,
    endpoints: &'static [&'static str],
    cluster: &'static [usize],
    local: &'static [usize],
    any: bool,
}

fn run(case: &Case) {
    let made: Vec<_> = case.endpoints.iter().map(|words| endpoint(words)).collect();
    let given: Vec<_> = made.iter().collect();
    let wanted = |positions: &[usize]| -> Vec<&Endpoint> {
        positions.iter().map(|position| given[*position]).collect()
    };
    let got = categorize(&given, &policy(case.policy));
    let same = |a: &[&Endpoint], b: &[&Endpoint]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| std::ptr::eq(*a, *b))
    };
    assert!(same(&got.cluster, &wanted(case.cluster)), "{}: cluster {:?}", case.name, got.cluster);
    assert!(same(&got.local, &wanted(case.local)), "{}: local {:?}", case.name, got.local);
    assert_eq!(got.any, case.any, "{}: any", case.name);
}

macro_rules! cases {
    ($($name:literal: $policy:literal, $endpoints:expr => $cluster:expr, $local:expr, $any:expr;)+) => {
        const CASES: &[Case] = &[$(Case {
            name: $name, policy: $policy, endpoints: &$endpoints, cluster: &$cluster,
            local: &$local, any: $any,
        },)+];
    };
}

cases! {
    // Topology.
    "hints, but the node has no zone": "",
        ["ready zone=a", "ready zone=b", "ready zone=c"] => [0, 1, 2], [], true;
    "hints for the node's zone": "zone=a",
        ["ready zone=a", "ready zone=b", "ready zone=a"] => [0, 2], [], true;
    "no hint for the node's zone": "zone=d",
        ["ready zone=a", "ready zone=b"] => [0, 1], [], true;
    "one endpoint without a hint": "zone=a",
        ["ready zone=a", "ready"] => [0, 1], [], true;
    "several zones on one endpoint": "zone=b",
        ["ready zone=a zone=b", "ready zone=c", "ready zone=b"] => [0, 2], [], true;
    "endpoints that are not ready need no hint": "zone=a",
        ["ready zone=a", "ready zone=b", "unready", "draining"] => [0], [], true;
    "a hint on one that is not ready does not count": "zone=a",
        ["unready zone=a", "ready zone=b"] => [1], [], true;
    "node hints go before zone hints": "zone=a",
        ["ready node=here zone=b", "ready node=there zone=a"] => [0], [], true;
    "node hints for others only, zone hints decide": "zone=a",
        ["ready node=there zone=a", "ready node=else zone=b"] => [0], [], true;
    "a missing node hint makes zone hints decide": "zone=a",
        ["ready node=here zone=b", "ready zone=a"] => [1], [], true;
    "node hints without zones": "",
        ["ready node=here", "ready node=there"] => [0], [], true;
    "the Local policy ignores topology": "eTP zone=a",
        ["ready @here zone=b", "ready @there zone=a"] => [1], [0], true;
    "the fallback ignores topology": "zone=a",
        ["draining zone=b", "draining zone=a"] => [0, 1], [], true;
    // Conditions.
    "nothing at all": "", [] => [], [], false;
    "ready ones only": "", ["ready", "unready", "draining", "dying"] => [0], [], true;
    "no ready one: those that serve while they terminate": "",
        ["unready", "draining", "dying", "draining"] => [1, 3], [], true;
    "none that could answer": "", ["unready", "dying"] => [], [], false;
    "ready although terminating (not-ready addresses published)": "",
        ["ready", "dying"] => [0], [], true;
    // externalTrafficPolicy: Local.
    "Local: here and elsewhere": "eTP", ["ready @here", "ready @there"] => [0, 1], [0], true;
    "Local: elsewhere only": "eTP", ["ready @there"] => [0], [], true;
    "Local: nowhere": "eTP", [] => [], [], false;
    "Local: without a node never local": "eTP", ["ready"] => [0], [], true;
    "Local: ready elsewhere, draining here": "eTP",
        ["ready @there", "draining @here"] => [0], [1], true;
    "Local: ready here, draining here": "eTP",
        ["ready @here", "draining @here"] => [0], [0], true;
    "Local: draining here and elsewhere": "eTP",
        ["draining @here", "draining @there"] => [0, 1], [0], true;
    "Local: draining elsewhere only": "eTP", ["draining @there"] => [0], [], true;
    "Local: dying here": "eTP", ["dying @here", "unready @here"] => [], [], false;
    "Local on a port that nobody outside can reach is ignored": "eTP cluster-ip",
        ["ready @here", "ready @there"] => [0, 1], [], true;
    // internalTrafficPolicy: Local.
    "internal Local only": "iTP cluster-ip", ["ready @here", "ready @there"] => [], [0], true;
    "internal Local, nothing here": "iTP cluster-ip", ["ready @there"] => [], [], true;
    "internal Local, draining here": "iTP cluster-ip",
        ["ready @there", "draining @here"] => [], [1], true;
    "internal Local and external Cluster": "iTP",
        ["ready @here", "ready @there"] => [0, 1], [0], true;
    "both Local": "iTP eTP", ["ready @here", "ready @there"] => [0, 1], [0], true;
    "internal Local, topology ignored here": "iTP cluster-ip zone=a",
        ["ready @here zone=b", "ready @there zone=a"] => [], [0], true;
}

#[test]
fn endpoints_fall_into_the_same_categories_as_in_kube_proxy() {
    CASES.iter().for_each(run);
}
