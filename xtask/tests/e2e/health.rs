//! What load balancers and controllers ask a node's agent.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::lab::manifests::Slices;
use xtask::lab::{Mode, Topology};

use super::Case;
use super::site::{Site, ask, check, wait};

pub(crate) const CASES: &[Case] = &[
    ("healthCheckNodePort: 503 once the last ready pod ends, while traffic flows on", service),
    ("/healthz: 503 on a node that is to go, which serves on; /livez: 200", node),
];

/// The agent's own port, by default.
const OWN: u16 = 10_256;
const CHECK: u16 = 32_700;
const NODE_PORT: u16 = 30_080;
const PATIENCE: Duration = Duration::from_secs(2);

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: local}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 32700
  ports:
    - {name: http, port: 80, nodePort: 30080, protocol: TCP}
    - {name: echo, port: 80, nodePort: 30080, protocol: UDP}
";

/// What the client gets there, with its headers.
fn get(site: &Site, address: IpAddr, port: u16, path: &str) -> Result<String> {
    let at = SocketAddr::new(address, port);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    let answer = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    site.lab.client().namespace().run(answer)?.with_context(|| format!("GET {at}{path}"))
}

/// Waits until both families of a node say all of that.
fn says(site: &Site, node: &str, (port, path): (u16, &str), parts: &[&str]) -> Result<()> {
    site.addresses(node).into_iter().try_for_each(|address| {
        wait(&format!("{parts:?} at port {port} of {address}"), || {
            let text = get(site, address, port, path)?;
            check(parts.iter().all(|part| text.contains(part)), || text)
        })
    })
}

/// Waits until the nodePort answers, or until it does not.
fn is_served(site: &Site, node: &str, expected: bool) -> Result<()> {
    site.addresses(node).into_iter().try_for_each(|address| {
        let target = SocketAddr::new(address, NODE_PORT);
        let source = site.lab.client().sources(address)[0];
        wait(&format!("{target} answers: {expected}"), || {
            let got = ask(site, source, target);
            check((got == [None; 2]) == expected, || format!("{got:?}"))
        })
    })
}

fn service(mode: Mode) -> Result<()> {
    let topology = Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2"]);
    let site = Site::new(&topology, mode)?;
    let offer = |ready: bool| {
        let pods: Vec<_> =
            site.lab.pods().iter().map(|pod| (pod, ready || pod.node() != "node1")).collect();
        let ports = &[("http", "TCP"), ("echo", "UDP")];
        site.lab.apply_slices(&Slices { service: "local", ports, pods: &pods })
    };
    site.lab.apply("local", SERVICE)?;
    offer(true)?;
    let one = ["200 OK", "\"localEndpoints\": 1", "x-load-balancing-endpoint-weight: 1"];
    says(&site, "node1", (CHECK, "/healthz"), &one)?;
    is_served(&site, "node1", true)?;
    offer(false)?;
    let none = ["503 ", "\"localEndpoints\": 0", "\"serviceProxyHealthy\": true"];
    says(&site, "node1", (CHECK, "/"), &none)?;
    // The pod that ends is the only one here: as long as it serves, it gets connections.
    is_served(&site, "node1", true)?;
    says(&site, "node2", (CHECK, "/"), &["200 OK", "\"localEndpoints\": 1"])?;
    site.lab.unapply("local")?;
    site.addresses("node1").into_iter().try_for_each(|address| {
        wait("nobody listens any more", || {
            let got = get(&site, address, CHECK, "/");
            check(got.is_err(), || format!("{got:?}"))
        })
    })
}

fn node(mode: Mode) -> Result<()> {
    let topology = Topology::new(1).pods("node1", &["web-1"]);
    let site = Site::new(&topology, mode)?;
    says(&site, "node1", (OWN, "/healthz"), &["200 OK", "\"nodeEligible\": true"])?;
    let path = site.lab.manifests()?.join("nodes.yaml");
    let nodes = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let tainted = |key: &str| {
        let spec = format!("spec:\n  taints: [{{key: {key}, effect: NoSchedule}}]\nstatus:");
        site.lab.apply("nodes", &nodes.replace("status:", &spec))
    };
    tainted("ToBeDeletedByClusterAutoscaler")?;
    says(&site, "node1", (OWN, "/healthz"), &["503 ", "\"nodeEligible\": false"])?;
    says(&site, "node1", (OWN, "/livez"), &["200 OK"])?;
    site.targets("node1").into_iter().try_for_each(|target| {
        let got = ask(&site, site.lab.client().sources(target.ip())[0], target);
        check(got == [None; 2], || format!("{target}: {got:?}"))
    })?;
    tainted("node.kubernetes.io/unschedulable")?;
    says(&site, "node1", (OWN, "/healthz"), &["200 OK", "\"nodeEligible\": true"])
}
