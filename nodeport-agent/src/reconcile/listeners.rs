//! Processes of the node that listen where services are: reported, and given the port if the user
//! wants that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::HostListeners;
use crate::listeners::decide::{addresses, meets, outcome};
use crate::listeners::{Found, HostListener, Outcome, Watch};
use crate::model::{Family, PortName};
use crate::plan::{Changed, Group, Held, NodePort, Planner};

/// For so long a plan waits to know whose a listener is: where the port is to be left to it, no packet
/// shall meet the service first.
const LIMIT: Duration = Duration::from_secs(1);

/// What listeners have to do with services.
#[derive(Debug)]
pub(super) struct Listeners {
    /// None where nothing is looked for.
    watch: Option<Watch>,
    rule: HostListeners,
    found: Arc<[Found]>,
    known: BTreeSet<HostListener>,
}

impl Listeners {
    pub(super) fn new(watch: Option<Watch>, rule: HostListeners) -> Self {
        Self { watch, rule, found: [].into(), known: BTreeSet::new() }
    }

    /// See [`Watch::check`].
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.watch.as_ref().map_or(Ok(()), Watch::check)
    }

    /// All that are known.
    pub(super) fn all(&self) -> impl Iterator<Item = &HostListener> {
        self.known.iter()
    }

    /// Takes in what was found, and what a plan has just changed. Returns what it changed in the plan,
    /// and whether anything is to be told anew.
    pub(super) fn follow(&mut self, planner: &mut Planner, changed: &Changed) -> (Changed, bool) {
        let Some(watch) = &self.watch else { return (Changed::default(), false) };
        let groups = changed.groups.iter().filter_map(|key| planner.desired().groups.get(key));
        let is_heard = watch.ask(groups.flat_map(|group| ports(group)));
        if is_heard && self.rule == HostListeners::Yield {
            watch.settle(LIMIT);
        }
        let found = watch.found();
        let plan_changed = !changed.groups.is_empty() || changed.node.is_some();
        if Arc::ptr_eq(&found, &self.found) && (found.is_empty() || !plan_changed) {
            return (Changed::default(), false);
        }
        self.found = found;
        let (known, held) = decide(&self.found, planner, self.rule);
        let is_news = self.tell(known);
        match planner.settings().held == held {
            true => (Changed::default(), is_news),
            false => (planner.leave(held), is_news),
        }
    }

    /// Says what is new and what is over. Returns whether anything is.
    fn tell(&mut self, known: BTreeSet<HostListener>) -> bool {
        for listener in known.difference(&self.known) {
            match listener.outcome {
                Outcome::Placeholder => info!("{listener}"),
                Outcome::Served | Outcome::Left | Outcome::OneInterface => warn!("{listener}"),
            }
        }
        for listener in self.known.difference(&known) {
            info!("over: {listener}");
        }
        let is_news = known != self.known;
        self.known = known;
        is_news
    }
}

fn port(found: &Found) -> NodePort {
    (found.socket.at.port(), found.socket.protocol)
}

fn ports(group: &Group) -> impl Iterator<Item = NodePort> {
    group.frontends.iter().map(|at| (at.port, at.protocol))
}

/// Which services are met by which listeners, and what is left to these.
fn decide(
    found: &[Found],
    planner: &Planner,
    rule: HostListeners,
) -> (BTreeSet<HostListener>, Held) {
    let served = planner.desired().node_addresses.as_ref();
    let is_own = |address: IpAddr| served.is_some_and(|served| served.contains(&address));
    let (mut known, mut held) = (BTreeSet::new(), Vec::new());
    for found in found {
        let mut met: BTreeMap<&PortName, Vec<Family>> = BTreeMap::new();
        for (key, group) in planner.groups_at(port(found)) {
            if group.frontends.iter().any(|at| meets(&found.socket, at, is_own)) {
                met.entry(&key.port).or_default().push(key.family);
            }
        }
        let outcome = outcome(found, rule);
        if outcome == Outcome::Left && !met.is_empty() {
            held.extend(addresses(&found.socket).map(|address| (port(found), address)));
        }
        let met = met.into_iter();
        known.extend(met.map(|(name, families)| HostListener::new(name, families, found, outcome)));
    }
    (known, held.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use serde_json::json;

    use super::*;
    use crate::listeners::{Owner, Process, Socket};
    use crate::model::testing::{entry, name, node, ready, service, slice};
    use crate::model::{Entry, Protocol};
    use crate::plan::{Update, plan};

    const OWN: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

    /// Dual stack, TCP at 30007.
    fn web() -> Entry {
        let slices = ["10.0.0.1", "fd00::1"].into_iter().zip(1..).map(|(address, number)| {
            slice("web", number, json!([{"port": 80}]), json!([ready(address, "n1")]))
        });
        entry(service("web", json!([{"port": 80, "nodePort": 30007}])), slices.collect())
    }

    fn planner() -> Planner {
        let mut planner = Planner::new(crate::plan::testing::settings());
        let entries = [(name("web"), web())].into_iter().collect();
        planner.update(Update { node: Some(node("n1", &OWN)), entries });
        planner
    }

    fn found(at: &str, command: &str) -> Found {
        let socket = Socket {
            protocol: Protocol::Tcp,
            at: at.parse().unwrap(),
            takes_ipv4: at.starts_with("[::]"),
            interface: 0,
            inode: 1,
            uid: 0,
            cgroup: None,
        };
        let process = Some(Process { pid: 7, command: command.to_owned() });
        Found { socket, owner: Arc::new(Owner { process, ..Owner::default() }) }
    }

    /// Frontends that open flows, and those that are left to processes.
    fn frontends(planner: &Planner) -> Map<Family, [Vec<String>; 2]> {
        let groups = planner.desired().groups.iter();
        let lists = groups.map(|(key, group)| {
            let (left, served): (Vec<_>, Vec<_>) =
                group.frontends.iter().partition(|at| group.yields.contains(at));
            let told = |list: Vec<&crate::plan::FrontendAt>| {
                list.into_iter().map(|at| at.address.to_string()).collect()
            };
            (key.family, [told(served), told(left)])
        });
        lists.collect()
    }

    /// What becomes of the service where these listen, and what is told of them.
    fn outcome_of(
        found: &[Found],
        rule: HostListeners,
    ) -> (Map<Family, [Vec<String>; 2]>, Vec<Outcome>) {
        let mut planner = planner();
        let (known, held) = decide(found, &planner, rule);
        planner.leave(held);
        assert_eq!(*planner.desired(), plan(planner.model(), planner.settings()));
        assert_eq!(crate::plan::check::desired(planner.desired()), []);
        assert_eq!(decide(found, &planner, rule).0, known, "what is left is reported on");
        (frontends(&planner), known.into_iter().map(|one| one.outcome).collect())
    }

    fn lists(served: &[&str], left: &[&str]) -> [Vec<String>; 2] {
        [served, left].map(|list| list.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn what_is_left_to_listeners_and_what_is_told_of_them() {
        use HostListeners::{Serve, Yield};
        let (all4, all6) = (lists(&["0.0.0.0"], &[]), lists(&["::"], &[]));
        let (none4, none6) = (lists(&[], &["0.0.0.0"]), lists(&[], &["::"]));
        for (at, command, rule, four, six, outcomes) in [
            ("[::]:30007", "nginx", Serve, &all4, &all6, &[Outcome::Served][..]),
            ("[::]:30007", "nginx", Yield, &none4, &none6, &[Outcome::Left]),
            ("0.0.0.0:30007", "nginx", Yield, &none4, &all6, &[Outcome::Left]),
            ("[::]:30007", "kube-proxy", Yield, &all4, &all6, &[Outcome::Placeholder]),
            (
                "192.0.2.1:30007",
                "nginx",
                Yield,
                &lists(&["0.0.0.0"], &["192.0.2.1"]),
                &all6,
                &[Outcome::Left],
            ),
            ("[::]:30008", "nginx", Yield, &all4, &all6, &[]),
            ("127.0.0.1:30007", "nginx", Yield, &all4, &all6, &[]),
        ] {
            let expected = [(Family::V4, four.clone()), (Family::V6, six.clone())].into();
            let got = outcome_of(&[found(at, command)], rule);
            assert_eq!(got, (expected, outcomes.to_vec()), "{at} {command} {rule:?}");
        }
    }

    #[test]
    fn sockets_of_one_process_at_one_port_are_told_once() {
        let again = Found {
            socket: Socket { inode: 2, ..found("[::]:30007", "a").socket },
            ..found("[::]:30007", "a")
        };
        let (known, _) =
            decide(&[found("[::]:30007", "a"), again], &planner(), HostListeners::Serve);
        assert_eq!(known.len(), 1);
        assert_eq!(known.first().unwrap().families, Family::ALL);
    }

    #[test]
    fn a_port_is_served_again_when_the_listener_is_gone_or_the_service_another() {
        let mut planner = planner();
        let before = planner.desired().clone();
        let (_, held) = decide(&[found("[::]:30007", "nginx")], &planner, HostListeners::Yield);
        let changed = planner.leave(held.clone());
        assert_eq!(changed.groups.len(), 2);
        // Another service takes the port over, which is held still.
        let other = service("other", json!([{"port": 80, "nodePort": 30007}]));
        let entries =
            [(name("web"), Entry::default()), (name("other"), entry(other, web().slices))];
        let own = planner.model().node.clone();
        planner.update(Update { node: own.clone(), entries: entries.into_iter().collect() });
        assert!(planner.desired().groups.values().all(|group| !group.opens_flows()));
        let entries = [(name("web"), web()), (name("other"), Entry::default())];
        planner.update(Update { node: own, entries: entries.into_iter().collect() });
        assert_eq!(planner.leave(Held::default()).groups.len(), 2);
        assert_eq!(*planner.desired(), before);
    }
}
