//! What the demo prints.

use comfy_table::{CellAlignment, Table, presets};

/// Begins a step.
pub(super) fn title(text: &str) {
    if super::is_terminal() {
        println!("\n\x1b[1m{text}\x1b[0m\n");
    } else {
        println!("\n{text}\n");
    }
}

/// A check that held.
pub(super) fn well(text: &str) {
    println!("  ✓ {text}");
}

/// Text set off from the margin.
pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// A table without rules, numbers to the right from column `numbers` on.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], numbers: usize) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    indented(&table.to_string())
}
