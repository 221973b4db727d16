//! Requests to both nodes, in both families: who answers, and whom it sees.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::{PODS, Stage, inside, screen};
use crate::lab::client::{Load, Outcome};
use crate::lab::manifests::DEMO_PORT;

/// Connections to each address.
const CONNECTIONS: u64 = 300;

/// A share that three hundred fair choices stay within, but for one time in a thousand.
const TOLERANCE: f64 = 0.2;

pub(super) fn show(stage: &Stage) -> Result<()> {
    screen::title(&format!("{CONNECTIONS} connections to port {DEMO_PORT} of each node"));
    let mut rows = Vec::new();
    for node in stage.lab.nodes() {
        for address in node.address().both() {
            let target = SocketAddr::new(address, DEMO_PORT);
            let outcome = stage.lab.client().load(&Load::new(target, CONNECTIONS))?;
            check(stage, node.name(), target, &outcome)
                .with_context(|| format!("{target} on {}", node.name()))?;
            let hook = inside::hook(stage, node.name())?;
            rows.push(row(node.name(), target, &hook, &outcome));
        }
    }
    let header = ["node", "address", "by", "pod saw", PODS[0], PODS[1], "failed", "median"];
    print!("{}", screen::table(&header, &rows, 4));
    println!();
    screen::well("every connection was answered, by both pods with their fair share");
    screen::well(
        "a pod on the node that was asked sees the client, one on another node sees the node",
    );
    Ok(())
}

/// All answered; both pods by their share; the client is seen where the node has the pods itself.
fn check(stage: &Stage, node: &str, target: SocketAddr, outcome: &Outcome) -> Result<()> {
    outcome.all_answered()?;
    outcome.fair(&PODS, TOLERANCE)?;
    let local = node == "node2";
    let kept = if local { outcome.answered() } else { 0 };
    ensure!(outcome.sources_kept == kept, "{} clients were seen, not {kept}", outcome.sources_kept);
    if !local {
        let own = stage.lab.node(node).address().both();
        let only_node = outcome.seen.keys().all(|seen| own.contains(seen));
        ensure!(only_node, "{target}: pods saw {:?}", outcome.seen);
    }
    Ok(())
}

fn row(node: &str, target: SocketAddr, hook: &str, outcome: &Outcome) -> Vec<String> {
    let count = |pod: &str| outcome.answers.get(pod).copied().unwrap_or_default().to_string();
    let seen = match outcome.seen.keys().next() {
        Some(first) if outcome.seen.len() == 1 => first.to_string(),
        Some(_) => format!("the client's {} addresses", outcome.seen.len()),
        None => String::new(),
    };
    vec![
        node.to_owned(),
        target.to_string(),
        hook.to_owned(),
        seen,
        count(PODS[0]),
        count(PODS[1]),
        outcome.failed().to_string(),
        format!("{:.2?}", outcome.latency(0.5)),
    ]
}
