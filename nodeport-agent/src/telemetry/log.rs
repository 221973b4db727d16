//! Log lines, on standard error.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// What is left out of what `--log` asks for, unless it names it.
const QUIET: &str = "aya=warn,aya_obj=warn";

/// Starts logging, for the whole process.
///
/// # Errors
/// If the filter cannot be read, or if logging was started before.
pub fn init(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = filter_of(filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = match format {
        LogFormat::Text => lines.with_target(false).with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("starting to log: {error}"))
}

/// The filter as it was given. Of the loader's steps little is said, unless it is asked for.
fn filter_of(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(format!("{QUIET},{filter}"))
        .with_context(|| format!("--log {filter:?}: write a level such as info or debug"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_quiet_unless_asked_for() {
        let shown = |filter| filter_of(filter).unwrap().to_string();
        assert!(shown("debug").contains("aya=warn") && shown("debug").contains("debug"));
        let asked = shown("info,aya=debug");
        assert!(asked.contains("aya=debug") && !asked.contains("aya=warn"), "{asked}");
        assert!(filter_of("a=b=c").unwrap_err().to_string().contains("--log \"a=b=c\""));
    }
}
