//! `berth top`

use std::collections::HashSet;
use std::process::Command;

use berth_proto::berth::v1::TopRequest;
use clap::Args;

use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::human::printable;
use crate::output::say;
use crate::parse::Words;

/// Display the running processes of a container
#[derive(Args, Debug)]
#[command(override_usage = "berth top CONTAINER [PS OPTIONS]")]
pub(crate) struct Top {
    /// The container, by name or id, and the options of ps(1), which tells of the processes
    #[command(subcommand)]
    words: Words,
}

impl Top {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let (container, options) = self.words.split();
        let request = TopRequest { container };
        let pids = daemon.containers().await?.top(request).await?.into_inner().pids;
        let options = if options.is_empty() { vec!["-ef".to_owned()] } else { options };
        let list = list(&options, &pids)?;
        for line in of_processes(&list, &pids.into_iter().collect())? {
            say(printable(line));
        }
        Ok(0)
    }
}

/// What ps(1) tells of processes, and maybe of others: not all options go with `-q`.
fn list(options: &[String], pids: &[u32]) -> Outcome<String> {
    let all: Vec<_> = pids.iter().map(u32::to_string).collect();
    let picked = [options, &[format!("-q{}", all.join(","))]].concat();
    let mut said = String::new();
    for options in [&picked[..], options] {
        let listed = Command::new("ps").args(options).output().map_err(|error| {
            Failure::new(format!("ps can't be run: {error}: install the package procps"))
        })?;
        if listed.status.success() {
            return Ok(String::from_utf8_lossy(&listed.stdout).into_owned());
        }
        said = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
    }
    Err(Failure::new(format!("ps {}: {said}", options.join(" "))))
}

/// The heading of a list of processes and the lines of those with `pids`.
fn of_processes<'a>(list: &'a str, pids: &HashSet<u32>) -> Outcome<Vec<&'a str>> {
    let heading = list.lines().next().unwrap_or_default();
    let column = heading.split_whitespace().position(|title| title == "PID").ok_or_else(|| {
        Failure::new("ps does not list process ids: ask for the column pid, as in -o pid,cmd")
    })?;
    let pid = |line: &str| line.split_whitespace().nth(column)?.parse::<u32>().ok();
    let ours = |line: &&str| pid(line).is_some_and(|pid| pids.contains(&pid));
    Ok(std::iter::once(heading).chain(list.lines().skip(1).filter(ours)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_processes_are_picked_by_their_ids() {
        let list = "UID   PID  PPID CMD\nroot    1     0 init 7\nroot    7     1 sh 1\n";
        let picked = of_processes(list, &[7].into()).expect("lines");
        assert_eq!(picked, ["UID   PID  PPID CMD", "root    7     1 sh 1"]);
        assert!(of_processes("CMD\nsh\n", &[7].into()).is_err());
    }
}
