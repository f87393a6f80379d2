//! Copying one output of a process to where it goes and to those who are attached.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use berth_logs::Stream;
use bytes::Bytes;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::hub::Hub;
use super::sink::Sink;

/// How much is read at a time, in bytes.
pub(super) const PIECE: usize = 16 * 1024;

/// How often a sink that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(100);

thread_local! {
    /// One buffer for all outputs: between reading and writing nothing else runs. Its memory is
    /// only there once something was written.
    static BUFFER: RefCell<[u8; PIECE]> = const { RefCell::new([0; PIECE]) };
}

/// One output: the process's end, and where it leads.
pub(super) struct Output {
    pub(super) stream: Stream,
    pub(super) source: pipe::Receiver,
    pub(super) sink: Sink,
    pub(super) hub: Arc<Hub>,
    /// Turns true when the process has ended.
    pub(super) ended: watch::Receiver<bool>,
}

/// What came of an attempt to read.
enum Read {
    /// Something was there: what the sink has yet to take, and a copy for who is attached.
    Some { untaken: Vec<u8>, copy: Option<Bytes> },
    /// Nothing is there now.
    Nothing,
    /// The last writer is gone.
    End,
}

impl Output {
    /// Copies until every process that may write has gone. Once the process itself has ended and
    /// all that it wrote is through, the output is over for those who read it; what a child of
    /// its may still write is taken, so that it isn't killed for writing, and logged. A log that
    /// can't be written is tried again for as long as somebody lets this run.
    pub(super) async fn run(mut self) {
        let mut over = false;
        loop {
            match self.read() {
                Read::Some { untaken, copy } => {
                    if let Some(copy) = copy {
                        self.hub.send(self.stream, copy).await;
                    }
                    if !untaken.is_empty() {
                        self.sink.write(&untaken).await;
                    }
                }
                Read::Nothing if !over && *self.ended.borrow() => {
                    over = true;
                    self.end().await;
                }
                Read::Nothing => self.wait(over).await,
                Read::End => break,
            }
        }
        if !over {
            self.end().await;
        }
        while self.sink.is_behind() {
            tokio::time::sleep(RETRY).await;
            self.sink.retry();
        }
    }

    /// Reads a piece and gives it to the sink as far as that takes it at once.
    fn read(&mut self) -> Read {
        BUFFER.with_borrow_mut(|buffer| {
            let length = match self.read_into(buffer) {
                Ok(0) => return Read::End,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Nothing,
                // A terminal whose last program has gone answers EIO.
                Err(_) => return Read::End,
            };
            let piece = &buffer[..length];
            let taken = self.sink.try_write(piece);
            let copy = self.hub.is_attended().then(|| Bytes::copy_from_slice(piece));
            Read::Some { untaken: piece[taken..].to_vec(), copy }
        })
    }

    fn read_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.try_read(buffer) {
            // The runtime has only not heard yet of what was written last.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && *self.ended.borrow() => {
                Ok(rustix::io::read(self.source.as_fd(), buffer)?)
            }
            other => other,
        }
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self, over: bool) {
        tokio::select! {
            // Its failure shows when the source is read.
            _ = self.source.readable() => {}
            _ = self.ended.changed(), if !over => {}
            () = tokio::time::sleep(RETRY), if self.sink.is_behind() => self.sink.retry(),
        }
    }

    async fn end(&mut self) {
        self.sink.end().await;
        self.hub.ended();
    }
}
