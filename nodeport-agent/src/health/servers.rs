//! The servers: which ones there are follows the services.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use super::{Checks, Health};
use crate::http::{Answers, Listen, Server};
use crate::listeners;
use crate::model::{Finding, Kind, Name, Origin, Severity};
use crate::watch::Store;

/// Time until a port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// What findings of these servers are kept under.
const PART: &str = "health";

/// Which ports are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Where this proxy's own health is told, if anywhere.
    pub own: Option<Listen>,
    /// Whether there is a server for each `healthCheckNodePort`.
    pub services: bool,
}

/// Serves for ever.
pub async fn serve(health: Arc<Health>, store: Arc<Store>, ports: Ports) {
    let mut news = health.checks.subscribe();
    let mut servers = Servers::default();
    loop {
        let checks = match ports.services {
            true => news.borrow_and_update().clone(),
            false => Arc::default(),
        };
        let mut findings = servers.keep_own(ports.own, &health);
        findings.extend(servers.keep(&checks, &health).await);
        let is_complete = findings.is_empty();
        store.set_problems(PART, findings);
        tokio::select! {
            // The sender lives as long as `health`.
            _ = news.changed() => {}
            () = sleep(RETRY), if !is_complete => {}
        }
    }
}

#[derive(Debug, Default)]
struct Servers {
    own: Option<Server>,
    services: BTreeMap<Name, (u16, Server)>,
}

impl Servers {
    fn keep_own(&mut self, listen: Option<Listen>, health: &Arc<Health>) -> Vec<Finding> {
        let Some(listen) = listen.filter(|_| self.own.is_none()) else { return Vec::new() };
        let answers: Answers = {
            let health = health.clone();
            Arc::new(move |asked| health.answer(asked))
        };
        match Server::start(listen, &answers) {
            Ok(server) => {
                info!("/healthz and /livez: at {listen}");
                self.own = Some(server);
                Vec::new()
            }
            Err(error) => vec![own_failed(listen, &error)],
        }
    }

    /// Ends the servers that nobody wants any more, and starts those that are missing.
    async fn keep(&mut self, checks: &Checks, health: &Arc<Health>) -> Vec<Finding> {
        let is_over = |name: &Name, (port, _): &mut (u16, Server)| {
            checks.get(name).is_none_or(|check| check.port != *port)
        };
        let over: Vec<_> = self.services.extract_if(.., is_over).collect();
        // All of them first: one's port may be another's from now on.
        for (_, (_, server)) in over {
            server.stop().await;
        }
        let mut findings = Vec::new();
        for (name, check) in checks {
            if self.services.contains_key(name) {
                continue;
            }
            let answers: Answers = {
                let (health, name) = (health.clone(), name.clone());
                Arc::new(move |asked| health.answer_for(&name, asked))
            };
            match Server::start(Listen::Everywhere(check.port), &answers) {
                Ok(server) => {
                    self.services.insert(name.clone(), (check.port, server));
                }
                Err(error) => findings.push(failed(name, check.port, &error)),
            }
        }
        findings
    }
}

fn own_failed(listen: Listen, error: &io::Error) -> Finding {
    let holder = match error.kind() {
        io::ErrorKind::AddrInUse => listeners::holder(listen.port()),
        _ => None,
    };
    let holder = holder.map(|holder| format!(", by {holder}")).unwrap_or_default();
    Finding {
        severity: Severity::Error,
        origin: Origin::Api,
        kind: Kind::Agent,
        object: Name::new("", PART),
        field: "--healthz-address".to_owned(),
        problem: format!(
            "{listen}: {error}{holder}: /healthz and /livez are not served; beside kube-proxy, which has port \
             10256, give another one (it is tried again)"
        ),
    }
}

fn failed(name: &Name, port: u16, error: &io::Error) -> Finding {
    Finding {
        severity: Severity::Warning,
        origin: Origin::Api,
        kind: Kind::Service,
        object: name.clone(),
        field: "spec.healthCheckNodePort".to_owned(),
        problem: format!(
            "port {port}: {error}: load balancers get no answer of this agent there; if kube-proxy \
             answers, give --service-health-checks off (it is tried again)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::model::Family;
    use crate::plan::HealthCheck;

    /// A port that was free a moment ago.
    fn free() -> u16 {
        let listener = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    async fn get(port: u16, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    /// Asks until the answer is as it should be.
    async fn soon(port: u16, path: &str, expected: impl Fn(&Option<String>) -> bool) {
        let mut last = None;
        for _ in 0..200 {
            last = get(port, path).await;
            if expected(&last) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("port {port}{path}: {last:?}");
    }

    fn has(parts: &'static [&'static str]) -> impl Fn(&Option<String>) -> bool {
        move |text| text.as_ref().is_some_and(|text| parts.iter().all(|part| text.contains(part)))
    }

    fn check(port: u16, endpoints: usize) -> HealthCheck {
        HealthCheck::new(port, |family| if family == Family::V4 { endpoints } else { 0 })
    }

    fn start(ports: Ports) -> (Arc<Health>, Arc<Store>) {
        let store = Arc::new(Store::default());
        let health = Arc::new(Health::new(store.clone()));
        tokio::spawn(serve(health.clone(), store.clone(), ports));
        (health, store)
    }

    #[tokio::test]
    async fn a_node_that_is_about_to_go_sends_clients_away_and_lives() {
        let port = free();
        let own = Some(Listen::Everywhere(port));
        let (health, _store) = start(Ports { own, services: true });
        soon(port, "/healthz", has(&["200 OK", r#""nodeEligible": true"#])).await;
        health.set_eligible(false);
        soon(port, "/healthz", has(&["503 ", r#""nodeEligible": false"#])).await;
        soon(port, "/livez", has(&["200 OK", "lastUpdated"])).await;
        health.begin(Instant::now().checked_sub(super::super::LIMIT).unwrap());
        soon(port, "/livez", has(&["503 "])).await;
        health.done();
        soon(port, "/livez", has(&["200 OK"])).await;
        soon(port, "/", has(&["404 "])).await;
        assert_eq!(health.healthz_counts().by_code(), [("200", 1), ("503", 1)]);
        let [well, unwell] = health.livez_counts().by_code().map(|(_, count)| count);
        assert!(well >= 2 && unwell == 1, "{well} {unwell}");
    }

    #[tokio::test]
    async fn a_services_server_follows_its_port_and_its_endpoints() {
        let (first, second) = (free(), free());
        let (health, _store) = start(Ports { own: None, services: true });
        let name = Name::new("shop", "web");
        health.set_checks(&Checks::from([(name.clone(), check(first, 2))]));
        let two = &["200 OK", "\"localEndpoints\": 2", "x-load-balancing-endpoint-weight: 2"];
        soon(first, "/healthz", has(two)).await;
        soon(first, "/anything", has(two)).await;
        health.set_checks(&Checks::from([(name.clone(), check(first, 0))]));
        soon(first, "/", has(&["503 ", "\"localEndpoints\": 0"])).await;
        health.set_checks(&Checks::from([(name, check(second, 1))]));
        soon(second, "/", has(&["200 OK"])).await;
        soon(first, "/", Option::is_none).await;
        health.set_checks(&Checks::new());
        soon(second, "/", Option::is_none).await;
    }

    #[tokio::test]
    async fn a_port_may_become_another_services() {
        let (first, second) = (free(), free());
        let (health, store) = start(Ports { own: None, services: true });
        let [web, shop] = ["web", "shop"].map(|name| Name::new("default", name));
        let both = |of_web, of_shop| {
            Checks::from([(web.clone(), check(of_web, 1)), (shop.clone(), check(of_shop, 2))])
        };
        health.set_checks(&both(first, second));
        soon(second, "/", has(&["\"localEndpoints\": 2"])).await;
        health.set_checks(&both(second, first));
        soon(second, "/", has(&["\"localEndpoints\": 1"])).await;
        soon(first, "/", has(&["\"localEndpoints\": 2"])).await;
        assert_eq!(store.problems(), []);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_and_tried_again() {
        let port = free();
        let taken = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        let (health, store) = start(Ports { own: None, services: true });
        health.set_checks(&Checks::from([(Name::new("shop", "web"), check(port, 1))]));
        for _ in 0..200 {
            if !store.problems().is_empty() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let problems: Vec<_> = store.problems().iter().map(ToString::to_string).collect();
        let start = format!("Service shop/web: spec.healthCheckNodePort: port {port}: ");
        assert!(problems[0].starts_with(&start), "{problems:?}");
        drop(taken);
        soon(port, "/", has(&["200 OK"])).await;
        assert_eq!(store.problems(), []);
    }

    #[tokio::test]
    async fn nothing_is_served_that_is_switched_off() {
        let port = free();
        let (health, store) = start(Ports { own: None, services: false });
        health.set_checks(&Checks::from([(Name::new("shop", "web"), check(port, 1))]));
        sleep(Duration::from_millis(200)).await;
        assert_eq!((get(port, "/").await, store.problems()), (None, vec![]));
    }
}
