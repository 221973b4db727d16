//! The benchmark itself: with tiny counts, all of its rows are there, and nothing that it sends is
//! lost. How quick anything was is not looked at.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xtask::{command, workspace};

/// All measures, as the JSON names them.
const MEASURES: [&str; 13] = [
    "first-packet",
    "later-packet",
    "new-connections",
    "kept-requests",
    "udp-rate",
    "cpu-per-connection",
    "cpu-per-request",
    "first-p50",
    "first-p99",
    "first-p999",
    "later-p50",
    "later-p99",
    "later-p999",
];

/// All ways: by whom, where to, with how many services.
const WAYS: [(&str, &str, u64); 10] = [
    ("routing", "remote", 0),
    ("nodeport", "remote", 1),
    ("nodeport", "remote", 30),
    ("nftables", "remote", 1),
    ("nftables", "remote", 30),
    ("iptables", "remote", 1),
    ("iptables", "remote", 30),
    ("routing", "local", 0),
    ("nodeport", "local", 1),
    ("nodeport", "local", 30),
];

/// All families, each with all ways.
const FAMILIES: [u64; 2] = [4, 6];

/// `bench traffic` fails if a packet, a frame, a connection or a request is lost; so that it ends
/// well says that all of them arrived.
pub(crate) fn traffic() -> Result<()> {
    let folder = workspace::target().join("test-bench-traffic");
    std::fs::create_dir_all(&folder).context("create a folder")?;
    let json = folder.join("traffic.json");
    let counts = "--rounds 2 --services 1,30 --flows 20 --packets 400 --connections 40 \
                  --requests 80 --datagrams 400 --frames 10000 --skip-kube-proxy";
    let mut bench = Command::new(env!("CARGO_BIN_EXE_xtask"));
    bench.args(["bench", "traffic", "--no-build"]).args(counts.split_whitespace());
    command::capture(bench.arg("--json").arg(&json).arg("--charts").arg(&folder))?;
    let text = std::fs::read_to_string(&json).context("read the figures")?;
    check_rows(&serde_json::from_str(&text)?)?;
    check_charts(&folder)?;
    std::fs::remove_dir_all(&folder).context("remove the folder")
}

fn check_rows(report: &serde_json::Value) -> Result<()> {
    let figures = report["traffic"].as_array().context("no figures")?;
    let rows: HashSet<_> = figures
        .iter()
        .filter(|figure| figure["value"]["median"].as_f64().is_some_and(|value| value > 0.0))
        .filter_map(|figure| {
            let text = |name: &str| figure[name].as_str();
            let way = (text("setup")?, text("place")?, figure["services"].as_u64()?);
            Some((text("measure")?, way, figure["family"].as_u64()?))
        })
        .collect();
    let wanted = MEASURES.iter().flat_map(|measure| WAYS.map(|way| (*measure, way)));
    for row in wanted.flat_map(|(measure, way)| FAMILIES.map(|family| (measure, way, family))) {
        ensure!(rows.contains(&row), "no row of {row:?}");
    }
    let count = MEASURES.len() * WAYS.len() * FAMILIES.len();
    ensure!(rows.len() == count, "{} rows: some are not known", rows.len());
    for (kind, count) in [("walk", 3), ("send", 4)] {
        let programs = report["frames"][kind].as_array().context("no frames")?;
        ensure!(programs.len() == count, "{programs:?}");
    }
    Ok(())
}

fn check_charts(folder: &Path) -> Result<()> {
    for (chart, bar) in [
        ("later-packet-remote", "nodeport"),
        ("later-packet-remote", "IPv6"),
        ("later-packet-local", "nodeport"),
        ("new-connections-remote", "nodeport"),
        ("frames", "nodeport"),
        ("send", "devmap"),
    ] {
        let path = folder.join(format!("traffic-{chart}.svg"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(text.contains(bar) && text.trim_end().ends_with("</svg>"), "{chart}: {bar}");
    }
    Ok(())
}
