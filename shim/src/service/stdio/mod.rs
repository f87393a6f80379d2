//! The streams of a process.
//!
//! ```text
//! client's FIFO ──copy──┐                                    ┌──> FIFO, file, log or logging
//!                       │                                    │    program (sink)
//! attached client ──────┴─> input ──> process ──> output ────┤
//!                             stdin or terminal              └──> attached clients (hub)
//! ```
//!
//! The container gets pipes or a terminal, never what a client or the daemon has open. An output
//! that isn't wanted by anyone is `/dev/null` itself. The process's end is not waited for longer
//! than its output takes, and not at all for children that hold its pipes.

mod hub;
mod input;
mod logger;
mod names;
mod output;
mod pipes;
mod sink;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_logs::Stream;
use berth_types::{Error, Result, ResultExt};
use rustix::termios::Winsize;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::container::{Io, Stdio};
use hub::Hub;
use logger::Logger;
use names::{Source, Target};
use output::Output;
use pipes::{make_pipe, null, unblock};
use sink::{Log, Sink};

pub(crate) use hub::Attached;
pub(crate) use input::Input;
pub(crate) use logger::Writer;
pub(crate) use names::Names;
pub(crate) use pipes::Owner;

/// How long an exit may wait for the log to have all that the process wrote.
const SETTLE: Duration = Duration::from_millis(500);
/// How long Delete may wait for a client to read what the process wrote, and for the log.
const DRAIN: Duration = Duration::from_secs(2);
/// How often the log is looked at meanwhile.
const GLANCE: Duration = Duration::from_millis(20);

/// The streams of one process, before, while and after it runs.
pub(crate) struct Streams {
    terminal: bool,
    stdin: Source,
    outputs: [(Stream, Target); 2],
    /// The way into the process.
    pub(crate) input: Arc<Input>,
    hub: Arc<Hub>,
    ended: watch::Sender<bool>,
    master: Mutex<Option<OwnedFd>>,
    logs: Mutex<Vec<Arc<Mutex<Log>>>>,
    logger: Mutex<Option<Logger>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// Our ends of a process's streams, until it is there.
pub(crate) struct Ends {
    stdin: Option<OwnedFd>,
    fifo: Option<pipe::Receiver>,
    outputs: Vec<(Stream, Option<OwnedFd>, Sink)>,
}

impl Streams {
    /// The streams that `names` stand for; nothing is opened yet.
    ///
    /// # Errors
    /// InvalidArgument for a name of no known form.
    pub(crate) fn new(names: &Names) -> Result<Self> {
        let stdin = Source::parse(&names.stdin)?;
        let stdout = Target::parse(&names.stdout)?;
        // A terminal has one stream.
        let stderr = if names.terminal { Target::Null } else { Target::parse(&names.stderr)? };
        Ok(Self {
            terminal: names.terminal,
            input: Arc::new(Input::new(&stdin)),
            stdin,
            outputs: [(Stream::Stdout, stdout), (Stream::Stderr, stderr)],
            hub: Arc::new(Hub::new()),
            ended: watch::Sender::new(false),
            master: Mutex::default(),
            logs: Mutex::default(),
            logger: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// Opens everything: what the process gets, and what remains here.
    ///
    /// # Errors
    /// NotFound when a client's FIFO isn't there, or a logging program; those of that.
    pub(crate) async fn open(&self, owner: Owner, writer: Writer<'_>) -> Result<(Io, Ends)> {
        let mut ends = Ends { stdin: None, fifo: self.open_fifo()?, outputs: Vec::new() };
        let sinks = match &self.outputs[0].1 {
            Target::Logger(program) => {
                let (logger, sinks) = program.start(writer).await?;
                *lock(&self.logger) = Some(logger);
                sinks
            }
            _ => self.open_sinks()?,
        };
        if self.terminal {
            ends.outputs
                .extend(sinks.into_iter().take(1).map(|(stream, sink)| (stream, None, sink)));
            return Ok((Io::Terminal, ends));
        }
        let stdin = match self.stdin {
            Source::Null => null()?,
            Source::Fifo(_) | Source::Attached { .. } => {
                let (reader, writer) = make_pipe(owner)?;
                ends.stdin = Some(writer);
                reader
            }
        };
        let mut theirs = Vec::new();
        for (stream, sink) in sinks {
            if self.is_unwanted(stream) {
                theirs.push(null()?);
                continue;
            }
            let (reader, writer) = make_pipe(owner)?;
            ends.outputs.push((stream, Some(reader), sink));
            theirs.push(writer);
        }
        let (Some(stderr), Some(stdout)) = (theirs.pop(), theirs.pop()) else {
            return Err(Error::internal("a process without outputs"));
        };
        Ok((Io::Pipes(Stdio { stdin, stdout, stderr }), ends))
    }

    /// Whether an output may be `/dev/null` itself. A logging program takes both.
    fn is_unwanted(&self, stream: Stream) -> bool {
        let [stdout, stderr] = &self.outputs;
        match stream {
            Stream::Stdout => stdout.1 == Target::Null,
            Stream::Stderr => stderr.1 == Target::Null && !matches!(stdout.1, Target::Logger(_)),
        }
    }

    fn open_fifo(&self) -> Result<Option<pipe::Receiver>> {
        let Source::Fifo(path) = &self.stdin else { return Ok(None) };
        let opened = pipe::OpenOptions::new().open_receiver(path);
        opened.map(Some).context(|| format!("open {}", path.display()))
    }

    fn open_sinks(&self) -> Result<Vec<(Stream, Sink)>> {
        let mut logs: Vec<(&Target, Arc<Mutex<Log>>)> = Vec::new();
        let mut sinks = Vec::new();
        for (stream, target) in &self.outputs {
            let Target::Log(path, format, rotation) = target else {
                sinks.push((*stream, Sink::open(target)?));
                continue;
            };
            let log = match logs.iter().find(|(known, _)| *known == target) {
                Some((_, log)) => log.clone(),
                None => Log::open(path, *format, *rotation)?,
            };
            logs.push((target, log.clone()));
            sinks.push((*stream, Sink::Log(log, *stream)));
        }
        *lock(&self.logs) = logs.into_iter().map(|(_, log)| log).collect();
        Ok(sinks)
    }

    /// Starts the copying: the process is there, with `terminal` if it has one.
    ///
    /// # Errors
    /// When the runtime can't watch a descriptor.
    pub(crate) fn connect(&self, ends: Ends, terminal: Option<OwnedFd>) -> Result<()> {
        let Ends { stdin, fifo, outputs } = ends;
        self.hub.opened(outputs.len());
        let master = || terminal.as_ref().map(OwnedFd::try_clone).transpose();
        let target = stdin.map_or_else(master, |stdin| Ok(Some(stdin)));
        if let Some(target) = target.context(|| "duplicate a terminal")?
            && let Some(writer) = self.input.writer(unblock(target)?)?
        {
            self.spawn(writer);
        }
        if let Some(fifo) = fifo {
            let input = self.input.clone();
            self.spawn(async move { input.copy(fifo).await });
        }
        for (stream, reader, sink) in outputs {
            let source = reader.map_or_else(master, |reader| Ok(Some(reader)));
            let source = source.context(|| "duplicate a terminal")?;
            let source = source.ok_or_else(|| Error::internal("an output without a source"))?;
            let source = pipe::Receiver::from_owned_fd_unchecked(unblock(source)?)
                .context(|| "watch a process's output")?;
            let (hub, ended) = (self.hub.clone(), self.ended.subscribe());
            self.spawn(Output { stream, source, sink, hub, ended }.run());
        }
        *lock(&self.master) = terminal;
        Ok(())
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        lock(&self.tasks).push(tokio::spawn(work).abort_handle());
    }

    /// Adds a client that gets a copy of the output. With `lossless` the process waits for it.
    pub(crate) fn attach(&self, lossless: bool) -> Attached {
        self.hub.attach(lossless)
    }

    /// The client has written all its input.
    pub(crate) fn close_stdin(&self) {
        self.input.close(&self.stdin);
    }

    /// Sets the size of the terminal; nothing without one.
    ///
    /// # Errors
    /// Those of `ioctl_tty(2)`.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let master = lock(&self.master);
        let Some(master) = &*master else { return Ok(()) };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master.as_fd(), size)
            .map_err(std::io::Error::from)
            .context(|| "resize a terminal")
    }

    /// Whoever rotates its logs from outside has moved the files away: goes on in new ones.
    ///
    /// # Errors
    /// As [`Log::reopen`], for the first log that fails.
    pub(crate) fn reopen_logs(&self) -> Result<()> {
        let logs = lock(&self.logs).clone();
        logs.iter().try_for_each(|log| sink::lock(log).reopen())
    }

    /// The process has ended. Returns when a log has all that it wrote: whoever learns of the end
    /// then finds it there.
    pub(crate) async fn process_ended(&self) {
        self.ended.send_replace(true);
        if self.outputs.iter().any(|(_, target)| matches!(target, Target::Log(..))) {
            // Beyond that the disk is in the way, and the exit must not wait for it.
            let _ = tokio::time::timeout(SETTLE, self.hub.over()).await;
        }
    }

    /// Nobody will ask for this process any more: waits a little for its output to be read and
    /// logged, and closes all.
    pub(crate) async fn close(&self) {
        let through = async {
            self.hub.over().await;
            while self.missing_entries() > 0 {
                tokio::time::sleep(GLANCE).await;
            }
        };
        if tokio::time::timeout(DRAIN, through).await.is_err() {
            let missing = self.missing_entries();
            if missing > 0 {
                tracing::warn!("{missing} log entries are lost: the log can't be written");
            }
        }
        let logger = lock(&self.logger).take();
        self.abandon();
        if let Some(logger) = logger {
            logger.end().await;
        }
    }

    /// How many entries are not in the logs yet.
    fn missing_entries(&self) -> u64 {
        lock(&self.logs).iter().map(|log| sink::lock(log).missing()).sum()
    }

    /// Closes all.
    pub(crate) fn abandon(&self) {
        *lock(&self.logger) = None;
        *lock(&self.logs) = Vec::new();
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        self.hub.opened(0);
        *lock(&self.master) = None;
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Every change is one step, so that a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
