//! `list`: all containers.

use std::io::Write;

use berth_types::{Kind, Result, ResultExt};
use clap::ValueEnum;

use crate::record::Records;
use crate::state::{self, Report};

/// Lists containers.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// In which form
    #[arg(short, long, default_value = "table")]
    format: Format,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
}

/// The form of a list.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

impl List {
    /// # Errors
    /// When the root directory can't be read.
    pub(crate) fn run(self, records: &Records) -> Result<()> {
        let all = records.all()?;
        if self.quiet {
            return all.iter().try_for_each(|found| line(&found.record.id));
        }
        let mut reports = Vec::with_capacity(all.len());
        for found in &all {
            match Report::new(found) {
                // It was deleted meanwhile.
                Err(error) if error.kind() == Kind::NotFound => {}
                report => reports.push(report?),
            }
        }
        match self.format {
            Format::Json => state::print(&reports),
            Format::Table => table(&reports),
        }
    }
}

fn table(reports: &[Report<'_>]) -> Result<()> {
    let title = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let mut rows = vec![title];
    for report in reports {
        rows.push([
            report.id.to_owned(),
            report.pid.to_string(),
            report.status.to_owned(),
            report.bundle.display().to_string(),
            report.created.to_owned(),
            report.owner.to_owned(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(cells.collect::<Vec<_>>().join("   ").trim_end())?;
    }
    Ok(())
}

fn line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context(|| "print the list")
}
