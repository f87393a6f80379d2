//! Reading a response's body from a peer that may be slow, on purpose or not.

use std::time::Duration;

use berth_types::Error;
use bytes::Bytes;
use reqwest::Response;
use tokio::time::{Instant, timeout};

use crate::client::domain_of;
use crate::config::Patience;
use crate::failure::Failure;

/// A body being read. Only time spent waiting for the peer counts, not time in which the reader
/// was busy elsewhere.
pub(crate) struct Body {
    response: Response,
    host: String,
    progress: Duration,
    waited: Duration,
    received: u64,
}

impl Body {
    pub(crate) fn new(response: Response, patience: Patience) -> Self {
        let host = domain_of(response.url());
        let progress = patience.progress;
        Self { response, host, progress, waited: Duration::ZERO, received: 0 }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let began = Instant::now();
        let left = self.progress.saturating_sub(self.waited);
        let chunk = timeout(left, self.response.chunk())
            .await
            .map_err(|_| self.stalled())?
            .map_err(|error| Failure::transport(&self.host, &error))?;
        self.waited += began.elapsed();
        self.received += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.received >= Patience::LEAST_PROGRESS {
            (self.waited, self.received) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }

    fn stalled(&self) -> Failure {
        Failure::transient(Error::unavailable(format!(
            "registry {} stalled: it sent {} bytes in {} s",
            self.host,
            self.received,
            self.progress.as_secs_f32()
        )))
    }

    /// The whole body, or `None` when it is longer than `limit` bytes.
    pub(crate) async fn collect(mut self, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        if self.response.content_length().is_some_and(|length| length > limit) {
            return Ok(None);
        }
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() as u64 + bytes.len() as u64 > limit {
                return Ok(None);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(Some(all))
    }

    /// Up to `limit` bytes, for messages; whatever fails ends it.
    pub(crate) async fn beginning(mut self, limit: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < limit
            && let Ok(Some(bytes)) = self.next().await
        {
            all.extend_from_slice(&bytes[..bytes.len().min(limit - all.len())]);
        }
        all
    }
}
