//! The far end of the veth, and what drivers count.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::super::runner::PEER;
use crate::{command, workspace};

/// Has the far end drop every frame, in its driver.
pub(super) fn take_frames() -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["link", "set", "dev", PEER, "xdpdrv", "object"]).arg(workspace::lab_object());
    command::capture(ip.args(["section", "drop"])).map(|_| ())
}

/// How many frames a device's program has dropped in its driver.
pub(super) fn dropped(device: &str) -> Result<u64> {
    let said = command::capture(Command::new("ethtool").args(["-S", device]))?;
    drops(&said).with_context(|| format!("`ethtool -S {device}` has no xdp_drops: {said}"))
}

/// The sum over all queues; `None` if there are none.
fn drops(statistics: &str) -> Option<u64> {
    let queues = statistics.lines().filter_map(|line| line.trim().split_once("_xdp_drops: "));
    let queues: Vec<u64> = queues.filter_map(|(_, count)| count.trim().parse().ok()).collect();
    (!queues.is_empty()).then(|| queues.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_queues_are_counted() {
        let text = "NIC statistics:\n     rx_queue_0_xdp_drops: 5\n     rx_queue_0_drops: 9\n     \
                    rx_queue_1_xdp_drops: 2\n";
        assert_eq!(drops(text), Some(7));
        assert_eq!(drops("no stats available"), None);
    }
}
