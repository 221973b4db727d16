//! One line per step for people: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step that is under way. Dropped without [`Step::done`], it is shown as failed.
pub struct Step {
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    finished: bool,
}

impl Step {
    /// Says what begins and why.
    #[must_use]
    pub fn start(name: &str, why: &str) -> Self {
        let title = format!("{name} ({why})");
        let bar = std::io::stderr().is_terminal().then(|| spinner(&title));
        if bar.is_none() {
            eprintln!("  … {title}");
        }
        Self { name: name.to_owned(), bar, started: Instant::now(), finished: false }
    }

    /// Shows the latest line of what the step's program says.
    pub fn say(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.chars().take(60).collect::<String>());
        }
    }

    /// The step succeeded.
    pub fn done(mut self) {
        self.finished = true;
        self.end("✓");
    }

    fn end(&self, mark: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("  {mark} {} ({:.1} s)", self.name, self.started.elapsed().as_secs_f32());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.end("✗");
        }
    }
}

/// One line for something that needed no work.
pub fn skipped(name: &str, what: &str) {
    eprintln!("  ✓ {name}: {what}");
}

fn spinner(title: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_prefix(title.to_owned());
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix} {elapsed} {msg:.dim}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
