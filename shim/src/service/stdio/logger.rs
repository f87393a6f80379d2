//! A program that takes a process's output, as containerd's clients name it (`binary://`).
//!
//! It gets standard output as descriptor 3, standard error as 4, and closes 5 once it listens; who
//! writes, it is told in `CONTAINER_ID` and `CONTAINER_NAMESPACE`, and nothing else of the shim's
//! environment. It ends when its inputs have ended. A logger that dies takes the output with it,
//! and never the process.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_logs::Stream;
use berth_sys::clone::{self, Child};
use berth_sys::{exec, pidfd, process};
use berth_types::{Error, Result, ResultExt};
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::pipes::null;
use super::sink::{Reader, Sink};

/// How long it may take to listen.
const READY: Duration = Duration::from_secs(10);
/// How long it may take to end, once its inputs have.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const GLANCE: Duration = Duration::from_millis(10);

/// The program, as a URI says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) args: Vec<String>,
}

/// Whose output it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) namespace: &'a str,
    /// The container's id, or the exec's.
    pub(crate) id: &'a str,
}

/// A running logger, which is killed unless it has ended.
#[derive(Debug)]
pub(super) struct Logger(Child);

/// `PF_EXITING` among the flags in proc_pid_stat(5).
const EXITING: u64 = 4;

/// Our ends of its inputs, and its own.
struct Pipes {
    ours: [OwnedFd; 2],
    theirs: [OwnedFd; 2],
}

impl Program {
    /// Starts it, and returns once it listens, with where to write.
    ///
    /// # Errors
    /// NotFound when there is no such program, DeadlineExceeded when it doesn't get ready,
    /// Aborted when it ends at once.
    pub(super) async fn start(&self, writer: Writer<'_>) -> Result<(Logger, Vec<(Stream, Sink)>)> {
        let what = || format!("start the logging program {}", self.path.display());
        rustix::fs::access(&self.path, rustix::fs::Access::EXEC_OK).map_err(|errno| {
            Error::not_found(format!("{}: {}", what(), std::io::Error::from(errno)))
        })?;
        let pipes = Pipes::make().context(what)?;
        let (ready, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
            .map_err(std::io::Error::from)
            .context(what)?;
        let Pipes { ours, theirs: inputs } = pipes;
        let logger = self.spawn(writer, &inputs, &theirs).context(what)?;
        drop((inputs, theirs));
        let ready = pipe::Receiver::from_owned_fd(ready).context(what)?;
        logger.is_ready(ready).await.context(what)?;
        let [stdout, stderr] = ours.map(pipe::Sender::from_owned_fd);
        let sinks = vec![
            (Stream::Stdout, Sink::Fifo(stdout.context(what)?, Reader::Known)),
            (Stream::Stderr, Sink::Fifo(stderr.context(what)?, Reader::Known)),
        ];
        Ok((logger, sinks))
    }

    fn spawn(&self, writer: Writer<'_>, inputs: &[OwnedFd; 2], ready: &OwnedFd) -> Result<Logger> {
        let null = null()?;
        let [stdout, stderr] = inputs;
        let fds = [&null, &null, &null, stdout, stderr, ready].map(AsFd::as_fd);
        let path = c_string(self.path.as_os_str().as_bytes())?;
        let args = [self.path.to_string_lossy().into_owned()];
        let args = args.iter().chain(&self.args).map(|arg| c_string(arg.as_bytes()));
        let args = args.collect::<Result<Vec<_>>>()?;
        let environment = [("CONTAINER_ID", writer.id), ("CONTAINER_NAMESPACE", writer.namespace)]
            .map(|(name, value)| c_string(format!("{name}={value}").as_bytes()));
        let environment = environment.into_iter().collect::<Result<Vec<_>>>()?;
        let become_program = || {
            let placed = process::place_fds(&fds)
                .and_then(|()| process::close_on_exec_from(fds.len() as u32));
            if placed.is_ok() {
                process::restore_signals();
                // Its failure is the end of this process, which its parent sees.
                let _ = exec::execve(&path, &args, &environment);
            }
            1
        };
        let child = clone::spawn(clone::Options::default(), become_program);
        child.map(Logger).context(|| "clone a process")
    }
}

impl Pipes {
    fn make() -> Result<Self> {
        let make = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let both = || Ok::<_, rustix::io::Errno>((make()?, make()?));
        let ((out_theirs, out_ours), (error_theirs, error_ours)) =
            both().map_err(std::io::Error::from).context(|| "make a pipe")?;
        Ok(Self { ours: [out_ours, error_ours], theirs: [out_theirs, error_theirs] })
    }
}

impl Logger {
    /// Waits until it has closed its end of `ready`, or written to it.
    async fn is_ready(&self, mut ready: pipe::Receiver) -> Result<()> {
        let mut byte = [0];
        match tokio::time::timeout(READY, ready.read(&mut byte)).await {
            Err(_) => Err(Error::deadline_exceeded(format!(
                "it was not ready, as closing descriptor 5 says, within {} s",
                READY.as_secs()
            ))),
            Ok(Ok(_)) if !self.is_exiting() => Ok(()),
            Ok(_) => Err(Error::aborted("it has ended without listening")),
        }
    }

    /// Whether it is about to end: what closes its descriptors then.
    fn is_exiting(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.pid));
        let flags = stat.ok().and_then(|stat| {
            // The name, in parentheses, may contain anything; behind it the third field follows.
            stat.rsplit_once(") ")?.1.split(' ').nth(6)?.parse::<u64>().ok()
        });
        flags.is_none_or(|flags| flags & EXITING != 0)
    }

    /// Its inputs have ended: it ends too, by itself or else by force.
    pub(super) async fn end(self) {
        let ended = async {
            while !self.has_ended() {
                tokio::time::sleep(GLANCE).await;
            }
        };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            tracing::warn!("a logging program is killed: it did not end with its inputs");
        }
    }

    fn has_ended(&self) -> bool {
        pidfd::has_ended(self.0.pidfd.as_fd()).unwrap_or(true)
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        if !self.has_ended() {
            // It may end at any moment.
            let _ = pidfd::send_signal(self.0.pidfd.as_fd(), Signal::KILL.as_raw());
        }
    }
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes)
        .map_err(|_| Error::invalid_argument("a logging program's command has a zero byte in it"))
}

impl Program {
    /// `/PATH?KEY=VALUE&…`: each key and each value is an argument.
    pub(super) fn parse(rest: &str) -> Option<Self> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = super::names::decode(path)?;
        let mut args = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            for text in [key, value] {
                args.push(super::names::decode(&text.replace('+', " "))?);
            }
        }
        Path::new(&path).is_absolute().then(|| Self { path: PathBuf::from(path), args })
    }
}
