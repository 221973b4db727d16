//! `cargo xtask test`: sets up, builds, and runs every test.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::toolchain::host_cargo;
use crate::{build, command, setup, workspace};

/// What to run.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Passed on to `cargo test`, for instance `-p xtask --test lab`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Runs the tests.
///
/// # Errors
/// If something cannot be installed or built, or a test fails.
pub fn run(options: &Options) -> Result<()> {
    let Options { arguments } = options;
    let started = Instant::now();
    let ready = setup::ensure()?;
    build::object(&ready)?;
    build::agent()?;
    let prepared = started.elapsed();
    let summary = cargo_test(arguments)?;
    let took = started.elapsed() - prepared;
    println!(
        "\n{} suites: {} tests passed, {} failed, {} ignored\n\
         set-up and build {} s, tests {} s",
        summary.suites,
        summary.passed,
        summary.failed,
        summary.ignored,
        prepared.as_secs(),
        took.as_secs()
    );
    summary.verdict()
}

/// What the suites report at their ends, added up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    suites: u32,
    passed: u32,
    failed: u32,
    ignored: u32,
    /// Whether cargo itself was content: a test that does not compile reports nothing.
    succeeded: bool,
}

impl Summary {
    /// `test result: ok. 17 passed; 0 failed; 0 ignored; 0 measured; …`
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let count = |what: &str| {
            let words: Vec<&str> = counts.split([' ', ';']).collect();
            let at = words.iter().position(|word| *word == what);
            at.and_then(|at| words.get(at.checked_sub(1)?)?.parse::<u32>().ok()).unwrap_or(0)
        };
        self.suites += 1;
        self.passed += count("passed");
        self.failed += count("failed");
        self.ignored += count("ignored");
    }

    fn verdict(&self) -> Result<()> {
        if !self.succeeded || self.failed > 0 {
            bail!("{} tests failed, or did not build or run to their end", self.failed);
        }
        if self.passed == 0 {
            bail!("no test ran: is the name right?");
        }
        Ok(())
    }
}

fn cargo_test(arguments: &[String]) -> Result<Summary> {
    let mut cargo = host_cargo();
    cargo.args(["test", "--no-fail-fast"]).args(arguments);
    cargo.env(build::OBJECT_VARIABLE, workspace::object());
    tally(&mut cargo)
}

/// Shows what the program prints, and adds up what the suites say.
fn tally(cargo: &mut Command) -> Result<Summary> {
    let call = command::line(cargo);
    let mut child =
        cargo.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{call}`"))?;
    let mut summary = Summary::default();
    let output = child.stdout.take().context("the tests' output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("read the tests' output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        summary.add(&line);
    }
    summary.succeeded = child.wait().with_context(|| format!("wait for `{call}`"))?.success();
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "test result: ok. 17 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.02s";
    const BAD: &str = "test result: FAILED. 14 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.92s";

    fn summary(lines: &[&str], succeeded: bool) -> Summary {
        let mut summary = Summary { succeeded, ..Summary::default() };
        lines.iter().for_each(|line| summary.add(line));
        summary
    }

    #[test]
    fn suites_are_added_up() {
        let total = summary(&[GOOD, "test a ... ok", BAD], false);
        let expected = Summary { suites: 2, passed: 31, failed: 1, ignored: 2, succeeded: false };
        assert_eq!(total, expected);
    }

    #[test]
    fn only_all_of_them_passing_is_good() {
        assert!(summary(&[GOOD], true).verdict().is_ok());
        assert!(summary(&[GOOD, BAD], false).verdict().is_err());
        assert!(summary(&[GOOD], false).verdict().is_err(), "a suite that did not build");
        assert!(summary(&[], true).verdict().is_err(), "no test at all");
    }
}
