//! Logs: streams what a container wrote.

use std::sync::Arc;
use std::time::SystemTime;

use berth_logs::{Entry, Query, Reader, Stream};
use berth_proto::berth::v1::{LogEntry, LogsRequest};
use berth_types::{Error, Result};
use prost_types::Timestamp;
use tokio::sync::mpsc;

use super::Containers;
use super::launch::is_unlogged;
use crate::files::Files;
use crate::live::{Live, Run};

/// A log that a client reads.
pub struct Entries {
    reader: Reader,
    /// Where the end of the run is told, and that run, when there may be more.
    followed: Option<(Arc<Live>, Arc<Run>)>,
}

impl Containers {
    /// Opens a container's log.
    ///
    /// # Errors
    /// `NotFound`; `Unimplemented` for another client's container; `InvalidArgument` for a time
    /// that is none.
    pub fn logs(&self, request: LogsRequest) -> Result<Entries> {
        let id = self.find(&request.container)?.id;
        let live = self.engine.0.lives.enter(self.namespace(), &id);
        let run = live.run();
        let Some(row) = self.row(&id)? else {
            return Err(Error::unimplemented(format!(
                "container {id} was made by another client of the API, which has its output"
            )));
        };
        let log = row.options.as_ref().and_then(|options| options.log.as_ref());
        if log.is_some_and(is_unlogged) {
            return Err(Error::unimplemented(
                "configured logging driver does not support reading: none keeps nothing",
            ));
        }
        let follow = request.follow && row.is_running();
        let query = Query {
            tail: request.tail,
            since: request.since.map(time).transpose()?,
            until: request.until.map(time).transpose()?,
            follow,
        };
        let log = Files::of(&self.engine.parts().root, self.namespace(), &id).log();
        Ok(Entries { reader: Reader::open(&log, query)?, followed: follow.then_some((live, run)) })
    }
}

impl Entries {
    /// Sends the entries to a client until all are sent, or it is gone.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn copy(mut self, client: &mpsc::Sender<LogEntry>) -> Result<()> {
        loop {
            let entry = match &self.followed {
                None => self.reader.next().await?,
                Some((_, run)) => tokio::select! {
                    biased;
                    () = client.closed() => return Ok(()),
                    entry = self.reader.next() => entry?,
                    _ = run.ended() => {
                        // All that it wrote is in the log now.
                        self.reader.stop_following();
                        self.followed = None;
                        continue;
                    }
                },
            };
            let Some(entry) = entry else { return Ok(()) };
            if client.send(to_wire(entry)).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn to_wire(entry: Entry) -> LogEntry {
    LogEntry {
        stderr: entry.stream == Stream::Stderr,
        line: entry.log.into_bytes(),
        at: Some(entry.time.into()),
    }
}

fn time(at: Timestamp) -> Result<SystemTime> {
    at.try_into()
        .map_err(|_| Error::invalid_argument(format!("{at:?} is no time that this machine knows")))
}
