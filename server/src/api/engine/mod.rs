//! `berth.v1`: what Docker users expect. The work is in the crate `berth_engine`.

mod containers;
mod images;
mod system;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use berth_types::Result;

use super::status::status;

pub(super) use containers::Containers;
pub(super) use images::Images;
pub(super) use system::System;

/// Messages on their way to a client that has not taken them yet.
const QUEUE: usize = 8;

/// A stream of messages to a client.
type Messages<M> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<M, Status>> + Send>>;

/// Streams what `work` sends, each message as `wrap` makes it, and last its failure, if it fails.
/// The work goes on when the client is gone; it learns of that by the channel.
fn stream<I, M, F>(
    work: impl FnOnce(mpsc::Sender<I>) -> F,
    wrap: impl Fn(I) -> M + Send + 'static,
) -> Messages<M>
where
    I: Send + 'static,
    M: Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    let work = tokio::spawn(work(sender));
    let messages = ReceiverStream::new(receiver).map(move |item| Ok(wrap(item)));
    let end = async move {
        match work.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(status(error))),
            Err(error) => Some(Err(Status::internal(format!("the operation died: {error}")))),
        }
    };
    let end = futures_util::stream::once(end).filter_map(|last| last);
    Box::pin(messages.chain(end))
}
