//! What Go's HTTP/2 server takes from clients, and ours would end their connection for.
//!
//! gRPC's C core, which Python, Ruby, PHP and C++ share, names a unix socket's path as the authority
//! of its calls, escaped; and it cancels calls that it has never begun. Neither is right (RFC 9113,
//! 8.3.1 and 5.1), and both are harmless: the authority is made one that may be, and what is about
//! streams that were never opened is left out. All else passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use self::fields::Fields;

mod fields;

/// Bytes that are looked at at a time.
const ROOM: usize = 32 << 10;
/// What a connection begins with, in bytes (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// What a frame begins with, in bytes, and the kinds of frames that matter (4.1 and 6).
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;

/// A client's connection.
pub(crate) struct Tolerant<C> {
    inner: C,
    filter: Filter,
    /// What has come: passed on up to `start`, to be passed on up to `decided`, and more up to
    /// `end`.
    inbox: Vec<u8>,
    start: usize,
    decided: usize,
    end: usize,
}

impl<C> Tolerant<C> {
    pub(crate) fn new(inner: C) -> Self {
        Self { inner, filter: Filter::new(), inbox: Vec::new(), start: 0, decided: 0, end: 0 }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Tolerant<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.start == this.decided {
            this.inbox.resize(ROOM, 0);
            this.inbox.copy_within(this.decided..this.end, 0);
            (this.start, this.end) = (0, this.end - this.decided);
            this.decided = 0;
            let mut free = ReadBuf::new(&mut this.inbox[this.end..]);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut free))?;
            let come = free.filled().len();
            if come == 0 && this.end == 0 {
                return Poll::Ready(Ok(()));
            }
            this.end += come;
            (this.decided, this.end) = match come {
                // Nothing more comes: whatever it is, it is passed on.
                0 => (this.end, this.end),
                _ => this.filter.pass(&mut this.inbox[..this.end]),
            };
        }
        let part = buffer.remaining().min(this.decided - this.start);
        buffer.put_slice(&this.inbox[this.start..this.start + part]);
        this.start += part;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Tolerant<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<C: Connected> Connected for Tolerant<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

/// Where in the frames of a client the filter is.
struct Filter {
    /// Bytes of the preface or of a frame that are still to come.
    left: usize,
    /// Whether they are fields of a call.
    are_fields: bool,
    /// The last stream that the client has opened.
    opened: u32,
    fields: Fields,
}

impl Filter {
    fn new() -> Self {
        Self { left: PREFACE, are_fields: false, opened: 0, fields: Fields::default() }
    }

    /// Looks at what follows what was passed on, and puts it right. Returns how much of it may be
    /// passed on, and how much there is.
    fn pass(&mut self, bytes: &mut [u8]) -> (usize, usize) {
        let (mut at, mut end) = (0, bytes.len());
        loop {
            let part = self.left.min(end - at);
            if self.are_fields {
                self.fields.pass(&mut bytes[at..at + part]);
            }
            at += part;
            self.left -= part;
            let Some(head) = bytes[at..end].first_chunk::<HEAD>() else { return (at, end) };
            let [a, b, c, kind, flags, stream @ ..] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
            if matches!(kind, RESET | WINDOW) && length == 4 && stream > self.opened {
                if end - at < HEAD + length {
                    return (at, end);
                }
                bytes.copy_within(at + HEAD + length..end, at);
                end -= HEAD + length;
                continue;
            }
            if kind == HEADERS {
                self.opened = self.opened.max(stream);
                self.fields.begin(flags);
            }
            self.are_fields = matches!(kind, HEADERS | CONTINUATION);
            at += HEAD;
            self.left = length;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        let head = [&length[1..], &[kind, 4], &stream.to_be_bytes()].concat();
        [&head, body].concat()
    }

    /// A literal field, as gRPC's C core writes each of them.
    fn field(name: &str, value: &str) -> Vec<u8> {
        let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
        [vec![0x40], text(name), text(value)].concat()
    }

    fn call(stream: u32, authority: &str) -> Vec<u8> {
        let fields = [
            field(":path", "/a%2Fb"),
            field(":authority", authority),
            vec![0x83, 0x86, 0x3f, 0x81, 0x1f],
            // By the number of its name, and in other ways of literals.
            [&[0x41, 9][..], b"x%2Fother"].concat(),
            [&[0x0f, 0x21, 3][..], b"%%%"].concat(),
            field("x-long", &"%".repeat(100)),
        ];
        frame(HEADERS, stream, &fields.concat())
    }

    /// What is passed on of `sent`, which comes in pieces of `size`.
    async fn passed(sent: &[u8], size: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(size);
        let sent = sent.to_owned();
        let sending = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
        });
        let mut got = Vec::new();
        Tolerant::new(server).read_to_end(&mut got).await.unwrap();
        sending.await.unwrap();
        got
    }

    #[tokio::test]
    async fn what_is_harmless_is_put_right_and_all_else_passes() {
        let preface = vec![b'%'; PREFACE];
        let data = frame(0, 1, b"%2F data that looks like :authority");
        let goes_on = frame(CONTINUATION, 1, &field(":authority", "c%2Fd"));
        let parts = [
            preface.clone(),
            frame(WINDOW, 0, &[0, 0, 0, 9]),
            call(1, "tmp%2Fd.sock"),
            goes_on,
            data.clone(),
            frame(RESET, 3, &[0, 0, 0, 8]),
            frame(WINDOW, 5, &[0, 0, 0, 8]),
            frame(RESET, 1, &[0, 0, 0, 8]),
            call(7, "localhost"),
            b"rest".to_vec(),
        ];
        let right = frame(CONTINUATION, 1, &field(":authority", "c-2Fd"));
        let mut first = call(1, "tmp-2Fd.sock");
        let mut second = call(7, "localhost");
        for headers in [&mut first, &mut second] {
            let at = headers.windows(9).position(|bytes| bytes == b"x%2Fother").unwrap();
            headers[at + 1] = b'-';
        }
        let expected = [
            preface,
            frame(WINDOW, 0, &[0, 0, 0, 9]),
            first,
            right,
            data,
            frame(RESET, 1, &[0, 0, 0, 8]),
            second,
            b"rest".to_vec(),
        ];
        for size in [1, 2, 3, 7, 10, 100, 10_000] {
            assert_eq!(passed(&parts.concat(), size).await, expected.concat(), "{size}");
        }
    }

    #[tokio::test]
    async fn nonsense_passes_as_it_is() {
        let mut nonsense = vec![0; PREFACE];
        for number in 0..3000_u32 {
            nonsense.push(number.wrapping_mul(2_654_435_761).to_be_bytes()[1]);
        }
        // No kind of these bytes' frames is one that matters.
        let got = passed(&nonsense, 50).await;
        assert_eq!(got.len(), nonsense.len());
        assert_eq!(passed(b"", 10).await, b"");
        assert_eq!(passed(b"GET / HTTP/1.1\r\n\r\n", 3).await, b"GET / HTTP/1.1\r\n\r\n");
    }
}
