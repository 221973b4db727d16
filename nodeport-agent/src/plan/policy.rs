//! Which endpoints traffic may go to: kube-proxy's `CategorizeEndpoints`
//! (`pkg/proxy/topology.go`), decision for decision.

use crate::model::Endpoint;

/// What the choice depends on beside the endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Name of this node.
    pub node: &'a str,
    /// Zone of this node, if it has one.
    pub zone: Option<&'a str>,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// The port can be reached from outside: it has a nodePort, a load balancer's address or an
    /// external one.
    pub external: bool,
}

/// The endpoints of a service port, by what they may be used for. Each list keeps the order of
/// the endpoints given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Categories<'a> {
    /// For traffic whose policy is Cluster.
    pub cluster: Vec<&'a Endpoint>,
    /// For traffic whose policy is Local.
    pub local: Vec<&'a Endpoint>,
    /// Some endpoint could answer, even if none that may be used from here: then traffic without
    /// an endpoint is dropped, not refused.
    pub any: bool,
}

impl Policy<'_> {
    const fn uses_cluster(&self) -> bool {
        !self.internal_local || self.external
    }

    const fn uses_local(&self) -> bool {
        self.internal_local || (self.external_local && self.external)
    }

    fn is_local(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(self.node)
    }
}

/// Sorts endpoints into categories.
#[must_use]
pub fn categorize<'a>(endpoints: &[&'a Endpoint], policy: &Policy<'_>) -> Categories<'a> {
    let cluster = match policy.uses_cluster() {
        true => cluster_endpoints(endpoints, policy),
        false => Vec::new(),
    };
    let local = match policy.uses_local() {
        true => local_endpoints(endpoints, policy),
        false => Vec::new(),
    };
    let any = endpoints.iter().any(|endpoint| endpoint.ready || is_fallback(endpoint));
    Categories { cluster, local, any }
}

/// Ready ones that topology admits; without any, those that still serve while they terminate.
fn cluster_endpoints<'a>(endpoints: &[&'a Endpoint], policy: &Policy<'_>) -> Vec<&'a Endpoint> {
    let topology = Topology::of(endpoints, policy);
    let admitted = |endpoint: &&Endpoint| endpoint.ready && topology.admits(endpoint, policy);
    or_fallback(filter(endpoints, admitted), || filter(endpoints, |endpoint| is_fallback(endpoint)))
}

/// Ready ones on this node, whatever topology says; without any, those here that still serve
/// while they terminate.
fn local_endpoints<'a>(endpoints: &[&'a Endpoint], policy: &Policy<'_>) -> Vec<&'a Endpoint> {
    let here = filter(endpoints, |endpoint| policy.is_local(endpoint));
    or_fallback(filter(&here, |endpoint| endpoint.ready), || {
        filter(&here, |endpoint| is_fallback(endpoint))
    })
}

fn is_fallback(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

fn filter<'a>(endpoints: &[&'a Endpoint], keep: impl Fn(&&Endpoint) -> bool) -> Vec<&'a Endpoint> {
    endpoints.iter().copied().filter(|endpoint| keep(endpoint)).collect()
}

fn or_fallback<T>(first: Vec<T>, second: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if first.is_empty() { second() } else { first }
}

/// Which hints count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    None,
    SameNode,
    SameZone,
}

impl Topology {
    /// Hints count only if every ready endpoint has one and some endpoint is meant for us:
    /// otherwise a half-written set of hints would leave clients without an endpoint.
    fn of(endpoints: &[&Endpoint], policy: &Policy<'_>) -> Self {
        let ready = filter(endpoints, |endpoint| endpoint.ready);
        let all_have = |hints: fn(&Endpoint) -> bool| ready.iter().all(|endpoint| hints(endpoint));
        let some_admit = |mode: Self| ready.iter().any(|endpoint| mode.admits(endpoint, policy));
        if all_have(|endpoint| !endpoint.nodes.is_empty()) && some_admit(Self::SameNode) {
            return Self::SameNode;
        }
        if all_have(|endpoint| !endpoint.zones.is_empty()) && some_admit(Self::SameZone) {
            return Self::SameZone;
        }
        Self::None
    }

    fn admits(self, endpoint: &Endpoint, policy: &Policy<'_>) -> bool {
        match self {
            Self::None => true,
            Self::SameNode => endpoint.nodes.iter().any(|node| &**node == policy.node),
            Self::SameZone => {
                policy.zone.is_some_and(|here| endpoint.zones.iter().any(|zone| &**zone == here))
            }
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
