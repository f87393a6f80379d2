//! Attach: a stream of its own connection that gets a copy of a process's output and may write to
//! its input.

use berth_proto::berth::shim::v1::{AttachRequest, AttachResponse};
use berth_ttrpc::{Receiver, Request, Stream};
use berth_types::{Error, Result};

use super::process::Process;
use super::shim::Shim;
use super::stdio::Input;

/// Serves one client until all output has ended or the client is gone.
///
/// # Errors
/// InvalidArgument when the first message names no process, NotFound for one that isn't there,
/// ResourceExhausted when the client was cut off for reading too slowly.
pub(crate) async fn attach(shim: &Shim, request: &Request, stream: Stream) -> Result<()> {
    let Stream { sender, mut receiver } = stream;
    let Some(first) = receiver.next::<AttachRequest>().await? else {
        return Err(Error::invalid_argument("the first message must name a process"));
    };
    let process = shim.task(&first.id)?.process(&first.exec_id)?;
    let mut output = process.streams.attach(first.lossless);
    sender.send(&AttachResponse::default()).await?;
    let forward = async {
        while let Some(piece) = output.next().await? {
            sender.send(&piece).await?;
        }
        Ok(())
    };
    tokio::select! {
        outcome = forward => outcome,
        () = feed(&process, first, receiver, request) => Ok(()),
    }
}

/// Hands a client's input on; returns when the client is gone. A client that closes its half of
/// the stream without a word had no input to give, and stays for the output.
async fn feed(process: &Process, first: AttachRequest, mut receiver: Receiver, request: &Request) {
    let typing = Typing(&process.streams.input);
    let mut message = first;
    loop {
        if !message.stdin.is_empty() {
            // A process that reads no more doesn't want the client to leave.
            tokio::select! {
                biased;
                _ = typing.0.write(message.stdin) => {}
                () = request.abandoned() => return,
            }
        }
        if message.close_stdin {
            typing.0.client_left();
        }
        match receiver.next().await {
            Ok(Some(next)) => message = next,
            Ok(None) => {
                // It stays, and has not left.
                std::mem::forget(typing);
                return request.abandoned().await;
            }
            Err(_) => return,
        }
    }
}

/// A client that may still give input. When this is dropped it has left, also one whose leaving
/// was noticed by what it no longer read, while its last input waited for the process.
struct Typing<'a>(&'a Input);

impl Drop for Typing<'_> {
    fn drop(&mut self) {
        self.0.client_left();
    }
}
