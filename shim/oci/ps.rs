//! `ps`: the processes of a container.

use std::io::Write;
use std::process::Command;

use berth_types::{Error, Result, ResultExt};

use crate::list::Format;
use crate::record::Records;
use crate::state;

/// Lists processes.
#[derive(Debug, clap::Args)]
pub(crate) struct Ps {
    /// In which form
    #[arg(short, long, default_value = "table")]
    format: Format,
    /// The container's id
    id: String,
    /// What `ps` is asked for in a table
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = "-ef")]
    options: Vec<String>,
}

impl Ps {
    /// # Errors
    /// NotFound without such a container; when `ps` fails.
    pub(crate) fn run(self, records: &Records) -> Result<()> {
        let pids = records.find(&self.id)?.remains()?.cgroup().pids()?;
        match self.format {
            Format::Json => state::print(&pids),
            Format::Table => self.table(&pids),
        }
    }

    /// The lines of `ps` that are about `pids`, and its title.
    fn table(&self, pids: &[i32]) -> Result<()> {
        let output = Command::new("ps").args(&self.options).output().context(|| "run ps")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::invalid_argument(format!("ps: {}", text.trim_end())));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let title = lines.next().unwrap_or_default();
        let column = title.split_whitespace().position(|word| word == "PID").ok_or_else(|| {
            Error::invalid_argument("the options of ps leave out its column PID: add it")
        })?;
        let ours = |line: &&str| {
            let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
            pid.is_some_and(|pid: i32| pids.contains(&pid))
        };
        let mut out = std::io::stdout();
        let mut shown = std::iter::once(title).chain(lines.filter(ours));
        shown.try_for_each(|line| writeln!(out, "{line}")).context(|| "print the list")
    }
}
