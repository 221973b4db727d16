//! What the agent shows of it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nodeport_common::abi::LAYOUT_VERSION;
use serde_json::Value;

use super::{Stage, screen};
use crate::command;
use crate::lab::Node;

/// Lines of long tables that are shown.
const LINES: usize = 12;

pub(super) fn show(stage: &Stage) -> Result<()> {
    for (command, what) in [
        ("services", "the service ports that node1 serves"),
        ("flows", "some of its flows"),
        ("status", "how it does"),
    ] {
        screen::title(&format!("nodeport-agent {command}: {what}"));
        let text = stage.lab.call_agent("node1", &[command])?;
        ensure!(!text.trim().is_empty(), "nodeport-agent {command} shows nothing");
        print!("{}", screen::indented(&shortened(&text)));
    }
    screen::title("bpftool map dump: what lies in the kernel, by name");
    let text = dump(stage.lab.node("node1"), "frontends4")?;
    ensure!(text.contains("30007"), "frontends4 does not hold port 30007: {text}");
    print!("{}", screen::indented(&shortened(&text)));
    Ok(())
}

fn shortened(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    if lines.len() <= LINES * 2 {
        return text.to_owned();
    }
    let shown = lines.get(..LINES).unwrap_or_default().join("\n");
    format!("{shown}\n… {} lines more", lines.len() - LINES)
}

/// Where a node's agent pins a map.
pub(super) fn pin(node: &Node, map: &str) -> PathBuf {
    node.bpffs().join(format!("nodeport/{}/v{LAYOUT_VERSION}/{map}", node.name()))
}

fn dump(node: &Node, map: &str) -> Result<String> {
    let path = pin(node, map);
    command::capture(Command::new("bpftool").args(["map", "dump", "pinned"]).arg(path))
}

/// The hook and mode that serve a node's NIC. The agent uses XDP in driver mode only.
pub(super) fn hook(stage: &Stage, node: &str) -> Result<String> {
    let text = stage.lab.call_agent(node, &["status", "-o", "json"])?;
    let status: Value = serde_json::from_str(&text).context("status -o json")?;
    let devices = status["devices"].as_array().cloned().unwrap_or_default();
    let nic = devices.iter().find(|device| device["name"] == "eth0");
    // XDP leaves to TC what goes straight into a pod's veth.
    let has_pods = devices.iter().any(|device| device["mode"] == "pod");
    match nic.and_then(|nic| nic["mode"].as_str()) {
        Some("xdp") if has_pods => Ok("XDP, TC to pods".to_owned()),
        Some("xdp") => Ok("XDP, native".to_owned()),
        Some("tc") => Ok("TC".to_owned()),
        _ => Err(anyhow::anyhow!("{node}'s eth0 is not served: {text}")),
    }
}
