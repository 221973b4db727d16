//! Tables for people, JSON for programs.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::Output;

/// A line of a table.
pub(super) trait Row: Serialize {
    /// Titles of the columns.
    const TITLES: &'static [&'static str];

    /// What stands in them.
    fn cells(&self) -> Vec<String>;
}

/// Something that is shown by itself.
pub(super) trait Shown: Serialize {
    /// For people.
    fn text(&self) -> String;
}

/// Prints many of a kind.
pub(super) fn list<R: Row>(rows: &[R], output: Output) -> anyhow::Result<()> {
    print(&match output {
        Output::Json => json(&rows)?,
        Output::Table => table(rows),
    })
}

/// Prints one.
pub(super) fn one(shown: &impl Shown, output: Output) -> anyhow::Result<()> {
    print(&match output {
        Output::Json => json(shown)?,
        Output::Table => shown.text(),
    })
}

/// A table with its titles; they alone if there are no rows.
pub(super) fn table<R: Row>(rows: &[R]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(R::TITLES);
    table.add_rows(rows.iter().map(Row::cells));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value).context("writing JSON")? + "\n")
}

/// Who reads may stop before the end (`| head`): that is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("printing"),
        _ => Ok(()),
    }
}

/// Bytes as people read them.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = count as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time as people read it.
pub(super) fn seconds(time: f64) -> String {
    let whole = time as u64;
    match whole {
        0..60 => format!("{time:.1}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3_600, whole % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Two(&'static str, u32);

    impl Row for Two {
        const TITLES: &'static [&'static str] = &["NAME", "COUNT"];
        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_string()]
        }
    }

    #[test]
    fn columns_stand_below_their_titles() {
        assert_eq!(
            table(&[Two("a-long-name", 1), Two("b", 22)]),
            "NAME         COUNT\na-long-name  1\nb            22\n"
        );
        assert_eq!(table::<Two>(&[]), "NAME  COUNT\n");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [bytes(0), bytes(1_023), bytes(1_536), bytes(5 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!([seconds(0.25), seconds(75.0), seconds(7_440.0)], ["0.2s", "1m15s", "2h04m"]);
    }
}
