//! Tables for people, JSON for programs.

use std::io::{self, BufWriter, ErrorKind, Write};

use anyhow::Context as _;
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
    print(|out| match output {
        Output::Json => json(&rows, out),
        Output::Table => out.write_all(table(rows).as_bytes()),
    })
}

/// Prints one.
pub(super) fn one(shown: &impl Shown, output: Output) -> anyhow::Result<()> {
    print(|out| match output {
        Output::Json => json(shown, out),
        Output::Table => out.write_all(shown.text().as_bytes()),
    })
}

/// Blanks between columns.
const GAP: usize = 2;

/// A table with its titles; they alone if there are no rows.
pub(super) fn table<R: Row>(rows: &[R]) -> String {
    // Rows may be a million: all cells are in one text, not each in its own.
    let mut cells = Cells::new(R::TITLES.len());
    R::TITLES.iter().for_each(|title| cells.add(title));
    rows.iter().flat_map(Row::cells).for_each(|cell| cells.add(&cell));
    cells.lines()
}

/// Cells of a table, row by row.
struct Cells {
    text: String,
    /// Where each cell ends in the text.
    ends: Vec<usize>,
    /// The widest cell of each column.
    widths: Vec<usize>,
}

impl Cells {
    fn new(columns: usize) -> Self {
        Self { text: String::new(), ends: Vec::new(), widths: vec![0; columns] }
    }

    fn add(&mut self, cell: &str) {
        let column = self.ends.len() % self.widths.len();
        self.widths[column] = self.widths[column].max(cell.chars().count());
        self.text.push_str(cell);
        self.ends.push(self.text.len());
    }

    fn lines(&self) -> String {
        let width = self.widths.iter().map(|width| width + GAP).sum::<usize>();
        let mut lines = String::with_capacity(width * self.ends.len() / self.widths.len());
        let mut start = 0;
        for row in self.ends.chunks(self.widths.len()) {
            for (end, width) in row.iter().zip(&self.widths) {
                let cell = &self.text[start..*end];
                lines.push_str(cell);
                let blanks = width + GAP - cell.chars().count();
                lines.extend(std::iter::repeat_n(' ', blanks));
                start = *end;
            }
            lines.truncate(lines.trim_end_matches(' ').len());
            lines.push('\n');
        }
        lines
    }
}

fn json(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Who reads may stop before the end (`| head`): that is no failure.
fn print(
    write: impl FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
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
    fn ends_of_lines_are_bare() {
        struct Gaps;
        impl Serialize for Gaps {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_unit()
            }
        }
        impl Row for Gaps {
            const TITLES: &'static [&'static str] = &["A", "B", "C"];
            fn cells(&self) -> Vec<String> {
                ["", "\u{e4}bc", ""].map(str::to_owned).to_vec()
            }
        }
        assert_eq!(table(&[Gaps]), "A  B    C\n   \u{e4}bc\n");
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
