//! Which processor takes in which packets.

use anyhow::{Context as _, Result, ensure};

use super::{Lab, Node};
use crate::processor;

/// Processors that one word of the kernel's mask tells.
const WORD: usize = 32;

impl Lab {
    /// Has each node take in all packets of one flow on one processor, as the queues of a network
    /// card do (RSS). A veth does not: packets of both processors wait in one queue, which either of
    /// them works off.
    ///
    /// Where a handshake's last segment and the request behind it come on two processors at a time,
    /// the pod's own stack resets one connection in a million: traces show its listener answering,
    /// with the segments before it complete and in order.
    ///
    /// # Errors
    /// If the kernel does not let packets be steered (`CONFIG_RPS`).
    pub fn keep_flows_together(&self) -> Result<()> {
        let usable = processor::usable()?;
        ensure!(usable.iter().all(|one| *one < WORD), "there are more than {WORD} processors");
        let mask = usable.iter().fold(0_u32, |mask, one| mask | 1 << one);
        self.nodes().iter().try_for_each(|node| steer(node, mask))
    }
}

/// `/sys/class/net` shows the interfaces of the namespace in which it was mounted: so it is mounted
/// anew, where nobody else sees it.
fn steer(node: &Node, mask: u32) -> Result<()> {
    let script = format!(
        "mount -t sysfs sysfs /sys && echo {mask:x} > /sys/class/net/eth0/queues/rx-0/rps_cpus"
    );
    let call = ["--mount", "sh", "-ec", &script];
    let steered = node.namespace().capture("unshare", &call).map(|_| ());
    steered.with_context(|| format!("steer packets on {}", node.name()))
}
