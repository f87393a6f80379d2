//! The two halves of a connection's socket, watched no more than they are waited for.
//!
//! tokio watches a `UnixStream` for reading and writing at once. Each time the peer takes something
//! out of the socket the kernel then reports room for more, and wakes a process that has nothing to
//! write: one wake-up for each frame on both sides. Here only reading is watched all the time.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::UnixStream;

/// The reading half.
pub(crate) struct ReadHalf(AsyncFd<Arc<StdStream>>);

/// The writing half, which is shut when dropped.
pub(crate) struct WriteHalf(Arc<StdStream>);

/// Takes a socket apart.
///
/// # Errors
/// When it can't be watched.
pub(crate) fn split(stream: UnixStream) -> io::Result<(ReadHalf, WriteHalf)> {
    let stream = Arc::new(stream.into_std()?);
    Ok((ReadHalf(watch(stream.clone(), Interest::READABLE)?), WriteHalf(stream)))
}

#[expect(deprecated, reason = "its successor is unsafe, to exclude borrowed descriptors")]
fn watch<T: std::os::fd::AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}

impl ReadHalf {
    /// Returns once the peer has closed its end, whatever is still to be read. It costs a
    /// descriptor while it waits.
    pub(crate) async fn hung_up(&self) -> io::Result<()> {
        let watched = watch(self.0.get_ref().try_clone()?, Interest::WRITABLE)?;
        loop {
            let mut ready = watched.writable().await?;
            if ready.ready().is_write_closed() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            let room = unfilled.len();
            let Ok(outcome) = ready.try_io(|socket| (&**socket.get_ref()).read(unfilled)) else {
                continue;
            };
            let length = outcome?;
            // Less than there was room for: the socket is empty, and need not be asked to know.
            if 0 < length && length < room {
                ready.clear_ready();
            }
            buffer.advance(length);
            return Poll::Ready(Ok(()));
        }
    }
}

impl WriteHalf {
    /// Writes all of `bytes`.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&*self.0).write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for room, on a descriptor of its own: epoll(7) watches each one once.
    async fn writable(&self) -> io::Result<()> {
        watch(self.0.try_clone()?, Interest::WRITABLE)?.writable().await.map(drop)
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        // It fails only when the peer is gone.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn more_than_the_socket_holds_arrives_whole() {
        let (near, far) = UnixStream::pair().unwrap();
        let (_read, write) = split(near).unwrap();
        let (mut read, _write) = split(far).unwrap();
        let sent: Vec<_> = (0..4_000_000_u32).flat_map(u32::to_ne_bytes).collect();
        let bytes = sent.clone();
        let writing = tokio::spawn(async move { write.write_all(&bytes).await });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_noticed_before_all_is_read() {
        let (near, far) = UnixStream::pair().unwrap();
        let (read, _write) = split(near).unwrap();
        let (far_read, far_write) = split(far).unwrap();
        far_write.write_all(b"unread").await.unwrap();
        drop(far_write);
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), read.hung_up());
        assert!(early.await.is_err(), "a peer that only writes no more is still there");
        drop(far_read);
        read.hung_up().await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_leaves_ends_both_halves() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut read, write) = split(near).unwrap();
        drop(far);
        assert_eq!(read.read(&mut [0; 8]).await.unwrap(), 0);
        let error = write.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
