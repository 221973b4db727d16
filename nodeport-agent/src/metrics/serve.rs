//! The server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::sleep;
use tracing::info;

use super::Sources;
use crate::http::{Answer, Answers, Asked, Listen, Server};
use crate::listeners;
use crate::model::{Finding, Kind, Name, Origin, Severity};
use crate::watch::Store;

/// For so long what was read is told again: however many ask, the node is not read more often.
const FRESH: Duration = Duration::from_secs(1);
/// Time until a port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// What findings of this server are kept under.
const PART: &str = "metrics";
/// What Prometheus knows the text by.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers scrapes.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What was told last, and when it was read.
    last: Mutex<Option<(Instant, String)>>,
}

impl Metrics {
    /// From these.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self { registry, last: Mutex::default() }
    }

    fn answer(self: &Arc<Self>, asked: Asked<'_>) -> Answer {
        match asked.path {
            // Reading ten thousand services takes a while, and others wait for the same.
            "/metrics" => tokio::task::block_in_place(|| self.text(Instant::now())),
            _ => Answer::not_found(),
        }
    }

    /// What was read a moment ago, or now.
    fn text(self: &Arc<Self>, now: Instant) -> Answer {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = &*last
            && now.saturating_duration_since(*at) < FRESH
        {
            return answer(text.clone());
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            return failed();
        }
        *last = Some((Instant::now(), text.clone()));
        drop(last);
        self.forget_later();
        answer(text)
    }

    /// With many services it is long, and nobody asks again before it is old.
    fn forget_later(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(FRESH).await;
            if let Some(this) = this.upgrade() {
                let mut last = this.last.lock().unwrap_or_else(PoisonError::into_inner);
                last.take_if(|(at, _)| at.elapsed() >= FRESH);
            }
        });
    }
}

fn answer(body: String) -> Answer {
    Answer { status: StatusCode::OK, content_type: OPEN_METRICS, header: None, body }
}

fn failed() -> Answer {
    let body = "the metrics could not be written\n".to_owned();
    let (status, content_type) = (StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8");
    Answer { status, content_type, header: None, body }
}

/// Serves for ever, if anywhere.
pub async fn serve(metrics: Arc<Metrics>, store: Arc<Store>, listen: Option<Listen>) {
    let answers: Answers = Arc::new(move |asked| metrics.answer(asked));
    if let Some(listen) = listen {
        let _server = started(listen, &answers, &store).await;
        info!("/metrics: at {listen}");
        return std::future::pending().await;
    }
    std::future::pending().await
}

/// Once the port can be had.
async fn started(listen: Listen, answers: &Answers, store: &Arc<Store>) -> Server {
    loop {
        match Server::start(listen, answers) {
            Ok(server) => {
                store.set_problems(PART, Vec::new());
                return server;
            }
            Err(error) => {
                // Who it is is found by a look at all processes.
                let finding = tokio::task::block_in_place(|| taken(listen, &error));
                store.set_problems(PART, vec![finding]);
            }
        }
        sleep(RETRY).await;
    }
}

fn taken(listen: Listen, error: &std::io::Error) -> Finding {
    let holder = match error.kind() {
        std::io::ErrorKind::AddrInUse => listeners::holder(listen.port()),
        _ => None,
    };
    let holder = holder.map(|holder| format!(", by {holder}")).unwrap_or_default();
    Finding {
        severity: Severity::Warning,
        origin: Origin::Api,
        kind: Kind::Agent,
        object: Name::new("", PART),
        field: "--metrics-address".to_owned(),
        problem: format!(
            "{listen}: {error}{holder}: metrics are not served; give another one, or off (it is tried again)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::super::tests::sources;
    use super::*;

    fn free() -> SocketAddr {
        std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
    }

    async fn get(at: SocketAddr, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(at).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    async fn soon(at: SocketAddr, path: &str) -> String {
        for _ in 0..400 {
            if let Some(text) = get(at, path).await {
                return text;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("{at} does not answer");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_scrape_is_text_that_ends_and_is_read_once_a_second() {
        let (at, store) = (free(), Arc::new(Store::default()));
        let metrics = Arc::new(Metrics::new(sources(&store)));
        tokio::spawn(serve(metrics.clone(), store, Some(Listen::At(at))));
        let first = soon(at, "/metrics").await;
        assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
        assert!(first.contains(&format!("content-type: {OPEN_METRICS}")), "{first}");
        assert!(first.ends_with("# EOF\n"), "{first}");
        assert!(soon(at, "/").await.starts_with("HTTP/1.1 404"));

        let now = Instant::now();
        *metrics.last.lock().unwrap() = Some((now, "before\n".to_owned()));
        assert_eq!(metrics.text(now).body, "before\n");
        assert_ne!(metrics.text(now + FRESH).body, "before\n", "old after a second");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_that_is_taken_is_told_with_its_holder_and_tried_again() {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (at, store) = (taken.local_addr().unwrap(), Arc::new(Store::default()));
        let metrics = Arc::new(Metrics::new(sources(&store)));
        tokio::spawn(serve(metrics, store.clone(), Some(Listen::At(at))));
        for _ in 0..400 {
            if !store.problems().is_empty() {
                break;
            }
            sleep(Duration::from_millis(25)).await;
        }
        let text = store.problems()[0].to_string();
        assert!(text.contains("--metrics-address") && text.contains(&at.to_string()), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(taken);
        assert!(soon(at, "/metrics").await.contains(" 200 OK"));
        assert_eq!(store.problems(), []);
    }
}
