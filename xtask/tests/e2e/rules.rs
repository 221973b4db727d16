//! What a Service means: each case is named for the rule that it proves.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use xtask::lab::client::Load;
use xtask::lab::manifests::Slices;
use xtask::lab::{Mode, Pod, Topology};

use super::Case;
use super::site::{Outcome, Site, ask, check, is_silent, wait};

pub(crate) const CASES: &[Case] = &[
    ("a service without endpoints refuses TCP and UDP", without_endpoints),
    ("externalTrafficPolicy Local: served where a pod is, with the client's address", local_here),
    (
        "externalTrafficPolicy Local: dropped where no pod is, refused where there is none",
        local_there,
    ),
    ("sessionAffinity ClientIP: a client stays with its pod, until it is switched off", affinity),
];

const CLIENT_IP: &str = "Cluster\n  sessionAffinity: ClientIP";

const PORT: u16 = 30_008;
const PORTS: &[(&str, &str)] = &[("http", "TCP"), ("echo", "UDP")];

/// A second service, `other`, beside the one that every site has; of these pods.
fn site(mode: Mode, policy: &str, is_behind: impl Fn(&Pod) -> bool) -> Result<Site> {
    let topology = Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2", "web-3"]);
    let site = Site::new(&topology, mode)?;
    offer(&site, is_behind)?;
    site.lab.apply("other", &service(policy))?;
    Ok(site)
}

fn service(policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: other}}\nspec:\n  type: NodePort\n  \
         externalTrafficPolicy: {policy}\n  ipFamilies: [IPv4, IPv6]\n  ports:\n    \
         - {{name: http, port: 80, nodePort: {PORT}, protocol: TCP}}\n    \
         - {{name: echo, port: 80, nodePort: {PORT}, protocol: UDP}}\n"
    )
}

fn offer(site: &Site, is_behind: impl Fn(&Pod) -> bool) -> Result<()> {
    let pods: Vec<_> =
        site.lab.pods().iter().filter(|pod| is_behind(pod)).map(|pod| (pod, true)).collect();
    site.lab.apply_slices(&Slices { service: "other", ports: PORTS, pods: &pods })
}

fn targets(site: &Site, node: &str) -> [SocketAddr; 2] {
    site.addresses(node).map(|address| SocketAddr::new(address, PORT))
}

/// What the client gets from its first address.
fn ask_first(site: &Site, target: SocketAddr) -> Outcome {
    ask(site, site.lab.client().sources(target.ip())[0], target)
}

fn refused(site: &Site, node: &str) -> Result<()> {
    for target in targets(site, node) {
        wait(&format!("{target} refuses"), || {
            let got = ask_first(site, target);
            let refused = Some(io::ErrorKind::ConnectionRefused);
            check(got == [refused; 2], || format!("{target}: {got:?}"))
        })?;
    }
    Ok(())
}

fn counted(site: &Site, node: &str, reason: &str) -> Result<()> {
    let counters = site.counters(node);
    let has = counters.split(", ").any(|one| one.split(' ').next() == Some(reason));
    check(has, || format!("{reason} is not among what {node} counted: {counters}"))
}

fn without_endpoints(mode: Mode) -> Result<()> {
    let site = site(mode, "Cluster", |_| false)?;
    // The node's own stack refuses as well, before the service is there: it must be we who do.
    wait("the service is there", || {
        refused(&site, "node1").and_then(|()| counted(&site, "node1", "no_backend"))
    })
}

fn local_here(mode: Mode) -> Result<()> {
    let site = site(mode, "Local", |_| true)?;
    for (node, own) in [("node1", &["web-1"][..]), ("node2", &["web-2", "web-3"])] {
        for target in targets(&site, node) {
            wait(&format!("{target} answers"), || site.lab.client().get(target).map(|_| ()))?;
            for _ in 0..20 {
                let answer = site.lab.client().get(target)?;
                check(own.contains(&&*answer.by), || format!("{target}: {} answered", answer.by))?;
                check(answer.source_kept(), || format!("{target}: seen as {}", answer.saw))?;
            }
        }
    }
    Ok(())
}

/// All connections of one client go to one pod, those of eight clients to several, and when that pod goes
/// its clients find another.
fn affinity(mode: Mode) -> Result<()> {
    let site = site(mode, CLIENT_IP, |_| true)?;
    for target in targets(&site, "node1") {
        wait(&format!("{target} answers"), || site.lab.client().get(target).map(|_| ()))?;
        let asked = |source| -> Result<String> {
            Ok(site.lab.client().connect(source, target)?.ask_and_close()?.by)
        };
        let mut pods = BTreeMap::new();
        for source in site.lab.client().sources(target.ip()) {
            let first = asked(source)?;
            for _ in 0..20 {
                let by = asked(source)?;
                check(by == first, || format!("{source} to {target}: {first}, then {by}"))?;
            }
            pods.insert(source, first);
        }
        let first = pods.values().next().cloned().unwrap_or_default();
        check(pods.values().any(|by| *by != first), || format!("all went to {first}"))?;
        offer(&site, |pod| pod.name() != first)?;
        let (moved, stay): (Vec<_>, Vec<_>) = pods.iter().partition(|(_, by)| **by == first);
        for (source, _) in moved {
            wait(&format!("{source} leaves {first}"), || {
                let by = asked(*source)?;
                check(by != first, || format!("{source} to {target}: {by}"))
            })?;
        }
        for (source, before) in stay {
            let by = asked(*source)?;
            check(by == *before, || format!("{source} to {target}: {before}, then {by}"))?;
        }
        offer(&site, |_| true)?;
    }
    site.lab.apply("other", &service("Cluster"))?;
    for target in targets(&site, "node1") {
        wait(&format!("{target} knows nobody"), || {
            let load = Load { one_source: true, ..Load::new(target, 200) };
            let outcome = site.lab.client().load(&load)?;
            check(outcome.answers.len() == 3, || format!("{:?}", outcome.answers))
        })?;
    }
    Ok(())
}

fn local_there(mode: Mode) -> Result<()> {
    let site = site(mode, "Local", |pod| pod.node() == "node2")?;
    for target in targets(&site, "node2") {
        wait(&format!("{target} answers"), || site.lab.client().get(target).map(|_| ()))?;
    }
    for target in targets(&site, "node1") {
        wait(&format!("{target} drops"), || {
            let got = ask_first(&site, target);
            check(is_silent(&got), || format!("{target}: {got:?}"))
        })?;
    }
    counted(&site, "node1", "no_local_backend")?;
    offer(&site, |_| false)?;
    ["node1", "node2"]
        .iter()
        .try_for_each(|node| refused(&site, node).with_context(|| format!("{node}, without a pod")))
}
