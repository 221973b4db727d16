//! What the agent itself takes, under the names that all exporters have for it.

use std::fmt;

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};

use super::catalog;
use super::sheet::Sheet;

/// What the agent takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    cpu_seconds: f64,
    resident: u64,
    address_space: u64,
    open_fds: usize,
    /// None without a limit.
    max_fds: Option<u64>,
    started: f64,
}

impl Usage {
    /// At present.
    pub(super) fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = ticks_per_second() as f64;
        let max_fds = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Unlimited => None,
            LimitValue::Value(limit) => Some(limit),
        };
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident: stat.rss * page_size(),
            address_space: stat.vsize,
            open_fds: process.fd_count()?,
            max_fds,
            started: boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
        })
    }

    pub(super) fn encode(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let Self { cpu_seconds, resident, address_space, open_fds, max_fds, started } = *self;
        sheet.one(&catalog::CPU, cpu_seconds)?;
        sheet.one(&catalog::RESIDENT, resident)?;
        sheet.one(&catalog::VIRTUAL, address_space)?;
        sheet.one(&catalog::OPEN_FDS, open_fds)?;
        sheet.one(&catalog::MAX_FDS, max_fds.map_or(f64::INFINITY, |limit| limit as f64))?;
        sheet.one(&catalog::START_TIME, started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_files_and_a_past() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident > 1 << 16 && usage.resident < usage.address_space, "{usage:?}");
        assert!(usage.open_fds >= 3 && usage.max_fds.is_none_or(|max| max >= 3), "{usage:?}");
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!(usage.started <= now + 1.0 && usage.cpu_seconds >= 0.0, "{usage:?}");
    }
}
