//! A blob as a stream that survives broken connections.

use berth_types::image::Descriptor;
use berth_types::{Error, Result, ResultExt};
use bytes::{Buf, Bytes};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use crate::body::Body;
use crate::endpoint::Task;
use crate::failure::Failure;
use crate::repository::Repository;
use crate::retry::Backoff;

/// The bytes of a blob, in order and each once. When a connection breaks it goes on where it
/// was, by `Range` where the registry knows that and by reading again where it doesn't.
pub struct Blob {
    repository: Repository,
    descriptor: Descriptor,
    /// Bytes handed out, or skipped at the caller's wish.
    offset: u64,
    /// Bytes of the current response that were handed out before.
    repeated: u64,
    body: Option<Body>,
    backoff: Backoff,
}

impl Blob {
    pub(crate) fn new(repository: Repository, descriptor: &Descriptor, offset: u64) -> Self {
        let backoff = Backoff::new(repository.patience());
        let descriptor = descriptor.clone();
        Self { repository, descriptor, offset, repeated: 0, body: None, backoff }
    }

    /// The next bytes; `None` once there were as many as the descriptor says. The caller checks
    /// the digest.
    ///
    /// # Errors
    /// As [`Repository::resolve`]; [`Kind::FailedPrecondition`](berth_types::Kind) when the
    /// registry has another number of bytes.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.offset < self.descriptor.size {
            match self.try_next().await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    let count = bytes.len() as u64;
                    self.offset += count;
                    self.backoff.progressed(count);
                    return Ok(Some(bytes));
                }
                Err(failure) => {
                    self.body = None;
                    let digest = &self.descriptor.digest;
                    self.backoff.pause(failure).await.context(|| format!("fetch {digest}"))?;
                }
            }
        }
        Ok(None)
    }

    /// The next bytes of the current response, or of a new one. They may be empty.
    async fn try_next(&mut self) -> Result<Bytes, Failure> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let body = self.open().await?;
                self.body.insert(body)
            }
        };
        let Some(mut bytes) = body.next().await? else {
            return Err(Failure::transient(Error::unavailable(format!(
                "the registry ended after {} of {} bytes",
                self.offset, self.descriptor.size
            ))));
        };
        let repeated = self.repeated.min(bytes.len() as u64);
        self.repeated -= repeated;
        bytes.advance(repeated as usize);
        if bytes.len() as u64 > self.descriptor.size - self.offset {
            return Err(self.wrong_size("more").into());
        }
        Ok(bytes)
    }

    /// Asks for what is missing, mirrors first.
    async fn open(&mut self) -> Result<Body, Failure> {
        let repository = self.repository.clone();
        let mut outcome = Err(Failure::from(repository.nobody()));
        for site in repository.sites(Task::Pull).await? {
            outcome = self.open_at(site).await;
            match &outcome {
                Ok(_) => break,
                Err(failure) => site.passed_over(&failure.error),
            }
        }
        outcome
    }

    async fn open_at(&mut self, site: &Repository) -> Result<Body, Failure> {
        let digest = &self.descriptor.digest;
        let url = site.url(&format!("blobs/{digest}")).await?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.offset))
                .map_err(|e| Error::internal(format!("range header: {e}")))?;
            headers.insert(RANGE, range);
        }
        // `next` says what is fetched, whatever fails.
        let response = site.try_send("", &Method::GET, &url, &headers).await?;
        let start = self.start_of(&response)?;
        if let Some(length) = response.content_length()
            && start + length != self.descriptor.size
        {
            return Err(self.wrong_size(&(start + length).to_string()).into());
        }
        self.repeated = self.offset - start;
        Ok(Body::new(response, self.repository.patience()))
    }

    /// At which byte of the blob a response begins: at most at the one that is asked for.
    fn start_of(&self, response: &Response) -> Result<u64> {
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(0);
        }
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let start = range
            .and_then(|range| range.strip_prefix("bytes "))
            .and_then(|range| range.split('-').next())
            .and_then(|start| start.trim().parse().ok());
        match start {
            Some(start) if start <= self.offset => Ok(start),
            _ => Err(Error::unavailable(format!(
                "registry {} answered a request for bytes from {} on with range {range:?}",
                self.repository.domain(),
                self.offset
            ))),
        }
    }

    fn wrong_size(&self, count: &str) -> Error {
        Error::failed_precondition(format!(
            "registry {} has {count} bytes of {}, the manifest says {}",
            self.repository.domain(),
            self.descriptor.digest,
            self.descriptor.size
        ))
    }
}
