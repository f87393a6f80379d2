//! A client on one side, a process of a container on the other.

use std::sync::Arc;

use berth_proto::berth::shim::v1::{AttachRequest, AttachResponse};
use berth_proto::berth::v1::stream_request::Message as Request;
use berth_proto::berth::v1::stream_response::Message as Response;
use berth_proto::berth::v1::{Output, Started};
use berth_tasks::{Attachment, Task};
use berth_ttrpc::{Receiver, Sender};
use berth_types::{Kind, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::live::Attendance;

/// What a client sends after its first request. It ends when the client sends no more.
pub type Requests = BoxStream<'static, Request>;

/// What a client is told. It is closed when the client is gone.
pub type Responses = mpsc::Sender<Response>;

/// A process of a container. The exec id of its init is empty.
pub(super) struct Process {
    pub(super) task: Arc<Task>,
    pub(super) exec_id: String,
    pub(super) pid: u32,
}

/// A process that was started or is attached to. Dropping it detaches.
pub struct Attached {
    process: Process,
    /// The streams, and whether the client may write to the process.
    attachment: Option<(Attachment, bool)>,
    /// The first is of the process itself. The others keep the container until this client is
    /// done.
    attendances: Vec<Attendance>,
}

/// How the forwarding of output ended.
enum Forwarded {
    All,
    ClientLeft,
}

impl Attached {
    pub(super) fn new(
        process: Process,
        attachment: Option<(Attachment, bool)>,
        attendances: Vec<Attendance>,
    ) -> Self {
        Self { process, attachment, attendances }
    }

    /// Sets the size of the process's terminal: columns and rows.
    pub(super) async fn set_size(&self, (width, height): (u16, u16)) {
        let Process { task, exec_id, .. } = &self.process;
        if let Err(error) = task.resize_pty(exec_id, width.into(), height.into()).await {
            // It may just have ended.
            tracing::debug!(id = task.id(), %error, "a terminal keeps its size");
        }
    }

    /// Tells the client that the process is started, carries the streams of both until the
    /// process ends or the client leaves, and tells how it ended. Without streams that is all:
    /// the process was to be started.
    ///
    /// # Errors
    /// `ResourceExhausted` when the client read so slowly that it was cut off.
    pub async fn carry(self, requests: Requests, responses: Responses) -> Result<()> {
        let Self { process, attachment, attendances } = self;
        let id = process.task.id().to_owned();
        let started = Response::Started(Started { id, pid: process.pid });
        let (Ok(()), Some((attachment, stdin))) = (responses.send(started).await, attachment)
        else {
            return Ok(());
        };
        let Attachment { sender, mut receiver, .. } = attachment;
        let sender = match stdin {
            true => Some(sender),
            false => {
                // The process must not take this client's leaving for the end of its input.
                drop(sender.close().await);
                None
            }
        };
        let forwarded = tokio::select! {
            forwarded = forward(&mut receiver, &responses) => forwarded?,
            () = process.obey(requests, sender) => Forwarded::ClientLeft,
        };
        if let (Forwarded::All, [own, ..]) = (forwarded, &attendances[..]) {
            tokio::select! {
                exited = own.run().ended() => drop(responses.send(Response::Exited(exited)).await),
                () = responses.closed() => {}
            }
        }
        Ok(())
    }
}

impl Process {
    /// Does what the client asks of the process, for ever.
    async fn obey(&self, mut requests: Requests, input: Option<Sender>) {
        while let Some(request) = requests.next().await {
            let done = match request {
                Request::Stdin(stdin) => {
                    write(input.as_ref(), AttachRequest { stdin, ..Default::default() }).await
                }
                Request::CloseStdin(close_stdin) => {
                    write(input.as_ref(), AttachRequest { close_stdin, ..Default::default() }).await
                }
                Request::Resize(size) => {
                    self.task.resize_pty(&self.exec_id, size.width, size.height).await
                }
                Request::Signal(signal) => self.task.kill(&self.exec_id, signal, false).await,
                Request::Run(_) | Request::Exec(_) | Request::Attach(_) => Ok(()),
            };
            // The process may just have ended, or read no more.
            if let Err(error) = done {
                tracing::debug!(id = self.task.id(), %error, "a client's request had no effect");
            }
        }
        // Whoever sends no more still reads, and its input stays open.
        let _input = input;
        std::future::pending().await
    }
}

async fn write(input: Option<&Sender>, request: AttachRequest) -> Result<()> {
    match input {
        Some(input) => input.send(&request).await,
        None => Ok(()),
    }
}

/// Hands the process's output on until all of it is told or the client is gone.
async fn forward(receiver: &mut Receiver, client: &Responses) -> Result<Forwarded> {
    loop {
        let piece = tokio::select! {
            piece = receiver.next::<AttachResponse>() => piece,
            () = client.closed() => return Ok(Forwarded::ClientLeft),
        };
        let AttachResponse { stdout, stderr } = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Forwarded::All),
            // The shim has died; how the process ended is told all the same.
            Err(error) if error.kind() == Kind::Unavailable => return Ok(Forwarded::All),
            Err(error) => return Err(error),
        };
        for (stderr, data) in [(false, stdout), (true, stderr)] {
            if !tell(client, stderr, data).await {
                return Ok(Forwarded::ClientLeft);
            }
        }
    }
}

/// Whether the client took it.
async fn tell(client: &Responses, stderr: bool, data: Bytes) -> bool {
    data.is_empty() || client.send(Response::Output(Output { stderr, data })).await.is_ok()
}
