//! Lists as Docker prints them: a table for people, one JSON object a line for programs, or what a
//! template makes of each object.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::str::FromStr;

use serde_json::Value;

use crate::failure::Outcome;
use crate::human::printable;
use crate::template;

/// How a list is printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns with a heading.
    #[default]
    Table,
    /// One JSON object a line.
    Json,
    /// A line for each object.
    Template(String),
    /// Columns with a heading, as a template has them between tabs.
    Columns(String),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // In a shell it is hard to type them.
        let unescaped = |text: &str| text.replace("\\t", "\t").replace("\\n", "\n");
        let (format, text): (fn(String) -> Self, _) = match text.trim() {
            "" | "table" => return Ok(Self::Table),
            "json" => return Ok(Self::Json),
            other => match other.strip_prefix("table ") {
                Some(columns) => (Self::Columns, unescaped(columns.trim())),
                None => (Self::Template, unescaped(text)),
            },
        };
        template::check(&text)?;
        Ok(format(text))
    }
}

/// What objects of a list have.
pub(crate) struct Fields {
    /// The fields of the usual table, in their order.
    pub(crate) usual: &'static [&'static str],
    /// What fields are called in a heading; a field that is not here has its own name there.
    pub(crate) titles: &'static [(&'static str, &'static str)],
}

impl Fields {
    fn title<'a>(&self, field: &'a str) -> &'a str {
        self.titles.iter().find(|(name, _)| *name == field).map_or(field, |(_, title)| title)
    }

    /// An object whose fields are their titles.
    fn heading(&self, objects: &[Value]) -> Value {
        let names = objects.iter().filter_map(Value::as_object).flat_map(|object| object.keys());
        let names = names.map(String::as_str).chain(self.titles.iter().map(|(name, _)| *name));
        let titles = names.map(|name| (name.to_owned(), Value::from(self.title(name))));
        Value::Object(titles.collect())
    }

    /// Prints a list of objects.
    pub(crate) fn print(&self, format: &Format, objects: &[Value]) -> Outcome<()> {
        match format {
            Format::Table => {
                let cell = |object: &Value, field: &str| match &object[field] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let row = |object| self.usual.iter().map(|field| cell(object, field)).collect();
                let heading: Vec<_> = self.usual.iter().map(|field| self.title(field)).collect();
                print(&heading, &objects.iter().map(row).collect::<Vec<_>>());
            }
            Format::Json => print_json(objects.iter().cloned()),
            Format::Template(text) => print_each(text, objects)?,
            Format::Columns(text) => {
                let cells = |object: &Value| -> Outcome<Vec<String>> {
                    Ok(template::render(text, object)?.split('\t').map(str::to_owned).collect())
                };
                let heading = cells(&self.heading(objects))?;
                let heading: Vec<_> = heading.iter().map(String::as_str).collect();
                print(&heading, &objects.iter().map(cells).collect::<Outcome<Vec<_>>>()?);
            }
        }
        Ok(())
    }
}

/// Prints what a template makes of each object, one a line.
pub(crate) fn print_each(template: &str, objects: &[Value]) -> Outcome<()> {
    let mut lines = String::new();
    for object in objects {
        lines += &template::render(template, object)?;
        lines.push('\n');
    }
    write(&lines);
    Ok(())
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
    let mut text = String::new();
    for value in values {
        let _ = writeln!(text, "{value}");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let cases = [
            ("table", Format::Table),
            ("json", Format::Json),
            (r"{{.ID}}\t{{.Names}}", Format::Template("{{.ID}}\t{{.Names}}".into())),
            (r"table {{.ID}}\t{{.Names}}", Format::Columns("{{.ID}}\t{{.Names}}".into())),
        ];
        for (text, format) in cases {
            assert_eq!(text.parse(), Ok(format), "{text}");
        }
        assert!("{{.ID".parse::<Format>().is_err());
    }

    #[test]
    fn a_heading_has_titles() {
        let fields = Fields { usual: &["ID"], titles: &[("ID", "CONTAINER ID")] };
        let heading = fields.heading(&[serde_json::json!({ "ID": "x", "State": "running" })]);
        let made = template::render("{{.ID}}\t{{.State}}", &heading).expect("a heading");
        assert_eq!(made, "CONTAINER ID\tState");
    }
}
