//! What a process takes: processor time and memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Its own, in bytes.
    pub own: u64,
    /// The most of everything that it had in memory at once, maps of the kernel's that it has
    /// mapped among it, in bytes.
    pub peak: u64,
}

/// Time that all threads of a process have run.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&folder).with_context(|| folder.clone())?;
    let times = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(Duration::from_nanos(times.sum()))
}

/// Its memory.
pub(super) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    Ok(Memory { own: field(&text, "RssAnon:"), peak: field(&text, "VmHWM:") })
}

/// A field of kibibytes, in bytes.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_run_and_takes_memory() {
        let pid = std::process::id();
        assert!(cpu(pid).unwrap() > Duration::ZERO);
        let memory = memory(pid).unwrap();
        assert!(memory.own > 0 && memory.peak >= memory.own, "{memory:?}");
        assert_eq!(field("VmHWM:\t  12 kB\nRssAnon: 3 kB", "RssAnon:"), 3 * 1_024);
    }
}
