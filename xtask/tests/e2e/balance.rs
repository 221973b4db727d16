//! Weights and algorithms: who gets new connections, and that those which are there stay.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::lab::client::{Connection, Load, Transport};
use xtask::lab::manifests::Slices;
use xtask::lab::{Mode, Topology};

use super::Case;
use super::site::{Site, check, wait};

pub(crate) const CASES: &[Case] = &[
    ("weights: three to one in shares, 0 drains, and what is open goes on", weights),
    ("weights: nobody weighs anything, and new connections are refused", all_drained),
    ("algorithms change while connections run, for new ones alone", algorithms),
    ("least: the pod with fewer connections gets more of the new ones", least),
];

const PORT: u16 = 30_009;
const PORTS: &[(&str, &str)] = &[("http", "TCP"), ("echo", "UDP")];
const PODS: [&str; 3] = ["web-1", "web-2", "web-3"];
/// Requests from which shares are told, and how far off they may be, in percent: five standard
/// deviations.
const REQUESTS: u64 = 2_000;
const TOLERANCE: f64 = 5.0;

/// A site with a second service, `balanced`.
fn site(mode: Mode) -> Result<Site> {
    let topology = Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2", "web-3"]);
    let site = Site::new(&topology, mode)?;
    let pods: Vec<_> = site.lab.pods().iter().map(|pod| (pod, true)).collect();
    site.lab.apply_slices(&Slices { service: "balanced", ports: PORTS, pods: &pods })?;
    Ok(site)
}

/// Writes the service, and waits until node 1 has it so.
fn apply(site: &Site, weights: &str, algorithm: &str, weigh: &[u64]) -> Result<()> {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: balanced\n  annotations:\n    \
         nodeport.dev/weights: \"{weights}\"\n    nodeport.dev/algorithm: {algorithm}\nspec:\n  \
         type: NodePort\n  ipFamilies: [IPv4, IPv6]\n  ports:\n    \
         - {{name: http, port: 80, nodePort: {PORT}, protocol: TCP}}\n    \
         - {{name: echo, port: 80, nodePort: {PORT}, protocol: UDP}}\n"
    );
    site.lab.apply("balanced", &text)?;
    wait(&format!("{weights:?} and {algorithm} are there"), || {
        let rows = services(site)?;
        check(rows.len() == 4, || format!("{rows:?}"))?;
        rows.iter().try_for_each(|row| {
            let found = (row["algorithm"].as_str(), usable_weights(row));
            check(found == (Some(algorithm), weigh.to_vec()), || format!("{found:?}"))
        })
    })
}

/// What `services` says of both ports in both families.
fn services(site: &Site) -> Result<Vec<Value>> {
    let text = site.lab.call_agent("node1", &["services", "-o", "json"])?;
    let rows: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
    let is_its =
        |row: &Value| row["service"].as_str().is_some_and(|name| name.contains("balanced"));
    Ok(rows.into_iter().filter(is_its).collect())
}

/// Weights of its backends that are not 0, each once.
fn usable_weights(row: &Value) -> Vec<u64> {
    let weights = row["weights"].as_object();
    let all = weights.into_iter().flat_map(|map| map.keys()).filter_map(|text| text.parse().ok());
    all.filter(|weight| *weight > 0).collect()
}

fn targets(site: &Site) -> [SocketAddr; 2] {
    site.addresses("node1").map(|address| SocketAddr::new(address, PORT))
}

/// Who answered, of so many requests, in percent.
fn shares(site: &Site, target: SocketAddr, transport: Transport) -> Result<BTreeMap<String, f64>> {
    let load = Load { transport, ..Load::new(target, REQUESTS) };
    let outcome = site.lab.client().load(&load)?;
    outcome.all_answered()?;
    let percent =
        |(pod, count): (&String, &u64)| (pod.clone(), 100.0 * *count as f64 / REQUESTS as f64);
    Ok(outcome.answers.iter().map(percent).collect())
}

/// The shares of the three pods in new connections are these, in percent.
fn are_shares(site: &Site, wanted: [f64; 3]) -> Result<()> {
    are_shares_of(site, Transport::Tcp, wanted)
}

fn are_shares_of(site: &Site, transport: Transport, wanted: [f64; 3]) -> Result<()> {
    for target in targets(site) {
        let shares = shares(site, target, transport)?;
        for (pod, wanted) in PODS.iter().zip(wanted) {
            let share = shares.get(*pod).copied().unwrap_or_default();
            let off = (share - wanted).abs();
            let is_near = if wanted == 0.0 { share == 0.0 } else { off < TOLERANCE };
            check(is_near, || format!("{target}, {transport:?}: {pod} of {shares:?}"))?;
        }
    }
    Ok(())
}

/// Opens connections that stay, to all addresses, and notes who answers.
fn hold(site: &Site, count: usize) -> Result<Vec<(Connection, String)>> {
    let mut held = Vec::new();
    for target in targets(site) {
        let source = site.lab.client().sources(target.ip())[0];
        for _ in 0..count {
            let mut connection = site.lab.client().connect(source, target)?;
            let by = connection.ask()?.by;
            held.push((connection, by));
        }
    }
    Ok(held)
}

/// All of them are still answered, each by the same pod as before.
fn all_go_on(held: &mut [(Connection, String)]) -> Result<()> {
    for (connection, before) in held {
        let by = connection.ask()?.by;
        check(by == *before, || format!("{}: {before}, then {by}", connection.local()))?;
    }
    Ok(())
}

/// By pod, by node and by nobody's name; the pods of a lab have no names that slices tell, so the first
/// is named by its addresses.
fn weights(mode: Mode) -> Result<()> {
    let site = site(mode)?;
    let [v4, v6] = site.lab.pod("web-1").address().both();
    apply(&site, "", "maglev", &[1])?;
    are_shares(&site, [100.0 / 3.0; 3])?;
    apply(&site, &format!("{v4}=6, {v6}=6"), "maglev", &[1, 6])?;
    are_shares(&site, [75.0, 12.5, 12.5])?;
    // Datagrams once: a flow lives on for a while, and a socket that gets its port again is in it.
    are_shares_of(&site, Transport::Udp, [75.0, 12.5, 12.5])?;
    let mut held = hold(&site, 24)?;
    check(held.iter().any(|(_, by)| by == "web-1"), || "nothing is held of web-1".to_owned())?;
    apply(&site, &format!("{v4}=0, {v6}=0, node/node2=3"), "maglev", &[3])?;
    are_shares(&site, [0.0, 50.0, 50.0])?;
    all_go_on(&mut held)?;
    apply(&site, "node/node2=1, *=2", "random", &[1, 2])?;
    are_shares(&site, [50.0, 25.0, 25.0])?;
    all_go_on(&mut held)
}

fn all_drained(mode: Mode) -> Result<()> {
    let site = site(mode)?;
    apply(&site, "", "maglev", &[1])?;
    let mut held = hold(&site, 4)?;
    apply(&site, "*=0", "maglev", &[])?;
    for target in targets(&site) {
        let source = site.lab.client().sources(target.ip())[0];
        let got = super::site::ask(&site, source, target);
        let refused = Some(std::io::ErrorKind::ConnectionRefused);
        check(got == [refused; 2], || format!("{target}: {got:?}"))?;
    }
    all_go_on(&mut held)?;
    apply(&site, "*=1", "maglev", &[1])?;
    are_shares(&site, [100.0 / 3.0; 3])
}

fn algorithms(mode: Mode) -> Result<()> {
    let site = site(mode)?;
    apply(&site, "", "maglev", &[1])?;
    let mut held = hold(&site, 12)?;
    for algorithm in ["random", "least", "maglev", "least", "random"] {
        apply(&site, "", algorithm, &[1])?;
        are_shares(&site, [100.0 / 3.0; 3])?;
        all_go_on(&mut held)?;
        held.extend(hold(&site, 4)?);
    }
    all_go_on(&mut held)
}

/// One pod has all connections of the past. While chance gives it a third of the new ones, the less busy
/// of two is it only where it was drawn twice: in one of nine cases.
fn least(mode: Mode) -> Result<()> {
    let site = site(mode)?;
    let [v4, v6] = site.lab.pod("web-2").address().both();
    apply(&site, &format!("*=0, {v4}=1, {v6}=1"), "least", &[1])?;
    let mut held = hold(&site, 150)?;
    check(held.iter().all(|(_, by)| by == "web-2"), || "others are held".to_owned())?;
    apply(&site, "*=2", "least", &[2])?;
    let mut news = hold(&site, 90)?;
    let busy = news.iter().filter(|(_, by)| by == "web-2").count();
    // 20 of 180 are expected, with a standard deviation of 4.2; by chance it would be 60.
    check((3..=42).contains(&busy), || format!("the busy pod got {busy} of {}", news.len()))?;
    let of = |pod: &str| news.iter().filter(|(_, by)| by == pod).count();
    let (one, other) = (of("web-1"), of("web-3"));
    check(one.abs_diff(other) <= 25, || format!("web-1 got {one}, web-3 {other}"))?;
    all_go_on(&mut held)?;
    all_go_on(&mut news)?;
    // The past is over: in a second or two the agent has counted that, and all are alike.
    drop(held);
    drop(news);
    wait("nobody is busy any more", || are_shares(&site, [100.0 / 3.0; 3]))
}
