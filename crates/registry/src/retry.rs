//! Trying again: a bounded number of times, with growing pauses.

use std::time::Duration;

use berth_types::{Error, Result};

use crate::config::Patience;
use crate::failure::{Failure, Retry};

/// Counts failures and pauses between tries.
pub(crate) struct Backoff {
    patience: Patience,
    failures: u32,
    /// Bytes since the last failure.
    progress: u64,
    under_way: bool,
}

impl Backoff {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, failures: 0, progress: 0, under_way: false }
    }

    /// Notes that `bytes` arrived: with enough of them the count starts anew.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        self.under_way = true;
        self.progress += bytes;
        if self.progress >= Patience::LEAST_PROGRESS {
            self.failures = 0;
        }
    }

    /// Pauses before the next try.
    ///
    /// # Errors
    /// The failure itself when trying again is useless, or was tried often enough, or the registry
    /// asks to wait for longer than anyone would.
    pub(crate) async fn pause(&mut self, failure: Failure) -> Result<()> {
        let asked_for = match failure.retry {
            Retry::Never => return Err(failure.error),
            Retry::UnderWay if !self.under_way => return Err(failure.error),
            Retry::UnderWay => None,
            Retry::After(pause) => pause,
        };
        self.progress = 0;
        self.failures += 1;
        if self.failures >= self.patience.attempts {
            return Err(failure.error.context(format!("given up after {} tries", self.failures)));
        }
        let pause = match asked_for {
            Some(pause) if pause > self.patience.longest_pause => {
                return Err(Error::new(
                    failure.error.kind(),
                    format!("{} (it asks to wait for {} s)", failure.error, pause.as_secs()),
                ));
            }
            Some(pause) => pause,
            None => self.next_pause(),
        };
        tracing::debug!(error = %failure.error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Doubles with each failure; a random half keeps many clients from coming back at once.
    fn next_pause(&self) -> Duration {
        let doubled = self.patience.first_pause * 2_u32.saturating_pow(self.failures - 1);
        let pause = doubled.min(self.patience.longest_pause);
        let random = getrandom::u32().unwrap_or(u32::MAX);
        pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}
