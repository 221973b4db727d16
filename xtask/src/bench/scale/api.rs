//! An API server in this process: lists in pages and watches, over HTTP/1.1, as Kubernetes'
//! own speaks them. It knows Services, EndpointSlices and Nodes, and of those all: the selectors
//! that the agent sends leave out nothing of what the benchmark's cluster has.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::lab::Namespace;

/// Events of a resource that are kept for watches that begin behind the present.
const KEPT: usize = 1 << 16;
/// How often a watch without events looks whether the server shall end.
const LOOK: Duration = Duration::from_millis(200);

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    Services,
    Slices,
    Nodes,
}

impl Resource {
    const ALL: [Self; 3] = [Self::Services, Self::Slices, Self::Nodes];

    const fn path(self) -> &'static str {
        match self {
            Self::Services => "/api/v1/services",
            Self::Slices => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Nodes => "/api/v1/nodes",
        }
    }

    const fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Services => ("v1", "Service"),
            Self::Slices => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::Nodes => ("v1", "Node"),
        }
    }
}

/// The server; it ends when this is dropped.
pub(super) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    namespace: Namespace,
}

#[derive(Default)]
struct Shared {
    objects: Mutex<Objects>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Default)]
struct Objects {
    version: u64,
    kinds: BTreeMap<Resource, Kind>,
    /// When the last page of the last of the lists had been sent.
    listed: Option<Instant>,
}

#[derive(Default)]
struct Kind {
    /// By name, with their versions in them.
    objects: BTreeMap<String, Arc<str>>,
    /// Events, by version.
    events: VecDeque<(u64, Arc<str>)>,
    /// The version of the last event that is kept no more.
    forgotten: u64,
}

impl Server {
    /// Begins to listen, at the loopback interface of a namespace.
    pub(super) fn start(namespace: &Namespace) -> Result<Self> {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let listener = namespace.run(bind)?.context("listen for the agent")?;
        let address = listener.local_addr().context("the server's address")?;
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.has_ended() {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = accepting.clone();
                // Who hangs up in the middle shall: the agent is killed between two rounds.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Ok(Self { shared, address, namespace: namespace.clone() })
    }

    /// Writes the file by which the agent finds this server.
    pub(super) fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", self.address)}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "users": [{"name": "bench", "user": {}}],
        });
        std::fs::write(path, config.to_string())
            .with_context(|| format!("write {}", path.display()))
    }

    /// Makes or changes an object, and tells those who watch. `object` makes it, with its version.
    pub(super) fn put(&self, resource: Resource, name: &str, object: impl FnOnce(u64) -> String) {
        let mut objects = self.shared.lock();
        objects.version += 1;
        let version = objects.version;
        let text: Arc<str> = object(version).into();
        let kind = objects.kinds.entry(resource).or_default();
        let is_new = kind.objects.insert(name.to_owned(), text.clone()).is_none();
        kind.tell(version, if is_new { "ADDED" } else { "MODIFIED" }, resource, &text);
        drop(objects);
        self.shared.changed.notify_all();
    }

    /// When the agent had got the last of its lists; none if it has not.
    pub(super) fn listed(&self) -> Option<Instant> {
        self.shared.lock().listed
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts; if it cannot be reached, it has ended.
        let address = self.address;
        drop(self.namespace.run(move || TcpStream::connect(address)));
    }
}

impl Kind {
    fn tell(&mut self, version: u64, what: &str, resource: Resource, object: &str) {
        let (api, kind) = resource.kind();
        // Objects in events say what they are; in lists the list does.
        let rest = object.strip_prefix('{').unwrap_or(object);
        let line = format!(
            "{{\"type\":\"{what}\",\"object\":{{\"apiVersion\":\"{api}\",\"kind\":\"{kind}\",{rest}}}\n"
        );
        self.events.push_back((version, line.into()));
        while self.events.len() > KEPT {
            self.forgotten = self.events.pop_front().map_or(0, |(version, _)| version);
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Request {
    path: String,
    watch: bool,
    version: u64,
    limit: Option<usize>,
    /// The name of the last object of the page before.
    after: Option<String>,
}

impl Request {
    /// Reads a request; none at the end of the connection, or if it is none.
    fn read(reader: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut header = String::new();
        while reader.read_line(&mut header).ok().filter(|read| *read > 2).is_some() {
            header.clear();
        }
        Self::parse(line.split(' ').nth(1)?)
    }

    fn parse(target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self { path: path.to_owned(), ..Self::default() };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "watch" => request.watch = value == "true",
                "resourceVersion" => request.version = value.parse().ok()?,
                // The API's rule: 0 means no limit.
                "limit" => request.limit = value.parse().ok().filter(|limit| *limit > 0),
                "continue" => request.after = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(request)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader) {
            let known = Resource::ALL.into_iter().find(|one| one.path() == request.path);
            match known {
                Some(resource) if request.watch => {
                    return self.watch(resource, request.version, &mut writer);
                }
                Some(resource) => {
                    answer(&mut writer, "200 OK", &self.list(resource, &request))?;
                    self.lock().listed = Some(Instant::now());
                }
                None => answer(&mut writer, "404 Not Found", &failure(404, "NotFound"))?,
            }
        }
        Ok(())
    }

    /// A page of a list.
    fn list(&self, resource: Resource, request: &Request) -> String {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut objects = self.lock();
        let version = objects.version;
        let kind = objects.kinds.entry(resource).or_default();
        let from = request.after.as_deref().map_or(Unbounded, Excluded);
        let mut rest = kind.objects.range::<str, _>((from, Unbounded));
        let page: Vec<_> = rest.by_ref().take(request.limit.unwrap_or(usize::MAX)).collect();
        let more = rest.count();
        let (api, name) = resource.kind();
        let length: usize = page.iter().map(|(_, object)| object.len() + 1).sum();
        let mut body = String::with_capacity(length + 256);
        let _ = write!(
            body,
            r#"{{"kind":"{name}List","apiVersion":"{api}","metadata":{{"resourceVersion":"{version}""#
        );
        if let Some((last, _)) = page.last().filter(|_| more > 0) {
            let _ = write!(body, r#","continue":"{last}","remainingItemCount":{more}"#);
        }
        body.push_str("},\"items\":[");
        for (index, (_, object)) in page.iter().enumerate() {
            if index > 0 {
                body.push(',');
            }
            body.push_str(object);
        }
        body.push_str("]}");
        body
    }

    /// Tells what happens from a version on, until the end.
    fn watch(&self, resource: Resource, from: u64, writer: &mut TcpStream) -> Result<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        writer.write_all(head.as_bytes())?;
        let mut told = from;
        loop {
            let mut lines = Vec::new();
            {
                let mut objects = self.lock();
                loop {
                    if self.has_ended() {
                        return Ok(());
                    }
                    let kind = objects.kinds.entry(resource).or_default();
                    if told < kind.forgotten {
                        lines.push((told, gone().into()));
                        break;
                    }
                    let start = kind.events.partition_point(|(version, _)| *version <= told);
                    lines.extend(kind.events.range(start..).cloned());
                    if !lines.is_empty() {
                        break;
                    }
                    let waited = self.changed.wait_timeout(objects, LOOK);
                    objects = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
            let mut chunks = String::new();
            for (version, line) in lines {
                let _ = write!(chunks, "{:x}\r\n{line}\r\n", line.len());
                told = version;
            }
            writer.write_all(chunks.as_bytes())?;
        }
    }
}

fn answer(writer: &mut TcpStream, status: &str, body: &str) -> Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    writer.write_all(head.as_bytes())?;
    writer.write_all(body.as_bytes())?;
    Ok(())
}

fn failure(code: u16, reason: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"{reason}","message":"{reason}","code":{code}}}"#
    )
}

/// What a watch gets whose version is too long ago: it lists again.
fn gone() -> String {
    format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", failure(410, "Expired"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(names: &[&str]) -> Shared {
        let shared = Shared::default();
        let mut objects = shared.lock();
        objects.version = 9;
        let kind = objects.kinds.entry(Resource::Services).or_default();
        for name in names {
            let text = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
            kind.objects.insert((*name).to_owned(), text.into());
        }
        drop(objects);
        shared
    }

    fn page(shared: &Shared, target: &str) -> serde_json::Value {
        let request = Request::parse(target).unwrap();
        serde_json::from_str(&shared.list(Resource::Services, &request)).unwrap()
    }

    #[test]
    fn a_list_comes_in_pages_that_miss_nothing() {
        let shared = shared(&["a", "b", "c"]);
        let first = page(&shared, "/api/v1/services?limit=2");
        assert_eq!(first["items"].as_array().unwrap().len(), 2);
        assert_eq!(first["metadata"]["continue"], "b");
        let last = page(&shared, "/api/v1/services?limit=2&continue=b");
        assert_eq!(last["items"][0]["metadata"]["name"], "c");
        assert!(last["metadata"].get("continue").is_none());
        assert_eq!(page(&shared, "/x?limit=0")["items"].as_array().unwrap().len(), 3);
        assert_eq!(last["metadata"]["resourceVersion"], "9");
    }

    #[test]
    fn events_are_lines_that_say_what_they_are_about() {
        let mut kind = Kind::default();
        kind.tell(3, "ADDED", Resource::Slices, r#"{"metadata":{"name":"a"}}"#);
        let event: serde_json::Value = serde_json::from_str(&kind.events[0].1).unwrap();
        assert_eq!(event["object"]["kind"], "EndpointSlice");
        assert_eq!(event["object"]["metadata"]["name"], "a");
        for version in 0..=KEPT as u64 {
            kind.tell(version + 10, "MODIFIED", Resource::Slices, "{}");
        }
        assert_eq!((kind.events.len(), kind.forgotten), (KEPT, 10));
    }
}
