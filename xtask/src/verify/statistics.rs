//! The lines that the verifier ends its log with.
//!
//! ```text
//! verification time 1507 usec
//! stack depth 112+0+64
//! processed 3519 insns (limit 1000000) max_states_per_insn 4 total_states 177 peak_states 177 …
//! ```

use anyhow::{Context as _, Result};

/// What it counted in one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Instructions that it walked through.
    pub instructions: u32,
    /// Bytes of stack of the program and of each of its functions, as the kernel writes it.
    pub stack: String,
    /// How long it took.
    pub microseconds: u64,
}

/// Reads a log written at level `BPF_LOG_STATS`.
pub(super) fn parse(log: &str) -> Result<Statistics> {
    let field = |name: &str| {
        log.lines().find_map(|line| line.trim().strip_prefix(name)?.split_whitespace().next())
    };
    let missing = |name: &str| format!("no \"{name}\" in the verifier's log:\n{log}");
    let instructions = field("processed ").and_then(|count| count.parse().ok());
    let microseconds = field("verification time ").and_then(|time| time.parse().ok());
    Ok(Statistics {
        instructions: instructions.with_context(|| missing("processed"))?,
        stack: field("stack depth ").with_context(|| missing("stack depth"))?.to_owned(),
        microseconds: microseconds.with_context(|| missing("verification time"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read() {
        let log = "verification time 1507 usec\nstack depth 112+0+64\n\
                   processed 3519 insns (limit 1000000) max_states_per_insn 4 total_states 177\n";
        let stack = "112+0+64".to_owned();
        let expected = Statistics { instructions: 3519, stack, microseconds: 1507 };
        assert_eq!(parse(log).unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse("verification time 15 usec\nprocessed 3 insns\n").unwrap_err();
        assert!(error.to_string().contains("stack depth"), "{error}");
    }
}
