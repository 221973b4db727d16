//! `ip` and `ethtool`, called in the network namespace of the calling thread.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::toolchain::path_with;
use crate::workspace;

/// A program that ordinary users may not have on their path.
pub(super) fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", path_with(&["/usr/sbin".into(), "/sbin".into()]));
    command
}

/// Runs lines as `ip -batch` takes them, and stops at the first that fails.
pub(super) fn batch(lines: &[String]) -> Result<()> {
    let mut child = tool("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start `ip -batch -`: is iproute2 installed?")?;
    let text = lines.join("\n") + "\n";
    let written = child.stdin.take().context("stdin of ip")?.write_all(text.as_bytes());
    let output = child.wait_with_output().context("wait for ip")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("`ip {}`: {}", failed_line(&said, lines), said.trim());
    }
    written.context("write to ip")
}

/// `ip` ends with `Command failed -:3`, counted from 1.
fn failed_line<'a>(said: &str, lines: &'a [String]) -> &'a str {
    let number = said.lines().find_map(|line| line.strip_prefix("Command failed -:"));
    let index = number.and_then(|number| number.trim().parse::<usize>().ok()?.checked_sub(1));
    index.and_then(|index| lines.get(index)).map_or("-batch", String::as_str)
}

/// Unfinished checksums never leave this end, and packets are cut before it, as on a wire: XDP
/// behind it would see half a sum, and packets larger than its buffers.
pub(super) fn like_a_wire(device: &str) -> Result<()> {
    features(device, &["tx", "off", "tso", "off", "gso", "off", "txvlan", "off"])
}

/// Lets a veth receive frames that XDP sends at the other end. For `XDP_REDIRECT` NAPI is enough,
/// which GRO brings; after `XDP_TX` the kernel wakes only a veth that has an XDP program
/// (`veth_xdp_flush`). It needs the program that `cargo xtask build` makes.
pub(super) fn takes_xdp_frames(device: &str) -> Result<()> {
    features(device, &["gro", "on"])?;
    let object = workspace::lab_object();
    if !object.exists() {
        return Ok(());
    }
    let mut ip = tool("ip");
    ip.args(["link", "set", "dev", device, "xdpdrv", "object"]).arg(&object);
    crate::command::capture(ip.args(["section", "xdp"])).map(|_| ())
}

/// Has what leaves from a device tagged by the program in that section, which `cargo xtask build`
/// makes.
pub(super) fn tags_frames(device: &str, section: &str) -> Result<()> {
    crate::command::capture(tool("tc").args(["qdisc", "replace", "dev", device, "clsact"]))?;
    crate::command::capture(tool("tc").args(["filter", "del", "dev", device, "egress"]))?;
    let filter = ["filter", "add", "dev", device, "egress", "bpf", "direct-action"];
    let mut tc = tool("tc");
    tc.args(filter).arg("object-file").arg(workspace::lab_object());
    crate::command::capture(tc.args(["section", section])).map(|_| ())
}

fn features(device: &str, changes: &[&str]) -> Result<()> {
    crate::command::capture(tool("ethtool").arg("-K").arg(device).args(changes)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_failed_is_named() {
        let lines = ["link set lo up".to_owned(), "link set nodev up".to_owned()];
        assert_eq!(failed_line("Cannot find\nCommand failed -:2\n", &lines), lines[1]);
        assert_eq!(failed_line("Command failed -:0", &lines), "-batch");
    }
}
