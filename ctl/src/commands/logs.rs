//! `berth logs`

use std::io::{self, Write};

use berth_proto::berth::v1::{LogEntry, LogsRequest};
use clap::Args;
use prost_types::Timestamp;

use crate::client::Daemon;
use crate::failure::Outcome;
use crate::human;

/// Fetch the logs of a container
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Number of lines to show from the end, or "all"
    #[arg(short = 'n', long, default_value = "all", value_parser = parse_tail)]
    tail: Tail,
    /// Show lines from this time on: a date, RFC 3339, seconds, or a span such as 10m
    #[arg(long, value_parser = human::parse_time)]
    since: Option<Timestamp>,
    /// Show lines before this time
    #[arg(long, value_parser = human::parse_time)]
    until: Option<Timestamp>,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// The container, by name or id
    container: String,
}

/// A number of lines, or all of them.
type Tail = Option<u64>;

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "give a number of lines, or all".to_owned()),
    }
}

impl Logs {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let request = LogsRequest {
            container: self.container,
            follow: self.follow,
            tail: self.tail,
            since: self.since,
            until: self.until,
        };
        let mut entries = daemon.containers().await?.logs(request).await?.into_inner();
        while let Some(entry) = entries.message().await? {
            if write(&entry, self.timestamps).is_err() {
                // The reader has gone, as after `| head`.
                break;
            }
        }
        Ok(0)
    }
}

fn write(entry: &LogEntry, timestamps: bool) -> io::Result<()> {
    let mut line = Vec::with_capacity(entry.line.len() + 40);
    if timestamps {
        line.extend_from_slice(human::rfc3339(entry.at).as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(&entry.line);
    if entry.stderr {
        io::stderr().lock().write_all(&line)
    } else {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line).and_then(|()| stdout.flush())
    }
}
