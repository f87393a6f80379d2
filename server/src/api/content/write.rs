//! Writing a blob: one stream is one session with an ingest.
//!
//! The first request names the ingest. Each request is answered with how far the ingest is:
//! `STAT` only asks, `WRITE` appends, `COMMIT` appends, makes a blob of it and ends the session. A
//! session that ends otherwise leaves the ingest to be resumed by its name.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use berth_metadata::{ContentWriter, Scope, WriterRequest};
use berth_proto::containerd::events::ContentCreate;
use berth_proto::containerd::services::content::v1::{
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use berth_types::{Digest, Error, Result};

use super::super::backend::Backend;
use super::super::status::status;
use super::number;

/// A session with one ingest.
struct Session {
    backend: Backend,
    scope: Scope,
    /// The size that the blob should have, or 0.
    total: u64,
    /// The digest that it should have, or nothing. What is no digest is one that nothing has.
    expected: String,
}

/// Serves one session; ends it when the client is gone.
pub(super) fn serve(
    backend: Backend,
    scope: Scope,
    requests: Streaming<WriteContentRequest>,
) -> impl Stream<Item = Result<WriteContentResponse, Status>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let session = Session { backend, scope, total: 0, expected: String::new() };
        if let Err(failure) = session.run(requests, &sender).await {
            // Nobody may listen any more.
            sender.send(Err(failure)).await.ok();
        }
    });
    ReceiverStream::new(receiver)
}

impl Session {
    /// Answers requests until the client ends, or its commit is answered.
    async fn run(
        mut self,
        mut requests: Streaming<WriteContentRequest>,
        responses: &mpsc::Sender<Result<WriteContentResponse, Status>>,
    ) -> Result<(), Status> {
        let Some(first) = requests.message().await? else { return Ok(()) };
        self.expect(&first);
        let mut writer = self.open(&first.r#ref).await.map_err(status)?;
        let reference = first.r#ref.clone();
        let mut request = first;
        let last = loop {
            let committing = request.action() == WriteAction::Commit;
            if request.action() != WriteAction::Stat {
                block_in_place(|| write(&mut writer, &request)).map_err(status)?;
            }
            let mut response = self.progress(&writer, request.action);
            if committing {
                response.digest = self.commit(writer, request.labels).await.map_err(status)?;
                responses.send(Ok(response.clone())).await.ok();
                break response;
            }
            if responses.send(Ok(response.clone())).await.is_err() {
                return Ok(());
            }
            let Some(next) = requests.message().await? else { break response };
            self.expect(&next);
            if self.is_there(&next.expected).await {
                // Another session has brought it.
                drop(writer);
                self.abort(reference).await.map_err(status)?;
                let error = format!("blob with expected digest {} exists", next.expected);
                return Err(status(Error::already_exists(error)));
            }
            request = next;
        };
        // containerd ends a session with its last answer once more.
        responses.send(Ok(last)).await.ok();
        Ok(())
    }

    /// Takes over what a request says of the blob to be; later words count.
    fn expect(&mut self, request: &WriteContentRequest) {
        if let Ok(total) = u64::try_from(request.total)
            && total > 0
        {
            self.total = total;
        }
        if !request.expected.is_empty() {
            self.expected.clone_from(&request.expected);
        }
    }

    /// Whether the namespace has the blob `expected`, which the lease then keeps.
    async fn is_there(&self, expected: &str) -> bool {
        match expected.parse() {
            Ok(digest) => self.scope.content().adopt(&digest).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn abort(&self, reference: String) -> Result<()> {
        let scope = self.scope.clone();
        let aborted = async move { scope.content().abort(&reference).await };
        self.backend.operations.run(aborted).await
    }

    /// Begins or resumes the ingest.
    async fn open(&self, reference: &str) -> Result<ContentWriter> {
        if reference.is_empty() {
            return Err(Error::invalid_argument("first message must have a reference"));
        }
        let (total, expected) = (self.total, self.expected.parse().ok());
        let request = WriterRequest { reference: reference.to_owned(), total, expected };
        let scope = self.scope.clone();
        let opened = async move { scope.content().writer(request).await };
        self.backend.operations.run(opened).await
    }

    /// Makes a blob of the ingest; returns its digest.
    async fn commit(
        &self,
        writer: ContentWriter,
        labels: HashMap<String, String>,
    ) -> Result<String> {
        let total = self.total;
        let expected = match self.expected.as_str() {
            "" => None,
            text => Some(text.parse::<Digest>().map_err(|error| {
                Error::failed_precondition(format!("unexpected commit digest: {error}"))
            })?),
        };
        let (backend, scope) = (self.backend.clone(), self.scope.clone());
        let committed = async move {
            let info = writer.commit(total, expected, labels).await?;
            let event = ContentCreate { digest: info.digest.clone(), size: info.size };
            backend.publish(scope.namespace(), "/content/create", &event);
            Ok(info.digest)
        };
        self.backend.operations.run(committed).await
    }

    /// How far the ingest is.
    fn progress(&self, writer: &ContentWriter, action: i32) -> WriteContentResponse {
        let progress = writer.status();
        WriteContentResponse {
            action,
            started_at: Some(progress.started.into()),
            updated_at: Some(progress.updated.into()),
            offset: number(progress.offset),
            total: number(self.total),
            digest: writer.digest().to_string(),
        }
    }
}

/// Appends a request's data. It must follow what is there; at offset 0 it replaces that instead,
/// and below 0 it says nothing of the place.
fn write(writer: &mut ContentWriter, request: &WriteContentRequest) -> Result<()> {
    let at = writer.status().offset;
    match request.offset {
        0 if at > 0 => writer.truncate(0)?,
        offset if offset > 0 && offset.unsigned_abs() != at => {
            return Err(Error::out_of_range(format!(
                "write @{offset} must occur at current offset {at}"
            )));
        }
        _ => {}
    }
    writer.write(&request.data)
}
