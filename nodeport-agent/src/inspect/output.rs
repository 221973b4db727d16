//! Tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};

use anyhow::Context as _;
use serde::{Serialize, Serializer};

use crate::args::Output;

/// A line of a table.
pub(super) trait Row: Serialize + Sync {
    /// Titles of the columns.
    const TITLES: &'static [&'static str];

    /// Adds what stands in them, a cell for each column.
    fn add_to(&self, cells: &mut Cells);
}

impl<R: Row> Row for &R {
    const TITLES: &'static [&'static str] = R::TITLES;

    fn add_to(&self, cells: &mut Cells) {
        (**self).add_to(cells);
    }
}

/// Something that is shown by itself.
pub(super) trait Shown: Serialize {
    /// For people.
    fn text(&self) -> String;
}

/// Prints rows.
pub(super) fn rows<R: Row>(rows: &[R], output: Output) -> anyhow::Result<()> {
    print(|out| match output {
        Output::Json => json(&rows, out),
        Output::Table => out.write_all(table(rows).as_bytes()),
    })
}

/// Prints many of a kind. Each row is made when it is printed: of a million, few are in memory.
pub(super) fn list<T: Sync, R: Row>(
    items: &[T],
    row: impl Fn(&T) -> R + Sync,
    output: Output,
) -> anyhow::Result<()> {
    print(|out| match output {
        Output::Json => json(&Each { items, row: &row }, out),
        Output::Table => {
            lines(items, &row).iter().try_for_each(|part| out.write_all(part.as_bytes()))
        }
    })
}

/// A list of the rows that are made of items.
struct Each<'a, T, F> {
    items: &'a [T],
    row: &'a F,
}

impl<T, R: Serialize, F: Fn(&T) -> R> Serialize for Each<'_, T, F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.items.iter().map(self.row))
    }
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
    lines(rows, &|row| row).concat()
}

/// Rows that one thread makes into text, at least: of a million, each CPU has its share.
const SHARE: usize = 4_096;

/// The lines of a table, in pieces that follow each other.
fn lines<'a, T: Sync, R: Row>(items: &'a [T], row: &(impl Fn(&'a T) -> R + Sync)) -> Vec<String> {
    let columns = R::TITLES.len();
    let mut titles = Cells::new(columns);
    titles.texts(R::TITLES);
    let cells = |items: &'a [T]| {
        let mut cells = Cells::new(columns);
        items.iter().for_each(|item| row(item).add_to(&mut cells));
        cells
    };
    let share = share(items.len(), SHARE);
    let parts: Vec<Cells> = each(items.chunks(share), &cells);
    let parts: Vec<Cells> = std::iter::once(titles).chain(parts).collect();
    let widest = |column: usize| parts.iter().map(|part| part.widths[column]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    each(parts, &|part: Cells| part.lines(&widths))
}

/// So many of all are one thread's share.
pub(super) fn share(all: usize, least: usize) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    all.div_ceil(threads).max(least)
}

/// Does something with each part, on a thread of its own, and returns what came of it, in order.
pub(super) fn each<T: Send, U: Send>(
    parts: impl IntoIterator<Item = T>,
    work: &(impl Fn(T) -> U + Sync),
) -> Vec<U> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(move || work(part))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, U>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Cells of a table, row by row, all in one text: there may be ten million.
#[derive(Debug)]
pub(super) struct Cells {
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

    /// Adds a cell.
    pub(super) fn add(&mut self, cell: impl Display) {
        use std::fmt::Write as _;
        let (start, column) = (self.text.len(), self.ends.len() % self.widths.len());
        // Writing to a text does not fail; what cannot be shown is left out.
        let _ = write!(self.text, "{cell}");
        let width = width(&self.text[start..]);
        self.widths[column] = self.widths[column].max(width);
        self.ends.push(self.text.len());
    }

    /// Adds several.
    pub(super) fn texts(&mut self, cells: impl IntoIterator<Item: Display>) {
        cells.into_iter().for_each(|cell| self.add(cell));
    }

    fn lines(&self, widths: &[usize]) -> String {
        let line = widths.iter().map(|width| width + GAP).sum::<usize>();
        let mut lines = String::with_capacity(line * self.ends.len() / widths.len());
        let mut start = 0;
        for row in self.ends.chunks(widths.len()) {
            for (end, wanted) in row.iter().zip(widths) {
                let cell = &self.text[start..*end];
                lines.push_str(cell);
                lines.extend(std::iter::repeat_n(' ', wanted + GAP - width(cell)));
                start = *end;
            }
            lines.truncate(lines.trim_end_matches(' ').len());
            lines.push('\n');
        }
        lines
    }
}

/// Columns that a text takes.
fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
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
        fn add_to(&self, cells: &mut Cells) {
            cells.add(self.0);
            cells.add(self.1);
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
    fn parts_of_several_threads_are_one_table() {
        let rows: Vec<_> = (0..SHARE as u32 * 3).map(|number| Two("x", number)).collect();
        let text = table(&rows);
        assert_eq!(text.lines().count(), rows.len() + 1);
        assert_eq!(text.lines().nth(1), Some("x     0"));
        let wanted = format!("x     {}", rows.len() - 1);
        assert_eq!(text.lines().last(), Some(wanted.as_str()));
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
            fn add_to(&self, cells: &mut Cells) {
                cells.texts(["", "\u{e4}bc", ""]);
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
