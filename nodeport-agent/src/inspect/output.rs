//! Tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::mpsc::sync_channel;

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
        Output::Json => json_list(items, &row, out),
        Output::Table => {
            let grid = Grid::of(items, &row);
            in_order(grid.parts.len(), &|part| Ok(grid.lines(part)), out)
        }
    })
}

/// A list as [`json`] writes it, of which several threads make parts.
fn json_list<T: Sync, R: Serialize>(
    items: &[T],
    row: &(impl Fn(&T) -> R + Sync),
    out: &mut impl Write,
) -> io::Result<()> {
    const OPENED: &str = "[\n";
    const CLOSED: &str = "\n]";
    if items.is_empty() {
        return json(&Each { items, row }, out);
    }
    let parts = items.len().div_ceil(PART);
    let part = |number: usize| {
        let items = &items[part(items.len(), number)];
        let mut text = serde_json::to_string_pretty(&Each { items, row })?;
        // What stands between two parts is what stands between two items.
        let is_last = number + 1 == parts;
        text.truncate(text.len() - if is_last { 0 } else { CLOSED.len() });
        text.push_str(if is_last { "\n" } else { ",\n" });
        if number > 0 {
            text.drain(..OPENED.len());
        }
        Ok(text)
    };
    in_order(parts, &part, out)
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

/// Rows that are made into text at a time: few enough that they stay in a processor's cache.
const PART: usize = 4_096;

/// The items of a part, among so many.
fn part(items: usize, number: usize) -> Range<usize> {
    let start = (number * PART).min(items);
    start..(start + PART).min(items)
}

/// Writes parts in their order. They are made on all processors while others are written.
fn in_order(
    parts: usize,
    make: &(impl Fn(usize) -> io::Result<String> + Sync),
    out: &mut impl Write,
) -> io::Result<()> {
    let threads = threads().min(parts).max(1);
    std::thread::scope(|scope| {
        let made: Vec<_> = (0..threads)
            .map(|first| {
                let (sender, receiver) = sync_channel(1);
                // Where nobody listens any more, writing has failed.
                let work =
                    move || (first..parts).step_by(threads).try_for_each(|n| sender.send(make(n)));
                scope.spawn(work);
                receiver
            })
            .collect();
        for number in 0..parts {
            let text = made[number % threads].recv().map_err(io::Error::other)??;
            out.write_all(text.as_bytes())?;
        }
        Ok(())
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
    let grid = Grid::of(rows, &|row| row);
    (0..grid.parts.len()).map(|part| grid.lines(part)).collect()
}

/// The cells of a table, in parts that follow each other.
struct Grid {
    /// The first one has the titles.
    parts: Vec<Cells>,
    /// How wide the columns are.
    widths: Vec<usize>,
}

impl Grid {
    fn of<'a, T: Sync, R: Row>(items: &'a [T], row: &(impl Fn(&'a T) -> R + Sync)) -> Self {
        let columns = R::TITLES.len();
        let mut titles = Cells::new(columns);
        titles.texts(R::TITLES);
        let cells = |items: &'a [T]| {
            let mut cells = Cells::new(columns);
            items.iter().for_each(|item| row(item).add_to(&mut cells));
            cells
        };
        let share = share(items.len(), PART).next_multiple_of(PART);
        let shares = each(items.chunks(share), &|items: &'a [T]| {
            items.chunks(PART).map(cells).collect::<Vec<_>>()
        });
        let parts: Vec<_> = std::iter::once(titles).chain(shares.into_iter().flatten()).collect();
        let widest = |column: usize| parts.iter().map(|part| part.widths[column]).max();
        let widths = (0..columns).map(|column| widest(column).unwrap_or(0)).collect();
        Self { parts, widths }
    }

    fn lines(&self, part: usize) -> String {
        self.parts[part].lines(&self.widths)
    }
}

/// So many of all are one thread's share.
pub(super) fn share(all: usize, least: usize) -> usize {
    all.div_ceil(threads()).max(least)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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
    /// Bytes of each cell.
    lengths: Vec<u32>,
    /// The widest cell of each column.
    widths: Vec<usize>,
}

impl Cells {
    fn new(columns: usize) -> Self {
        Self { text: String::new(), lengths: Vec::new(), widths: vec![0; columns] }
    }

    /// Adds a cell.
    pub(super) fn add(&mut self, cell: impl Display) {
        use std::fmt::Write as _;
        // Writing to a text does not fail; what cannot be shown is left out.
        self.add_by(|text| {
            let _ = write!(text, "{cell}");
        });
    }

    /// Adds a cell that something writes at the end of a text: quicker than what can be shown in
    /// general, where there are millions.
    pub(super) fn add_by(&mut self, write: impl FnOnce(&mut String)) {
        let (start, column) = (self.text.len(), self.lengths.len() % self.widths.len());
        write(&mut self.text);
        let cell = &self.text[start..];
        self.widths[column] = self.widths[column].max(width(cell));
        self.lengths.push(cell.len() as u32);
    }

    /// Adds several.
    pub(super) fn texts(&mut self, cells: impl IntoIterator<Item: Display>) {
        cells.into_iter().for_each(|cell| self.add(cell));
    }

    fn lines(&self, widths: &[usize]) -> String {
        let line = widths.iter().map(|width| width + GAP).sum::<usize>();
        let mut lines = String::with_capacity(line * self.lengths.len() / widths.len());
        let mut rest = self.text.as_str();
        for row in self.lengths.chunks(widths.len()) {
            for (length, wanted) in row.iter().zip(widths) {
                let (cell, others) = rest.split_at(*length as usize);
                lines.push_str(cell);
                pad(&mut lines, wanted + GAP - width(cell));
                rest = others;
            }
            lines.truncate(lines.trim_end_matches(' ').len());
            lines.push('\n');
        }
        lines
    }
}

fn pad(text: &mut String, mut count: usize) {
    const BLANKS: &str = "                                ";
    while count > 0 {
        let some = count.min(BLANKS.len());
        text.push_str(&BLANKS[..some]);
        count -= some;
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
    let mut text = String::new();
    put_bytes(&mut text, count);
    text
}

/// Writes a number.
pub(super) fn put_number(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// Writes an address with its port.
pub(super) fn put_address(text: &mut String, address: SocketAddr) {
    use std::fmt::Write as _;
    let SocketAddr::V4(v4) = address else {
        // Writing to a text does not fail.
        let _ = write!(text, "{address}");
        return;
    };
    for (octet, behind) in v4.ip().octets().into_iter().zip(['.', '.', '.', ':']) {
        put_number(text, octet.into());
        text.push(behind);
    }
    put_number(text, v4.port().into());
}

/// Writes bytes as people read them.
pub(super) fn put_bytes(text: &mut String, count: u64) {
    const UNITS: [&str; 5] = [" B", " KiB", " MiB", " GiB", " TiB"];
    let mut unit = 0;
    let mut value = count as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        put_number(text, count);
    } else {
        put_tenths(text, value);
    }
    text.push_str(UNITS[unit]);
}

/// Writes a time as people read it.
pub(super) fn put_seconds(text: &mut String, time: f64) {
    let mut two = |large: u64, unit: char, small: u64, small_unit: char| {
        put_number(text, large);
        text.push(unit);
        if small < 10 {
            text.push('0');
        }
        put_number(text, small);
        text.push(small_unit);
    };
    let whole = time as u64;
    match whole {
        0..60 => {
            put_tenths(text, time);
            text.push('s');
        }
        60..3_600 => two(whole / 60, 'm', whole % 60, 's'),
        _ => two(whole / 3_600, 'h', whole % 3_600 / 60, 'm'),
    }
}

/// Writes a number with one digit behind the point.
fn put_tenths(text: &mut String, value: f64) {
    let tenths = (value * 10.0).round_ties_even() as u64;
    put_number(text, tenths / 10);
    text.push('.');
    put_number(text, tenths % 10);
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
        let rows: Vec<_> = (0..PART as u32 * 5 / 2).map(|number| Two("x", number)).collect();
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
        let seconds = |time| {
            let mut text = String::new();
            put_seconds(&mut text, time);
            text
        };
        assert_eq!([seconds(0.25), seconds(75.0), seconds(7_440.0)], ["0.2s", "1m15s", "2h04m"]);
        assert_eq!([seconds(0.0), seconds(9.96), seconds(62.0)], ["0.0s", "10.0s", "1m02s"]);
    }

    #[test]
    fn addresses_are_as_the_standard_has_them() {
        for address in ["0.0.0.0:0", "255.10.9.100:65535", "[fd00:10::1]:80", "[::]:1"] {
            let mut text = "x".to_owned();
            put_address(&mut text, address.parse().unwrap());
            assert_eq!(text[1..], *address);
        }
    }

    #[test]
    fn lists_of_many_parts_are_one_list() {
        for count in [0, 1, PART, PART + 1, PART * 5 / 2] {
            let rows: Vec<_> = (0..count as u32).map(|number| Two("x", number)).collect();
            let (mut parts, mut whole) = (Vec::new(), Vec::new());
            json_list(&rows, &|row: &Two| Two(row.0, row.1), &mut parts).unwrap();
            json(&rows, &mut whole).unwrap();
            assert!(parts == whole, "{count}");
        }
    }

    #[test]
    fn where_writing_fails_it_ends() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = in_order(100, &|_| Ok("x".to_owned()), &mut Full).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
