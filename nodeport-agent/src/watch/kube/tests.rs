//! The API source against a server of our own: real requests over a real connection.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::*;
use crate::model::testing::{name, rules};
use crate::watch::Snapshot;

/// An API server that knows lists, and tells watchers what it is told.
struct Server {
    /// What a list of that resource gives; without an entry the server fails.
    lists: Mutex<HashMap<&'static str, Value>>,
    /// Events: resource and line.
    events: broadcast::Sender<(&'static str, String)>,
    /// All requests so far.
    requests: Mutex<Vec<String>>,
}

const RESOURCES: [&str; 3] = ["services", "endpointslices", "nodes"];

impl Server {
    async fn start() -> (Arc<Self>, Client, TempDir) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(Self {
            lists: Mutex::default(),
            events: broadcast::channel(16).0,
            requests: Mutex::default(),
        });
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, kubeconfig(port)).unwrap();
        (server, client(Some(&file)).await.unwrap(), folder)
    }

    fn list(&self, resource: &'static str, items: Value) {
        let list = json!({
            "apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"},
            "items": items,
        });
        self.lists.lock().unwrap().insert(resource, list);
    }

    fn tell(&self, resource: &'static str, kind: &str, object: &Value) {
        let line = json!({"type": kind, "object": object}).to_string();
        assert!(self.events.send((resource, line)).is_ok(), "somebody watches");
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        while let Some(path) = request(&mut lines).await {
            self.requests.lock().unwrap().push(path.clone());
            let resource = path
                .split(['/', '?'])
                .find_map(|part| RESOURCES.into_iter().find(|resource| *resource == part));
            let list = resource.and_then(|one| self.lists.lock().unwrap().get(one).cloned());
            let Some((resource, list)) = resource.zip(list) else {
                let answer = "HTTP/1.1 500 Failed\r\nContent-Length: 0\r\n\r\n";
                writer.write_all(answer.as_bytes()).await.unwrap();
                continue;
            };
            if path.contains("watch=true") {
                return self.stream(resource, &mut writer).await;
            }
            let body = list.to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            writer.write_all((head + &body).as_bytes()).await.unwrap();
        }
    }

    async fn stream(&self, resource: &str, writer: &mut (impl AsyncWriteExt + Unpin)) {
        let mut events = self.events.subscribe();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        writer.write_all(head.as_bytes()).await.unwrap();
        while let Ok((about, line)) = events.recv().await {
            if about == resource {
                let chunk = format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
                writer.write_all(chunk.as_bytes()).await.unwrap();
            }
        }
    }

    /// Waits until all three are watched.
    async fn watched(&self) {
        while self.events.receiver_count() < RESOURCES.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The path of the next request; none at the end.
async fn request(
    lines: &mut tokio::io::Lines<BufReader<tokio::net::tcp::ReadHalf<'_>>>,
) -> Option<String> {
    let first = lines.next_line().await.ok()??;
    while !lines.next_line().await.ok()??.is_empty() {}
    Some(first.split(' ').nth(1)?.to_owned())
}

fn kubeconfig(port: u16) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    })
    .to_string()
}

fn service(node_port: u16) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "resourceVersion": "2"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port}]},
    })
}

fn slice() -> Value {
    json!({
        "metadata": {
            "name": "web-1", "namespace": "default", "resourceVersion": "3",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    })
}

fn node() -> Value {
    json!({
        "metadata": {"name": "n1", "resourceVersion": "4"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    })
}

fn watch(client: &Client) -> (Arc<Store>, tokio::task::JoinSet<()>) {
    let store = Arc::new(Store::default());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(services(client.clone(), rules(), store.clone()));
    tasks.spawn(slices(client.clone(), store.clone()));
    tasks.spawn(super::node(client.clone(), "n1".into(), store.clone()));
    (store, tasks)
}

/// Takes snapshots until one is as wanted.
async fn soon(store: &Store, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let look = async {
        loop {
            store.changed().await;
            if let Some(snapshot) = store.take(Instant::now()).filter(&wanted) {
                return snapshot;
            }
        }
    };
    timeout(Duration::from_secs(20), look).await.expect("within twenty seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_first_and_events_follow() {
    let (server, client, _folder) = Server::start().await;
    server.list("services", json!([service(30007)]));
    server.list("endpointslices", json!([slice()]));
    server.list("nodes", json!([node()]));
    let (store, _tasks) = watch(&client);
    let snapshot = soon(&store, |snapshot| !snapshot.update.entries.is_empty()).await;
    let entry = &snapshot.update.entries[&name("web")];
    assert_eq!((entry.service.is_some(), entry.slices.len()), (true, 1));

    server.watched().await;
    server.tell("services", "MODIFIED", &service(30008));
    let moved = soon(&store, |snapshot| !snapshot.update.entries.is_empty()).await;
    let service_now = moved.update.entries[&name("web")].service.clone().unwrap();
    assert_eq!(service_now.ports[0].node_port, Some(30008));
    assert_eq!(moved.update.node.unwrap().addresses.len(), 1);

    server.tell("endpointslices", "DELETED", &slice());
    let gone = soon(&store, |snapshot| !snapshot.update.entries.is_empty()).await;
    assert_eq!(gone.update.entries[&name("web")].slices.len(), 0);
    let requests = server.requests.lock().unwrap().join("\n");
    assert!(
        requests.contains("labelSelector=%21service.kubernetes.io%2Fservice-proxy-name"),
        "{requests}"
    );
    assert!(requests.contains("fieldSelector=metadata.name%3Dn1"), "{requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_while_one_kind_cannot_be_listed() {
    let (server, client, _folder) = Server::start().await;
    server.list("services", json!([service(30007)]));
    server.list("nodes", json!([node()]));
    let (store, _tasks) = watch(&client);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(store.take(Instant::now()).is_none());
    server.list("endpointslices", json!([slice()]));
    soon(&store, |snapshot| snapshot.update.entries.len() == 1).await;
}

/// The seed of the choice of backends comes from it, though it has no nodePort.
#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_own_service_is_listed_with_its_uid() {
    let (server, client, _folder) = Server::start().await;
    let kubernetes = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "uid": "u-1"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"port": 443}]},
    });
    RESOURCES.into_iter().for_each(|resource| server.list(resource, json!([])));
    server.list("services", json!([service(30007), kubernetes]));
    let (store, _tasks) = watch(&client);
    let snapshot = soon(&store, |snapshot| !snapshot.update.entries.is_empty()).await;
    let listed = snapshot.update.entries[&name("kubernetes")].service.as_ref().unwrap();
    assert_eq!((&*listed.uid, listed.ports.len()), ("u-1", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_cluster_does_not_have_is_named() {
    let (server, client, _folder) = Server::start().await;
    RESOURCES.into_iter().for_each(|resource| server.list(resource, json!([])));
    let (store, _tasks) = watch(&client);
    let snapshot = soon(&store, |snapshot| !snapshot.problems.is_empty()).await;
    assert!(snapshot.problems[0].to_string().starts_with("Node n1: the cluster has no such Node"));
    server.watched().await;
    server.tell("nodes", "ADDED", &node());
    soon(&store, |snapshot| snapshot.problems.is_empty() && snapshot.update.node.is_some()).await;
}

#[tokio::test]
async fn credentials_that_cannot_be_read_say_which() {
    let error = client(Some(Path::new("/does/not/exist"))).await.err().unwrap();
    assert!(
        format!("{error:#}").starts_with("--kubeconfig /does/not/exist: it cannot be used"),
        "{error:#}"
    );
}
