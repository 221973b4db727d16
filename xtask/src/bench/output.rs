//! Where a bench's figures go: the terminal, a JSON file, a folder of charts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use super::goal::{self, Verdict};

/// Where the figures go.
#[derive(Args, Clone, Debug, Default)]
pub struct Output {
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write charts (SVG) into this folder.
    #[arg(long, value_name = "DIR")]
    pub charts: Option<PathBuf>,
    /// Fail if a goal is missed.
    #[arg(long)]
    pub check: bool,
}

/// A chart as a file.
#[derive(Clone, Debug)]
pub(super) struct Svg {
    /// The file's name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What a bench has found.
pub(super) trait Report: Serialize {
    /// Prints the figures.
    fn print(&self);
    /// The goals, as far as they were measured.
    fn verdicts(&self) -> Vec<Verdict>;
    /// The charts.
    ///
    /// # Errors
    /// If a figure cannot be drawn.
    fn charts(&self) -> Result<Vec<Svg>>;
}

/// A JSON file: the bench's own fields, then the goals.
#[derive(Serialize)]
struct Json<'a, R> {
    #[serde(flatten)]
    report: &'a R,
    goals: &'a [Verdict],
}

impl Output {
    /// Prints, writes, and returns the goals.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn publish(&self, report: &impl Report) -> Result<Vec<Verdict>> {
        report.print();
        let verdicts = report.verdicts();
        if !verdicts.is_empty() {
            println!("\n{}", goal::table(&verdicts));
        }
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&Json { report, goals: &verdicts })?;
            write(path, &(text + "\n"))?;
        }
        if let Some(folder) = &self.charts {
            for Svg { name, text } in report.charts()? {
                write(&folder.join(name), &text)?;
            }
        }
        Ok(verdicts)
    }
}

/// Writes a file, and makes its folder.
fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::goal::Bound;
    use super::super::spread::Spread;
    use super::*;

    #[derive(Serialize)]
    struct One {
        figure: f64,
    }

    impl Report for One {
        fn print(&self) {}

        fn verdicts(&self) -> Vec<Verdict> {
            let measured = Spread::of(&[self.figure]).unwrap();
            vec![Verdict::new("one".to_owned(), Bound::AtMost(1.0), "ms", measured)]
        }

        fn charts(&self) -> Result<Vec<Svg>> {
            Ok(vec![Svg { name: "one.svg".to_owned(), text: "<svg/>".to_owned() }])
        }
    }

    #[test]
    fn figures_goals_and_charts_are_written_into_folders_that_were_not_there() {
        let folder = std::env::temp_dir().join(format!("bench-output-{}", std::process::id()));
        let (json, charts) = (folder.join("a/one.json"), folder.join("b"));
        let output = Output { json: Some(json.clone()), charts: Some(charts.clone()), check: true };
        let verdicts = output.publish(&One { figure: 2.0 }).unwrap();
        assert_eq!(goal::missed(&verdicts), 1);
        let value: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
        assert_eq!(value["figure"], 2.0);
        assert_eq!(value["goals"][0]["reached"], false);
        assert_eq!(fs::read_to_string(charts.join("one.svg")).unwrap(), "<svg/>");
        fs::remove_dir_all(folder).unwrap();
    }
}
