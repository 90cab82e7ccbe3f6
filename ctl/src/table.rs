//! Lists: aligned under a header for people, plain tab-separated columns for what reads a pipe.

use comfy_table::{Cell as TableCell, CellAlignment, Table, presets};

use crate::{escape::escape, output::Output};

/// One field of a row.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    shown: String,
    plain: String,
    alignment: CellAlignment,
}

impl Cell {
    /// Shows the same text everywhere.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { shown: text.clone(), plain: text, alignment: CellAlignment::Left }
    }

    /// Shows a number with its unit to people, and as it is in a pipe.
    pub(crate) fn number(plain: impl ToString, shown: impl Into<String>) -> Self {
        Self { shown: shown.into(), plain: plain.to_string(), alignment: CellAlignment::Right }
    }
}

/// Prints rows; nothing at all when there are none.
pub(crate) fn print(output: &Output, header: &[&str], rows: Vec<Vec<Cell>>) {
    if rows.is_empty() {
        return;
    }
    if output.stdout_is_terminal() {
        let lines = aligned(header, &rows);
        lines.iter().for_each(|line| output.data(line));
    } else {
        for row in rows {
            let fields: Vec<_> = row.iter().map(|cell| escape(&cell.plain)).collect();
            output.data(&fields.join("\t"));
        }
    }
}

/// Lays rows out in columns, two spaces apart.
pub(crate) fn aligned(header: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().map(TableCell::new));
    }
    for row in rows {
        table.add_row(
            row.iter().map(|cell| TableCell::new(escape(&cell.shown)).set_alignment(cell.alignment)),
        );
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}
