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

/// Prints one more row of a table that goes on, at its beginning under the header. Columns never
/// become narrower, so that most rows stand under each other.
pub(crate) fn next(
    out: &mut impl Write,
    columns: &[Column],
    widths: &mut Vec<usize>,
    row: &[String],
) -> io::Result<()> {
    let row: Vec<String> = row.iter().map(|cell| human::plain(cell)).collect();
    let is_first = widths.is_empty();
    if is_first {
        *widths = columns.iter().map(|column| width(column.name())).collect();
    }
    for (wide, cell) in widths.iter_mut().zip(&row) {
        *wide = width(cell).max(*wide);
    }
    if is_first {
        let header: Vec<_> = columns
            .iter()
            .map(|column| column.name().to_owned())
            .collect();
        writeln!(out, "{}", line(columns, widths, &header).trim_end())?;
    }
    writeln!(out, "{}", line(columns, widths, &row).trim_end())
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

    #[test]
    fn a_table_that_goes_on_has_one_header_and_only_grows() {
        let columns = [Column::Left("NAME"), Column::Right("N")];
        let (mut out, mut widths) = (Vec::new(), Vec::new());
        for row in [["cache", "5"], ["longer-name", "7"], ["a", "1000"]] {
            next(&mut out, &columns, &mut widths, &row.map(str::to_owned)).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME   N\ncache  5\nlonger-name  7\na            1000\n");
    }
}
