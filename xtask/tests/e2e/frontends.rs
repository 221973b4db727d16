//! Every address of a Service, and who may use it.

use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::thread;

use anyhow::{Context as _, Result};
use xtask::lab::manifests::Slices;
use xtask::lab::{AgentOptions, Lab, Mode, Topology};

use super::Case;
use super::site::{Site, ask, check, is_silent, wait};

pub(crate) const CASES: &[Case] = &[
    ("a load balancer's address is served, and with ipMode Proxy it is not", balancer),
    ("loadBalancerSourceRanges let their clients in and drop others, in both families", ranges),
    ("externalIPs and ClusterIPs are served where that is asked for, and only there", by_option),
];

const PORTS: &[(&str, &str)] = &[("http", "TCP"), ("echo", "UDP")];

const BALANCER: [&str; 2] = ["203.0.113.50", "2001:db8:50::1"];
const EXTERNAL: [&str; 2] = ["198.51.100.7", "2001:db8:51::7"];
const CLUSTER: [&str; 2] = ["10.96.0.7", "fd96::7"];

/// A lab whose clients reach all these addresses through node1.
fn site(mode: Mode, more: &[&str]) -> Result<Site> {
    let topology = Topology::new(2).pods("node1", &["web-1"]).pods("node2", &["web-2"]);
    let lab = Lab::build(&topology)?;
    lab.keep_flows_together()?;
    let more = more.iter().map(|one| (*one).to_owned()).collect();
    let site =
        Site::serve(lab, &["node1", "node2"], &AgentOptions { mode, more, ..Default::default() })?;
    for [four, six] in [BALANCER, EXTERNAL, CLUSTER] {
        let [node4, node6] = site.addresses("node1");
        site.lab.client().namespace().ip(&[
            format!("route add {four} via {node4}"),
            format!("route add {six} via {node6}"),
        ])?;
    }
    let pods: Vec<_> = site.lab.pods().iter().map(|pod| (pod, true)).collect();
    site.lab.apply_slices(&Slices { service: "front", ports: PORTS, pods: &pods })?;
    Ok(site)
}

fn service(kind: &str, more: &str, status: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: front}}\nspec:\n  type: {kind}\n  \
         clusterIPs: [{}, '{}']\n  ports:\n    - {{name: http, port: 80, protocol: TCP}}\n    \
         - {{name: echo, port: 80, protocol: UDP}}\n{more}{status}",
        CLUSTER[0], CLUSTER[1]
    )
}

fn status(mode: &str) -> String {
    let one = |ip| format!("      - {{ip: '{ip}', ipMode: {mode}}}\n");
    format!("status:\n  loadBalancer:\n    ingress:\n{}{}", one(BALANCER[0]), one(BALANCER[1]))
}

fn targets(addresses: [&str; 2]) -> [SocketAddr; 2] {
    addresses.map(|one| SocketAddr::new(one.parse().expect("an address"), 80))
}

fn sources(site: &Site, target: SocketAddr) -> Vec<IpAddr> {
    site.lab.client().sources(target.ip()).to_vec()
}

fn answers(site: &Site, target: SocketAddr) -> Result<()> {
    let source = sources(site, target)[0];
    wait(&format!("{target} answers"), || {
        let got = ask(site, source, target);
        check(got == [None; 2], || format!("{target}: {got:?}"))
    })
}

/// Both pods answer, each for half of the connections.
fn is_shared(site: &Site, target: SocketAddr) -> Result<()> {
    answers(site, target)?;
    let load = xtask::lab::client::Load::new(target, 400);
    let outcome = site.lab.client().load(&load)?;
    outcome.all_answered()?;
    outcome.fair(&["web-1", "web-2"], 0.25)
}

/// Node1 does not know these addresses: it has no route to them, and nobody takes such packets.
fn are_not_served(site: &Site, targets: impl IntoIterator<Item = SocketAddr>) -> Result<()> {
    let is_not_served = |target: SocketAddr| {
        wait(&format!("{target} is left alone"), || {
            let got = ask(site, sources(site, target)[0], target);
            check(got.iter().all(Option::is_some), || format!("{target}: {got:?}"))
        })
    };
    thread::scope(|scope| {
        let asking = targets.into_iter().map(|target| scope.spawn(move || is_not_served(target)));
        let asking: Vec<_> = asking.collect();
        asking
            .into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn balancer(mode: Mode) -> Result<()> {
    let site = site(mode, &[])?;
    site.lab.apply("front", &service("LoadBalancer", "", &status("VIP")))?;
    targets(BALANCER)
        .into_iter()
        .try_for_each(|target| is_shared(&site, target).with_context(|| target.to_string()))?;
    site.lab.apply("front", &service("LoadBalancer", "", &status("Proxy")))?;
    are_not_served(&site, targets(BALANCER))
}

fn ranges(mode: Mode) -> Result<()> {
    let site = site(mode, &[])?;
    let apply = |ranges: &[String]| {
        let list = format!("  loadBalancerSourceRanges: [{}]\n", ranges.join(", "));
        site.lab.apply("front", &service("LoadBalancer", &list, &status("VIP")))
    };
    let [four, six] = targets(BALANCER);
    let of = |target| sources(&site, target);
    apply(&[format!("{}/32", of(four)[0]), format!("'{}/128'", of(six)[0])])?;
    for target in [four, six] {
        answers(&site, target)?;
        let got = ask(&site, of(target)[1], target);
        check(is_silent(&got), || format!("{target} from another: {got:?}"))?;
    }
    let counters = site.counters("node1");
    check(counters.contains("source_range"), || format!("what was dropped: {counters}"))?;
    // Networks of one family alone shut the other one out.
    apply(&[format!("{}/32", of(four)[1])])?;
    wait("the other client is let in", || {
        let got = ask(&site, of(four)[1], four);
        check(got == [None; 2], || format!("{got:?}"))
    })?;
    for (source, target) in [(of(four)[0], four), (of(six)[0], six)] {
        let got = ask(&site, source, target);
        check(is_silent(&got), || format!("{source} to {target}: {got:?}"))?;
    }
    Ok(())
}

fn by_option(mode: Mode) -> Result<()> {
    let externals = format!("  externalIPs: ['{}', '{}']\n", EXTERNAL[0], EXTERNAL[1]);
    let manifest = service("ClusterIP", &externals, "");
    let by_default = site(mode, &[])?;
    by_default.lab.apply("front", &manifest)?;
    are_not_served(&by_default, targets(EXTERNAL).into_iter().chain(targets(CLUSTER)))?;
    drop(by_default);
    let asked =
        site(mode, &["--external-ips", "198.51.100.0/24,2001:db8:51::/48", "--cluster-ips"])?;
    asked.lab.apply("front", &manifest)?;
    for target in targets(EXTERNAL).into_iter().chain(targets(CLUSTER)) {
        is_shared(&asked, target).with_context(|| target.to_string())?;
    }
    Ok(())
}
