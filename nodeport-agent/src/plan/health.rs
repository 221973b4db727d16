//! Health checks of services: where load balancers ask whether a node has endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Endpoint, Family, Service, Slice};

/// A service's health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Its `healthCheckNodePort`.
    pub port: u16,
    v4: usize,
    v6: usize,
}

impl HealthCheck {
    /// With so many endpoints in each family.
    #[must_use]
    pub fn new(port: u16, endpoints: impl Fn(Family) -> usize) -> Self {
        Self { port, v4: endpoints(Family::V4), v6: endpoints(Family::V6) }
    }

    /// How many endpoints on this node are ready: those of the family in which the load balancer asks,
    /// which is the one in which it will send.
    #[must_use]
    pub const fn endpoints(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// The health check of a service, if it has one. Ready endpoints that weigh something count, not those that
/// serve on while they terminate; each address once, however many ports it has.
pub(super) fn check(
    service: &Service,
    slices: &[Arc<Slice>],
    node_name: &str,
) -> Option<HealthCheck> {
    let port = service.health_check_port?;
    let counts = |endpoint: &&Endpoint| {
        endpoint.ready
            && service.weights.weight(endpoint) > 0
            && endpoint.node.as_deref().is_some_and(|node| node == node_name)
    };
    let endpoints = |family| {
        let slices = slices.iter().filter(|slice| slice.family == Some(family));
        let endpoints = slices.flat_map(|slice| &slice.endpoints).filter(counts);
        endpoints.map(|endpoint| endpoint.address).collect::<BTreeSet<IpAddr>>().len()
    };
    Some(HealthCheck::new(port, endpoints))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Origin;
    use crate::model::testing::{draining, ready, rules, slice};

    fn service(spec: &Value) -> Service {
        let mut object = json!({"metadata": {"name": "web"}, "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32_000,
            "ports": [{"port": 80, "nodePort": 30_007, "name": "a"}, {"port": 81, "nodePort": 30_008, "name": "b"}],
        }});
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        Service::new(&serde_json::from_value(object).unwrap(), Origin::Api, &rules())
    }

    #[test]
    fn only_load_balancers_with_the_local_policy_have_one() {
        for (spec, expected) in [
            (json!({}), Some(32_000)),
            (json!({"externalTrafficPolicy": "Cluster"}), None),
            (json!({"type": "NodePort"}), None),
            (json!({"healthCheckNodePort": 0}), None),
            (json!({"healthCheckNodePort": 70_000}), None),
            (json!({"clusterIP": "None"}), None),
        ] {
            let check = check(&service(&spec), &[], "n1");
            assert_eq!(check.map(|check| check.port), expected, "{spec}");
        }
    }

    #[test]
    fn ready_endpoints_on_this_node_count_once_each_and_by_family() {
        let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
        let v4 = json!([
            ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2"), ready("10.0.0.3", "n1"),
            draining("10.0.0.4", "n1"), {"addresses": ["10.0.0.5"]},
        ]);
        let slices = [
            slice("web", 1, ports.clone(), v4),
            slice("web", 2, ports.clone(), json!([ready("10.0.0.3", "n1")])),
            slice("web", 3, ports, json!([ready("fd00::1", "n1")])),
        ];
        let counts = |service: &Service| {
            let check = check(service, &slices, "n1").unwrap();
            (check.endpoints(Family::V4), check.endpoints(Family::V6))
        };
        assert_eq!(counts(&service(&json!({}))), (2, 1));
        let object = json!({
            "metadata": {"name": "web", "annotations": {"nodeport.dev/weights": "10.0.0.3=0"}},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32_000,
                "ports": [{"port": 80, "nodePort": 30_007, "name": "a"}]},
        });
        let drained = serde_json::from_value(object).unwrap();
        assert_eq!(counts(&Service::new(&drained, Origin::Api, &rules())), (1, 1));
    }
}
