//! Calling other programs, with errors that name the call and show what it said.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::progress::Step;
use crate::workspace;

/// The call as one could type it.
#[must_use]
pub fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let _ = write!(text, " {}", arg.to_string_lossy());
    }
    text
}

/// Runs a program that talks to the terminal itself.
///
/// # Errors
/// If it cannot be started or does not exit with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a program and returns what it printed.
///
/// # Errors
/// If it cannot be started or does not exit with 0; with what it wrote to stderr.
pub fn capture(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{}`", line(command)))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        bail!("`{}` failed ({status}): {}", line(command), said.trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Whether the program could be started and exited with 0; what it prints is dropped.
#[must_use]
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs a talkative program: its output goes to a log file, its latest line to the step.
///
/// # Errors
/// If it cannot be started or does not exit with 0; with its last lines and the log's name.
pub fn logged(command: &mut Command, step: &Step, log: &str) -> Result<()> {
    let log = workspace::logs().join(log);
    fs::create_dir_all(workspace::logs()).with_context(|| format!("create {}", log.display()))?;
    let status = stream(command, step, &log)?;
    if !status.success() {
        let tail = tail(&log, 15);
        bail!("`{}` failed ({status}); from {}:\n{tail}", line(command), log.display());
    }
    Ok(())
}

fn stream(command: &mut Command, step: &Step, log: &Path) -> Result<std::process::ExitStatus> {
    let (reader, writer) = std::io::pipe().context("create a pipe")?;
    let mut file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("clone a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("start `{}`", line(command)))?;
    // The command keeps the pipe's write ends, and reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for text in BufReader::new(reader).split(b'\n') {
        let text = text.context("read a program's output")?;
        file.write_all(&text).and_then(|()| file.write_all(b"\n")).context("write a log")?;
        step.say(String::from_utf8_lossy(&text).trim());
    }
    child.wait().with_context(|| format!("wait for `{}`", line(command)))
}

fn tail(file: &Path, count: usize) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_call_and_what_it_said() {
        let error = capture(Command::new("sh").args(["-c", "echo lost >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains("lost") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_logged_failure_shows_its_last_lines() {
        let step = Step::start("a step", "a test");
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 40; echo end >&2; exit 1"]);
        let text = logged(&mut command, &step, "test-logged.log").unwrap_err().to_string();
        assert!(text.contains("40\nend") && !text.contains("\n20\n"), "{text}");
    }
}
