//! What is answered, in kube-proxy's own words (`pkg/proxy/healthcheck`): load balancers and
//! controllers read them.

use std::time::SystemTime;

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::json;

use crate::http::Answer;
use crate::model::Name;

/// How many endpoints of a service are at this node, for load balancers that weigh nodes by it.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// What there is to say about this proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// It keeps up with the world.
    pub(super) healthy: bool,
    /// When all was last in the maps.
    pub(super) updated: Option<SystemTime>,
    /// The node is not about to be taken away.
    pub(super) eligible: bool,
    /// What time it is.
    pub(super) now: SystemTime,
}

/// Whether new connections should come to this node.
#[must_use]
pub(super) fn healthz(report: &Report) -> Answer {
    let is_well = report.healthy && report.eligible;
    let (updated, now) = times(report, is_well);
    let eligible = report.eligible;
    let body = format!(
        r#"{{"lastUpdated": "{updated}","currentTime": "{now}", "nodeEligible": {eligible}}}"#
    );
    Answer::json(status(is_well), body)
}

/// Whether the agent should be left to run.
#[must_use]
pub(super) fn livez(report: &Report) -> Answer {
    let (updated, now) = times(report, report.healthy);
    let body = format!(r#"{{"lastUpdated": "{updated}","currentTime": "{now}"}}"#);
    Answer::json(status(report.healthy), body)
}

/// Whether a load balancer should send connections for the service to this node.
#[must_use]
pub(super) fn service(name: &Name, endpoints: usize, healthy: bool) -> Answer {
    let is_well = endpoints > 0 && healthy;
    // Names are of letters, digits and dashes; quotes are the only thing to see to.
    let (namespace, name) = (json!(&*name.namespace), json!(&*name.name));
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace},\n\t\t\"name\": {name}\n\t}},\n\
         \t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    Answer { header: Some((WEIGHT, endpoints as u64)), ..Answer::json(status(is_well), body) }
}

const fn status(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// When all was last in the maps, and now. While all is well, that is now, whether there was anything
/// to do or not.
fn times(report: &Report, is_well: bool) -> (String, String) {
    let now = time(report.now);
    let updated = match report.updated {
        _ if is_well => now.clone(),
        Some(updated) => time(updated),
        None => "0001-01-01 00:00:00 +0000 UTC".to_owned(),
    };
    (updated, now)
}

/// A time as Go prints it.
fn time(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
    }

    fn report(healthy: bool, eligible: bool) -> Report {
        Report { healthy, updated: Some(at(1_500)), eligible, now: at(61_250) }
    }

    #[test]
    fn healthz_and_livez_say_what_kube_proxy_says() {
        let (old, new) = ("1970-01-01 00:00:01.5 +0000 UTC", "1970-01-01 00:01:01.25 +0000 UTC");
        for (healthy, eligible, healthz_code, updated, livez_code) in [
            (true, true, 200, new, 200),
            // A node that is about to go sends clients away, and its proxy must not be restarted for that.
            (true, false, 503, old, 200),
            (false, true, 503, old, 503),
            (false, false, 503, old, 503),
        ] {
            let answer = healthz(&report(healthy, eligible));
            assert_eq!(answer.status.as_u16(), healthz_code);
            let expected = format!(
                r#"{{"lastUpdated": "{updated}","currentTime": "{new}", "nodeEligible": {eligible}}}"#
            );
            assert_eq!(answer.body, expected);
            let answer = livez(&report(healthy, eligible));
            assert_eq!(answer.status.as_u16(), livez_code);
            let updated = if healthy { new } else { old };
            let expected = format!(r#"{{"lastUpdated": "{updated}","currentTime": "{new}"}}"#);
            assert_eq!((answer.body, answer.content_type), (expected, "application/json"));
        }
        let never = livez(&Report { updated: None, ..report(false, true) });
        assert!(never.body.contains(r#""0001-01-01 00:00:00 +0000 UTC""#), "{}", never.body);
    }

    #[test]
    fn a_service_is_well_with_endpoints_and_a_proxy_that_is_well() {
        for (endpoints, healthy, code, weight) in
            [(2, true, 200, 2), (0, true, 503, 0), (2, false, 503, 2), (0, false, 503, 0)]
        {
            let answer = service(&Name::new("shop", "web"), endpoints, healthy);
            assert_eq!(answer.status.as_u16(), code);
            assert_eq!(answer.header, Some(("x-load-balancing-endpoint-weight", weight)));
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            let expected = json!({
                "service": {"namespace": "shop", "name": "web"},
                "localEndpoints": endpoints,
                "serviceProxyHealthy": healthy,
            });
            assert_eq!(body, expected);
            assert!(answer.body.starts_with("{\n\t\"service\": {\n\t\t\"namespace\": \"shop\","));
        }
    }
}
