//! Lists as Docker prints them: a table for people, one JSON object a line for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::human::printable;

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns with a heading
    #[default]
    Table,
    /// One JSON object a line
    Json,
}

/// Prints rows under a heading, columns aligned and three spaces apart.
pub(crate) fn print(heading: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    let printable = |row: &Vec<String>| row.iter().map(|cell| printable(cell)).collect();
    let rows: Vec<Vec<_>> = rows.iter().map(printable).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    line(&mut text, heading.iter().copied(), &widths);
    for row in &rows {
        line(&mut text, row.iter().map(String::as_str), &widths);
    }
    write(&text);
}

/// Prints each value as one line of JSON.
pub(crate) fn print_json(values: impl IntoIterator<Item = Value>) {
    let text: String = values.into_iter().map(|value| format!("{value}\n")).collect();
    write(&text);
}

/// Appends one row. The last column is not padded.
fn line<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    for (index, cell) in cells.enumerate() {
        text.push_str(cell);
        if index + 1 < widths.len() {
            let padding = widths[index] + 3 - cell.chars().count();
            text.extend(std::iter::repeat_n(' ', padding));
        }
    }
    text.push('\n');
}

/// Writes to standard output. A reader that has gone, such as `head`, is no failure.
fn write(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
