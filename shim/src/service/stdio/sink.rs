//! Where a process's output goes, besides to attached clients.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use berth_logs::{Format, Rotation, Stream, Writer};
use berth_types::{Error, Kind, Result, ResultExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::names::Target;

/// How often an unread FIFO is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// The destination of one output.
pub(super) enum Sink {
    /// Nowhere.
    Null,
    /// A client's FIFO, or a logging program's pipe.
    Fifo(pipe::Sender, Reader),
    /// A file that grows.
    File(File),
    /// A log that both outputs share.
    Log(Arc<Mutex<Log>>, Stream),
}

/// Who reads a FIFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Somebody has had it open since before it was opened here.
    Known,
    /// Nobody had, and may still come.
    Awaited,
}

/// A log, and whether it is known that it can't be written now.
pub(super) struct Log {
    writer: Writer,
    failing: bool,
}

impl Log {
    pub(super) fn open(
        path: &Path,
        format: Format,
        rotation: Rotation,
    ) -> Result<Arc<Mutex<Self>>> {
        let writer = Writer::open(path, format, rotation)?;
        Ok(Arc::new(Mutex::new(Self { writer, failing: false })))
    }

    /// Goes on in the file that has the log's name now.
    ///
    /// # Errors
    /// As [`Writer::reopen`].
    pub(super) fn reopen(&mut self) -> Result<()> {
        self.writer.reopen()
    }

    /// How many entries are not in the file yet.
    pub(super) fn missing(&self) -> u64 {
        self.writer.missing()
    }

    /// Reports the first failure of a row.
    fn note(&mut self, outcome: Result<()>) {
        if let (false, Err(error)) = (self.failing, &outcome) {
            tracing::warn!("the container's log is delayed: {error}");
        }
        self.failing = outcome.is_err();
    }
}

impl Sink {
    /// Opens `target`, unless it is a log or a program, of which both outputs share one.
    ///
    /// # Errors
    /// NotFound when there is no such FIFO.
    pub(super) fn open(target: &Target) -> Result<Self> {
        match target {
            Target::Fifo(path) => fifo(path).context(|| format!("open {}", path.display())),
            Target::File(path) => file(path).context(|| format!("open {}", path.display())),
            Target::Null | Target::Attached | Target::Log(..) | Target::Logger(_) => Ok(Self::Null),
        }
    }

    /// Takes as much as goes without waiting, and says how much.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Null => bytes.len(),
            Self::Fifo(fifo, _) => fifo.try_write(bytes).unwrap_or(0),
            Self::File(file) => {
                if let Err(error) = file.write_all(bytes) {
                    tracing::warn!("output is lost: {error}");
                }
                bytes.len()
            }
            Self::Log(log, stream) => {
                let mut log = lock(log);
                let outcome = log.writer.write(*stream, bytes, SystemTime::now());
                log.note(outcome);
                bytes.len()
            }
        }
    }

    /// Waits until all of `bytes` are taken.
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let Self::Fifo(fifo, _) = self else {
            self.try_write(bytes);
            return;
        };
        if let Err(error) = fifo.write_all(bytes).await {
            tracing::warn!("output is lost: {error}");
            *self = Self::Null;
        }
    }

    /// Whether something waits in memory for [`Sink::retry`].
    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::Log(log, _) if lock(log).writer.is_behind())
    }

    /// Tries again to write what could not be written.
    pub(super) fn retry(&mut self) {
        if let Self::Log(log, _) = self {
            let mut log = lock(log);
            let outcome = log.writer.flush();
            log.note(outcome);
        }
    }

    /// The process has ended and all that it wrote has been taken. A client is told by the end of
    /// its FIFO; a log stays open for what the process left running.
    pub(super) async fn end(&mut self) {
        match self {
            Self::Log(log, stream) => {
                let mut log = lock(log);
                let outcome = log.writer.end(*stream, SystemTime::now());
                log.note(outcome);
            }
            Self::Fifo(..) => {
                if let Self::Fifo(fifo, reader) = std::mem::replace(self, Self::Null) {
                    leave(fifo, reader).await;
                }
            }
            Self::Null | Self::File(_) => {}
        }
    }
}

/// Opens a client's FIFO for writing, and for reading too: then it needs no reader now, and
/// outlives the one it has. What is no FIFO is a file.
fn fifo(path: &Path) -> Result<Sink> {
    // For writing alone, it can be opened only when it has a reader, who must not see it closed.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let alone = rustix::fs::open(path, flags, Mode::empty());
    let reader = if alone.is_ok() { Reader::Known } else { Reader::Awaited };
    match pipe::OpenOptions::new().read_write(true).open_sender(path) {
        Ok(sender) => Ok(Sink::Fifo(sender, reader)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            file(path).context(|| "it is no FIFO")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::new(Kind::NotFound, error.to_string()))
        }
        Err(error) => Err(error).context(|| "as a FIFO"),
    }
}

fn file(path: &Path) -> Result<Sink> {
    let open = || {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        File::options().append(true).create(true).open(path)
    };
    open().map(Sink::File).context(|| "as a file")
}

/// Closes a FIFO. When nobody has it open for reading, what is in it would be lost with the last
/// writer, and who comes to it after that one would wait for ever: it is then kept until a reader
/// comes, or until the caller gives up. One that had a reader and is empty need not be kept.
async fn leave(fifo: pipe::Sender, reader: Reader) {
    let path = format!("/proc/self/fd/{}", fifo.as_fd().as_raw_fd());
    let Ok(writer) = pipe::OpenOptions::new().open_sender(path) else { return };
    drop(fifo);
    while (unread(&writer) || reader == Reader::Awaited) && !has_reader(&writer) {
        tokio::time::sleep(GLANCE).await;
    }
}

fn unread(fifo: &pipe::Sender) -> bool {
    rustix::io::ioctl_fionread(fifo).is_ok_and(|bytes| bytes > 0)
}

fn has_reader(fifo: &pipe::Sender) -> bool {
    let mut fds = [PollFd::new(fifo, PollFlags::OUT)];
    let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    asked.is_err() || !fds[0].revents().contains(PollFlags::ERR)
}

/// Entries are whole when written, so that a panic elsewhere leaves the log whole.
pub(super) fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn make_fifo() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        (directory, path)
    }

    #[tokio::test]
    async fn a_client_that_comes_late_gets_all() {
        let (_directory, path) = make_fifo();
        let mut sink = Sink::open(&Target::Fifo(path.clone())).unwrap();
        sink.write(b"early").await;
        let end = tokio::spawn(async move { sink.end().await });
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut client = File::open(&path).unwrap();
        end.await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "early");
    }

    #[tokio::test]
    async fn a_fifo_that_is_read_ends_at_once() {
        let (_directory, path) = make_fifo();
        let mut sink = Sink::open(&Target::Fifo(path.clone())).unwrap();
        let mut client = File::open(&path).unwrap();
        sink.write(b"text").await;
        sink.end().await;
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    }

    #[tokio::test]
    async fn a_plain_file_in_place_of_a_fifo_is_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "before ").unwrap();
        let mut sink = Sink::open(&Target::Fifo(path.clone())).unwrap();
        sink.write(b"after").await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before after");
    }

    #[tokio::test]
    async fn a_missing_fifo_is_not_found() {
        let directory = tempfile::tempdir().unwrap();
        let missing = Target::Fifo(directory.path().join("fifo"));
        assert_eq!(Sink::open(&missing).err().unwrap().kind(), Kind::NotFound);
    }
}
