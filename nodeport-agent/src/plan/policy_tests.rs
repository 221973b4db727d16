//! Cases of kube-proxy's own table for `CategorizeEndpoints`, and some that it lacks.

use super::*;

/// An endpoint from words: its condition (`ready`, `unready`, `published`: ready although it terminates,
/// `draining`: serving while it terminates, `starting`: serving and not ready, `dying`: terminating without
/// serving), `@NODE`, `zone=NAME`, `node=NAME`.
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
        "published" => (true, true, true),
        "draining" => (false, true, true),
        "starting" => (false, true, false),
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
    "hints for zones that do not exist": "zone=a",
        ["ready zone=atlantis", "ready zone=atlantis"] => [0, 1], [], true;
    "hints for nodes that do not exist": "zone=a",
        ["ready node=atlantis", "ready node=atlantis"] => [0, 1], [], true;
    "an empty name is no hint for a node without a zone": "",
        ["ready zone=", "ready zone=a"] => [0, 1], [], true;
    "several nodes on one endpoint": "",
        ["ready node=there node=here", "ready node=there"] => [0], [], true;
    "hints may leave only what is published though it terminates": "zone=a",
        ["published zone=a", "ready zone=b"] => [0], [], true;
    "the fallback ignores topology": "zone=a",
        ["draining zone=b", "draining zone=a"] => [0, 1], [], true;
    // Conditions.
    "nothing at all": "", [] => [], [], false;
    "ready ones only": "", ["ready", "unready", "draining", "dying"] => [0], [], true;
    "no ready one: those that serve while they terminate": "",
        ["unready", "draining", "dying", "draining"] => [1, 3], [], true;
    "none that could answer": "", ["unready", "dying"] => [], [], false;
    "ready although terminating (not-ready addresses published)": "",
        ["published", "ready", "dying"] => [0, 1], [], true;
    "one that serves and is not ready is no last resort": "",
        ["starting", "draining"] => [1], [], true;
    "nor can it answer": "", ["starting"] => [], [], false;
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
    "Local: published here": "eTP", ["published @here", "ready @there"] => [0, 1], [0], true;
    "Local: starting here": "eTP", ["starting @here", "ready @there"] => [1], [], true;
    "Local: both fallbacks at once": "eTP",
        ["draining @here", "draining @there", "unready @here"] => [0, 1], [0], true;
    "Local: the Cluster set follows hints, the Local one does not": "eTP zone=a",
        ["ready @here zone=b", "ready @there zone=a", "ready @there zone=b"] => [1], [0], true;
    // internalTrafficPolicy: Local.
    "internal Local only": "iTP cluster-ip", ["ready @here", "ready @there"] => [], [0], true;
    "internal Local, nothing here": "iTP cluster-ip", ["ready @there"] => [], [], true;
    "internal Local, draining here": "iTP cluster-ip",
        ["ready @there", "draining @here"] => [], [1], true;
    "internal Local and external Cluster": "iTP",
        ["ready @here", "ready @there"] => [0, 1], [0], true;
    "both Local": "iTP eTP", ["ready @here", "ready @there"] => [0, 1], [0], true;
    "both Local, and nobody outside can reach it: no Cluster set": "iTP eTP cluster-ip",
        ["ready @here", "ready @there"] => [], [0], true;
    "both Local, nothing here: the Cluster set is there all the same": "iTP eTP",
        ["ready @there", "draining @there"] => [0], [], true;
    "internal Local, nowhere": "iTP cluster-ip", ["unready @here"] => [], [], false;
    "internal Local, topology ignored here": "iTP cluster-ip zone=a",
        ["ready @here zone=b", "ready @there zone=a"] => [], [0], true;
}

#[test]
fn endpoints_fall_into_the_same_categories_as_in_kube_proxy() {
    CASES.iter().for_each(run);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
        let condition = prop::sample::select(vec![
            "ready",
            "ready",
            "ready",
            "unready",
            "published",
            "draining",
            "starting",
            "dying",
        ]);
        let place = prop::sample::select(vec!["", "@here", "@there"]);
        let hints = prop::collection::vec(
            prop::sample::select(vec!["zone=a", "zone=b", "node=here", "node=there"]),
            0..3,
        );
        let one = (condition, place, hints).prop_map(|(condition, place, hints)| {
            endpoint(&format!("{condition} {place} {}", hints.join(" ")))
        });
        prop::collection::vec(one, 0..6)
    }

    fn words() -> impl Strategy<Value = String> {
        let some = vec!["eTP", "iTP", "cluster-ip", "zone=a", "zone=c"];
        prop::sample::subsequence(some, 0..=4).prop_map(|words| words.join(" "))
    }

    /// Positions of what was chosen: of the Cluster set, of the Local one; and whether any could answer.
    fn chosen(made: &[Endpoint], policy: &Policy<'_>) -> (Vec<usize>, Vec<usize>, bool) {
        let given: Vec<_> = made.iter().collect();
        let found = categorize(&given, policy);
        let place = |one: &&Endpoint| made.iter().position(|other| std::ptr::eq(other, *one));
        let places = |list: &[&Endpoint]| list.iter().filter_map(place).collect();
        (places(&found.cluster), places(&found.local), found.any)
    }

    proptest! {
        /// Nobody gets a new connection who is neither ready nor serves while it terminates, and of the
        /// latter nobody while one of the former is in the same set's scope.
        #[test]
        fn ready_ones_go_first_in_each_scope(made in endpoints(), words in words()) {
            let policy = policy(&words);
            let (cluster, local, any) = chosen(&made, &policy);
            let has_ready = |scope: &dyn Fn(&Endpoint) -> bool| made.iter().any(|e| e.ready && scope(e));
            let here = |e: &Endpoint| e.node.as_deref() == Some("here");
            for (set, is_ready_there) in [(&cluster, has_ready(&|_| true)), (&local, has_ready(&here))] {
                let is_right = |at: &usize| match is_ready_there {
                    true => made[*at].ready,
                    false => made[*at].serving && made[*at].terminating,
                };
                prop_assert!(set.iter().all(is_right), "{set:?}");
            }
            prop_assert!(local.iter().all(|at| here(&made[*at])));
            prop_assert!(any || (cluster.is_empty() && local.is_empty()));
        }

        /// A set that is asked for is empty only where nobody could be in it: hints never leave clients
        /// without an endpoint.
        #[test]
        fn a_set_is_not_empty_without_need(made in endpoints(), words in words()) {
            let policy = policy(&words);
            let (cluster, local, any) = chosen(&made, &policy);
            prop_assert!(!policy.uses_cluster() || cluster.is_empty() != any);
            let is_local = |e: &Endpoint| e.node.as_deref() == Some("here")
                && (e.ready || (e.serving && e.terminating));
            prop_assert!(!policy.uses_local() || local.is_empty() != made.iter().any(is_local));
        }

        /// `externalTrafficPolicy` is nothing to the Cluster set of what can be reached from outside, and
        /// hints are nothing to the Local one.
        #[test]
        fn each_set_depends_on_its_own_matters_alone(made in endpoints(), words in words()) {
            let policy = policy(&words);
            let (cluster, local, any) = chosen(&made, &policy);
            let other = Policy { external_local: !policy.external_local, ..policy };
            prop_assert_eq!(&cluster, &chosen(&made, &other).0);
            let without = |e: &Endpoint| {
                Endpoint { zones: Vec::new(), nodes: Vec::new(), ..e.clone() }
            };
            let bare: Vec<_> = made.iter().map(without).collect();
            let (_, unhinted, still) = chosen(&bare, &policy);
            prop_assert_eq!((local, any), (unhinted, still));
        }

        /// Who can take nothing changes nothing for the others, hints or none.
        #[test]
        fn who_cannot_answer_might_as_well_not_be_there(made in endpoints(), words in words()) {
            let policy = policy(&words);
            let before = chosen(&made, &policy);
            let mut more = made;
            more.push(endpoint("dying @here zone=a node=here"));
            more.push(endpoint("unready @here"));
            prop_assert_eq!(chosen(&more, &policy), before);
        }
    }
}
