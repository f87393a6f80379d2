//! An attached session: the user's terminal on one side, a process in a container on the other.

use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::thread;

use berth_proto::berth::v1::stream_request::Message as Request;
use berth_proto::berth::v1::stream_response::Message as Response;
use berth_proto::berth::v1::{Output, StreamRequest, StreamResponse};
use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::detach::{DetachFilter, DetachKeys};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::terminal::{self, RawMode};

/// Requests on their way that the daemon has not taken yet.
const QUEUE: usize = 8;

/// One read of standard input, in bytes.
const CHUNK: usize = 32 << 10;

/// The exit status when nobody reads the output any more, as a shell gives it for SIGPIPE. The
/// process in the container goes on, as it does when the command is killed.
const UNREAD: i32 = 128 + 13;

/// So many signals in a row that ask the process to end, without a word from it, end the session.
const PATIENCE: u32 = 3;

/// The exit status when they did, as a shell gives it for SIGINT.
pub(crate) const INTERRUPTED: i32 = 128 + 2;

/// Signals passed on to the process. Those that the terminal's keys would send arrive as bytes
/// instead when it is in raw mode.
const FORWARDED: [SignalKind; 6] = [
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

/// Those of them that ask the process to end.
const ASK_TO_END: [SignalKind; 2] = [SignalKind::interrupt(), SignalKind::terminate()];

/// What is connected.
#[derive(Debug)]
pub(crate) struct Session {
    /// Standard input goes to the process.
    pub(crate) stdin: bool,
    /// The process has a terminal.
    pub(crate) tty: bool,
    /// Signals sent to this command go to the process.
    pub(crate) forward_signals: bool,
    /// Keys that end the session and leave the process running.
    pub(crate) detach_keys: DetachKeys,
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process ended with this status.
    Exited(i32),
    /// The user typed the detach keys.
    Detached,
    /// The process was started, and nothing more was asked for.
    Started,
    /// The process was asked to end several times and does not answer.
    Unanswered,
}

impl Session {
    /// Refuses a terminal for a process whose input would not come from one.
    pub(crate) fn check_terminal(&self) -> Outcome<()> {
        if self.tty && self.stdin && !terminal::stdin_is_terminal() {
            return Err(Failure::new("the input device is not a TTY: leave out -t, or type it"));
        }
        Ok(())
    }

    /// Makes `call` with `first` as its first request and carries streams, signals and window
    /// sizes until the process ends or the user detaches.
    pub(crate) async fn drive<F>(
        &self,
        first: Request,
        call: impl FnOnce(ReceiverStream<StreamRequest>) -> F,
    ) -> Outcome<End>
    where
        F: Future<Output = Result<tonic::Response<Streaming<StreamResponse>>, Status>>,
    {
        let (requests, queue) = mpsc::channel(QUEUE);
        // The queue is empty and open, so this can't fail.
        let _ = requests.send(StreamRequest { message: Some(first) }).await;
        let mut responses = call(ReceiverStream::new(queue)).await?.into_inner();

        let (detach, detached) = oneshot::channel();
        let mut detached = pin!(until_sent(detached));
        let (asked, mut asks) = mpsc::unbounded_channel();
        let mut unanswered = 0;
        let mut before_start = Some((requests, detach, asked));
        let mut raw_mode = None;
        let mut progress = Progress::on_stderr();
        let mut started = false;
        loop {
            let response = tokio::select! {
                response = responses.message() => response?,
                () = &mut detached => return Ok(End::Detached),
                Some(()) = asks.recv() => {
                    unanswered += 1;
                    match unanswered {
                        PATIENCE => return Ok(End::Unanswered),
                        _ => continue,
                    }
                }
            };
            match response.and_then(|response| response.message) {
                Some(Response::Pull(pulled)) => progress.update(&pulled),
                Some(Response::Started(_)) => {
                    started = true;
                    if let Some((requests, detach, asked)) = before_start.take() {
                        raw_mode = self.connect(requests, detach, asked)?;
                    }
                }
                Some(Response::Output(output)) => match write(&output) {
                    Ok(()) => unanswered = 0,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        return Ok(End::Exited(UNREAD));
                    }
                    Err(error) => {
                        let message = format!("write the container's output: {error}");
                        return Err(Failure::new(message));
                    }
                },
                Some(Response::Exited(exited)) => {
                    drop(raw_mode);
                    return Ok(End::Exited(exited.code as i32));
                }
                None if started => return Ok(End::Started),
                None => return Err(Failure::new("the daemon ended the call without an answer")),
            }
        }
    }

    /// Connects the user's side once the process runs.
    fn connect(
        &self,
        requests: mpsc::Sender<StreamRequest>,
        detach: oneshot::Sender<()>,
        asked: mpsc::UnboundedSender<()>,
    ) -> Outcome<Option<RawMode>> {
        let failed = |error: io::Error| Failure::new(format!("set up the terminal: {error}"));
        if self.forward_signals {
            for kind in FORWARDED {
                let asked = ASK_TO_END.contains(&kind).then(|| asked.clone());
                let request = move || {
                    // The session may just end for another reason.
                    let _ = asked.as_ref().map(|asked| asked.send(()));
                    Some(Request::Signal(kind.as_raw_value() as u32))
                };
                forward(kind, requests.clone(), request).map_err(failed)?;
            }
        }
        if self.tty {
            let resize = || terminal::window_size().map(Request::Resize);
            forward(SignalKind::window_change(), requests.clone(), resize).map_err(failed)?;
        }
        let raw = self.tty && self.stdin && terminal::stdin_is_terminal();
        let raw_mode = if raw { Some(RawMode::enter().map_err(failed)?) } else { None };
        if self.stdin {
            let filter = raw.then(|| DetachFilter::new(self.detach_keys.clone()));
            thread::spawn(move || copy_stdin(&requests, filter, detach));
        }
        Ok(raw_mode)
    }
}

/// Waits until `()` is sent, for ever when that can't happen any more.
async fn until_sent(receiver: oneshot::Receiver<()>) {
    if receiver.await.is_err() {
        std::future::pending().await
    }
}

/// Sends what `request` makes of each signal of `kind`.
fn forward(
    kind: SignalKind,
    requests: mpsc::Sender<StreamRequest>,
    request: impl Fn() -> Option<Request> + Send + 'static,
) -> io::Result<()> {
    let mut signals = signal(kind)?;
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            let message = request();
            if message.is_some() && requests.send(StreamRequest { message }).await.is_err() {
                break;
            }
        }
    });
    Ok(())
}

/// Copies standard input to the process until it ends, the session ends or the user detaches. On
/// a thread of its own, because terminals and files can only be read by blocking.
fn copy_stdin(
    requests: &mpsc::Sender<StreamRequest>,
    mut filter: Option<DetachFilter>,
    detach: oneshot::Sender<()>,
) {
    let mut chunk = vec![0; CHUNK];
    let mut stdin = io::stdin().lock();
    loop {
        let length = match stdin.read(&mut chunk) {
            Ok(length) if length > 0 => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The end, or a terminal that is gone: the process reads the end too.
            _ => {
                let message = Some(Request::CloseStdin(true));
                let _ = requests.blocking_send(StreamRequest { message });
                return;
            }
        };
        let (data, leave) = match &mut filter {
            None => (Bytes::copy_from_slice(&chunk[..length]), false),
            Some(filter) => {
                let filtered = filter.feed(&chunk[..length]);
                (Bytes::from(filtered.pass), filtered.detach)
            }
        };
        let message = Some(Request::Stdin(data));
        if requests.blocking_send(StreamRequest { message }).is_err() {
            return;
        }
        if leave {
            let _ = detach.send(());
            return;
        }
    }
}

/// Writes what the process wrote.
fn write(output: &Output) -> io::Result<()> {
    if output.stderr {
        io::stderr().lock().write_all(&output.data)
    } else {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&output.data).and_then(|()| stdout.flush())
    }
}
