//! `events`: figures of a container, and when it runs out of memory.

use std::io::Write;
use std::time::Duration;

use berth_sys::cgroup::Cgroup;
use berth_types::{Error, Result, ResultExt};
use serde_json::{Value, json};
use tokio::net::unix::pipe;
use tokio::time::MissedTickBehavior;

use crate::figures;
use crate::life;
use crate::record::Records;

/// The pauses between looks for the kill that an alarm announces, in milliseconds.
const LOOKS: [u64; 7] = [1, 5, 20, 50, 100, 300, 600];

/// Prints events, a line of JSON each.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// How often figures are printed: a number of seconds, as `5s`
    #[arg(long, default_value = "5s")]
    interval: String,
    /// Print figures once and nothing else
    #[arg(long)]
    stats: bool,
    /// The container's id
    id: String,
}

impl Events {
    /// Ends with the container.
    ///
    /// # Errors
    /// NotFound without such a container, FailedPrecondition when it has ended.
    pub(crate) async fn run(self, records: &Records) -> Result<()> {
        let found = records.find(&self.id)?;
        let ended = || Error::failed_precondition("container not running");
        let pidfd = &found.life().ok_or_else(ended)?.pidfd;
        let remains = found.remains()?;
        let cgroup = remains.cgroup();
        if self.stats {
            return self.print("stats", Some(figures::document(&cgroup.stats()?)));
        }
        let alarm = pipe::Receiver::from_owned_fd_unchecked(cgroup.watch_oom()?.into())
            .context(|| "watch for want of memory")?;
        let end = life::ended(pidfd);
        tokio::pin!(end);
        let mut ticks = tokio::time::interval(self.interval()?);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kills = cgroup.oom_kills()?;
        loop {
            tokio::select! {
                ended = &mut end => {
                    ended?;
                    return self.report_kills(cgroup, &mut kills);
                }
                _ = alarm.readable() => {
                    // What there is to read is of no interest in itself.
                    drop(alarm.try_read(&mut [0; 4096]));
                    self.look_for_kills(cgroup, &mut kills).await?;
                }
                _ = ticks.tick() => {
                    self.print("stats", Some(figures::document(&cgroup.stats()?)))?;
                }
            }
            self.report_kills(cgroup, &mut kills)?;
        }
    }

    /// v1 gives the alarm when memory runs out, a moment before it kills; a control group that is
    /// removed gives one too, when it is not there any more.
    async fn look_for_kills(&self, cgroup: &Cgroup, told: &mut u64) -> Result<()> {
        let before = *told;
        let is_there = || !cgroup.directories().is_empty();
        if !is_there() {
            return Ok(());
        }
        for pause in LOOKS {
            self.report_kills(cgroup, told)?;
            if *told > before {
                return Ok(());
            }
            if !is_there() {
                // Somebody was faster at deleting what was killed, if that is not an old story.
                return if before == 0 { self.print("oom", None) } else { Ok(()) };
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    /// Tells of kills since the last time.
    fn report_kills(&self, cgroup: &Cgroup, told: &mut u64) -> Result<()> {
        let kills = cgroup.oom_kills()?;
        for _ in *told..kills {
            self.print("oom", None)?;
        }
        *told = kills.max(*told);
        Ok(())
    }

    fn interval(&self) -> Result<Duration> {
        let seconds = self.interval.strip_suffix('s').unwrap_or(&self.interval).parse();
        match seconds {
            Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
            _ => Err(Error::invalid_argument(format!(
                "--interval {:?}: give a number of seconds",
                self.interval
            ))),
        }
    }

    fn print(&self, kind: &str, data: Option<Value>) -> Result<()> {
        let mut event = json!({ "type": kind, "id": self.id });
        if let Some(data) = data {
            event["data"] = data;
        }
        writeln!(std::io::stdout(), "{event}").context(|| "print an event")
    }
}
