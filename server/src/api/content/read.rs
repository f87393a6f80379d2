//! Reading a blob as a stream of large messages.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use berth_proto::containerd::services::content::v1::ReadContentResponse;
use berth_types::{Error, Result, ResultExt};

use super::super::status::status;

/// Bytes of one message: large enough that calls don't count, small against what a client takes.
const FRAME: u64 = 1 << 20;

/// Messages that are read ahead of the client.
const AHEAD: usize = 2;

/// The bytes that `offset` and `size` mean in a blob of `length` bytes; a size of 0 or less means
/// all that is left.
///
/// # Errors
/// `OutOfRange` when they lead past the blob's end.
pub(super) fn range(offset: i64, size: i64, length: u64) -> Result<Range<u64>> {
    let start = u64::try_from(offset).unwrap_or_default();
    let end = match u64::try_from(size) {
        Ok(size) if size > 0 => start.saturating_add(size),
        _ => length,
    };
    if start > length || end > length {
        return Err(Error::out_of_range(format!("read past object length {length} bytes")));
    }
    Ok(start..end)
}

/// Sends `range` of `file` from a thread that may block; it ends when nobody listens any more.
pub(super) fn stream(
    file: File,
    range: Range<u64>,
) -> impl Stream<Item = std::result::Result<ReadContentResponse, Status>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut offset = range.start;
        while offset < range.end {
            let frame = read(&file, offset, (range.end - offset).min(FRAME)).map_err(status);
            let failed = frame.is_err();
            if sender.blocking_send(frame).is_err() || failed {
                return;
            }
            offset += FRAME;
        }
    });
    ReceiverStream::new(receiver)
}

/// Reads one message.
fn read(file: &File, offset: u64, size: u64) -> Result<ReadContentResponse> {
    let mut data = vec![0; size as usize];
    file.read_exact_at(&mut data, offset).context(|| "read content")?;
    Ok(ReadContentResponse { offset: super::number(offset), data: data.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[test]
    fn ranges_are_those_of_containerd() {
        assert_eq!(range(0, 0, 10).unwrap(), 0..10);
        assert_eq!(range(-1, -1, 10).unwrap(), 0..10);
        assert_eq!(range(3, 4, 10).unwrap(), 3..7);
        assert_eq!(range(10, 0, 10).unwrap(), 10..10);
        for (offset, size) in [(11, 0), (0, 11), (9, 2), (i64::MAX, i64::MAX)] {
            assert_eq!(range(offset, size, 10).unwrap_err().kind(), Kind::OutOfRange);
        }
    }
}
