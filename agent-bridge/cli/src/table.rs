//! Aligned columns with a header.

use std::io::{self, Write};

use crate::human;

/// A column's name and side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Left(name) | Self::Right(name) => name,
        }
    }
}

/// Prints the rows under their header; a row has one cell a column.
pub(crate) fn print(
    out: &mut impl Write,
    columns: &[Column],
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.iter().map(|cell| human::plain(cell)).collect())
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(at))
                .map(|cell| width(cell));
            cells.chain([width(column.name())]).max().unwrap_or(0)
        })
        .collect();
    let header = columns
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    for row in std::iter::once(&header).chain(&rows) {
        writeln!(out, "{}", line(columns, &widths, row).trim_end())?;
    }
    Ok(())
}

fn line(columns: &[Column], widths: &[usize], row: &[String]) -> String {
    let mut line = String::new();
    for ((column, &wide), cell) in columns.iter().zip(widths).zip(row) {
        let padding = " ".repeat(wide.saturating_sub(width(cell)));
        match column {
            Column::Left(_) => line.extend([cell, padding.as_str(), "  "]),
            Column::Right(_) => line.extend([padding.as_str(), cell, "  "]),
        }
    }
    line
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let rows = [vec!["cache", "5", "x"], vec!["a", "1000", ""]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect());
        let mut out = Vec::new();
        let columns = [Column::Left("NAME"), Column::Right("N"), Column::Left("Z")];
        print(&mut out, &columns, rows.into_iter()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME      N  Z\ncache     5  x\na      1000\n");
    }
}
