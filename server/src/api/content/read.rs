//! Reading a blob as a stream of large messages.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::task::spawn_blocking;
use tokio_stream::Stream;
use tonic::Status;

use berth_proto::containerd::services::content::v1::ReadContentResponse;
use berth_types::{Error, Result, ResultExt};

use super::super::status::status;

/// Bytes of one message: large enough that calls don't count, small against what a client takes.
const FRAME: u64 = 1 << 20;

/// Messages that are read while one is sent.
const AHEAD: usize = 2;

/// The bytes that `offset` and `size` mean in a blob of `length` bytes; a size of 0 or less, or more
/// than is left, means all that is left.
///
/// # Errors
/// `OutOfRange` when they begin past the blob's end.
pub(super) fn range(offset: i64, size: i64, length: u64) -> Result<Range<u64>> {
    let start = u64::try_from(offset).unwrap_or_default();
    if start > length {
        return Err(Error::out_of_range(format!("read past object length {length} bytes")));
    }
    let end = match u64::try_from(size) {
        Ok(size) if size > 0 => start.saturating_add(size).min(length),
        _ => length,
    };
    Ok(start..end)
}

/// Reads `range` of `file`, a little ahead of the client: one that does not read holds no thread up.
/// As with containerd, the offsets of messages begin with 0.
pub(super) fn stream(
    file: File,
    range: Range<u64>,
) -> impl Stream<Item = std::result::Result<ReadContentResponse, Status>> {
    let (file, Range { start: begin, end }) = (Arc::new(file), range);
    stream::iter((begin..end).step_by(FRAME as usize))
        .map(move |start| {
            let (file, size) = (file.clone(), FRAME.min(end - start));
            let reading = spawn_blocking(move || read(&file, start, size));
            async move {
                let died =
                    |error| Err(Error::internal(format!("a thread for the disk failed: {error}")));
                let data = reading.await.unwrap_or_else(died).map_err(status)?;
                Ok(ReadContentResponse { offset: super::number(start - begin), data: data.into() })
            }
        })
        .buffered(AHEAD)
}

/// Reads what one message has.
fn read(file: &File, offset: u64, size: u64) -> Result<Vec<u8>> {
    let mut data = vec![0; size as usize];
    file.read_exact_at(&mut data, offset).context(|| "read content")?;
    Ok(data)
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
        assert_eq!(range(9, i64::MAX, 10).unwrap(), 9..10);
        for (offset, size) in [(11, 0), (i64::MAX, i64::MAX)] {
            assert_eq!(range(offset, size, 10).unwrap_err().kind(), Kind::OutOfRange);
        }
    }
}
