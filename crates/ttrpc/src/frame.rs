//! One frame: a 10-byte header (length, stream, type, flags; big-endian) and a payload.

use berth_types::{Error, Result, ResultExt};
use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest payload of a frame, in bytes: 4 MiB.
pub const MAX_MESSAGE: usize = 4 << 20;

/// From this length on a header is damaged rather than too large: its first byte is reserved.
const RESERVED_LENGTH: usize = 1 << 24;

const HEADER: usize = 10;

/// Frame types.
pub(crate) const REQUEST: u8 = 1;
pub(crate) const RESPONSE: u8 = 2;
pub(crate) const DATA: u8 = 3;

/// The sender of this frame sends no more on the stream.
pub(crate) const REMOTE_CLOSED: u8 = 1;
/// The sender of this request will send data on the stream.
pub(crate) const REMOTE_OPEN: u8 = 2;
/// The empty payload of this frame is no message.
pub(crate) const NO_DATA: u8 = 4;

/// What a header says, and the payload.
pub(crate) struct Frame {
    pub(crate) stream: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// The length that was announced instead, when it was over [`MAX_MESSAGE`]; such a payload has
    /// been read and thrown away, so that the connection goes on.
    pub(crate) payload: Result<Bytes, usize>,
}

impl Frame {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Reads the next frame; `None` when the peer closed the connection between two frames.
///
/// # Errors
/// [`berth_types::Kind::Unavailable`] for a connection that broke inside a frame,
/// [`berth_types::Kind::Internal`] for a header that can't be one. The connection is of no use
/// after either.
pub(crate) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>> {
    let mut header = [0; HEADER];
    if reader.read(&mut header[..1]).await.map_err(|error| broken(&error))? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut header[1..]).await.map_err(|error| broken(&error))?;
    let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = header;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length >= RESERVED_LENGTH {
        return Err(Error::internal(format!(
            "malformed ttrpc frame: it announces {length} bytes, the most is {MAX_MESSAGE}"
        )));
    }
    let payload = if length > MAX_MESSAGE {
        discard(reader, length).await?;
        Err(length)
    } else {
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).await.map_err(|error| broken(&error))?;
        Ok(Bytes::from(payload))
    };
    Ok(Some(Frame { stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, flags, payload }))
}

async fn discard(reader: &mut (impl AsyncRead + Unpin), length: usize) -> Result<()> {
    let copied = tokio::io::copy(&mut reader.take(length as u64), &mut tokio::io::sink())
        .await
        .map_err(|error| broken(&error))?;
    if copied < length as u64 {
        return Err(Error::unavailable("ttrpc connection closed inside a frame"));
    }
    Ok(())
}

/// The failure of a message of `length` bytes, ours or announced by the peer.
pub(crate) fn too_large(length: usize) -> Error {
    Error::resource_exhausted(format!(
        "a ttrpc message of {length} bytes is too large, the most is {MAX_MESSAGE}"
    ))
}

fn broken(error: &std::io::Error) -> Error {
    Error::unavailable(format!("ttrpc connection broke: {error}"))
}

/// A frame ready to be written, whose payload is `message`.
///
/// # Errors
/// [`berth_types::Kind::ResourceExhausted`] when the message is over [`MAX_MESSAGE`].
pub(crate) fn encode(stream: u32, kind: u8, flags: u8, message: &impl Message) -> Result<Vec<u8>> {
    let length = message.encoded_len();
    if length > MAX_MESSAGE {
        return Err(too_large(length));
    }
    let mut buffer = Vec::with_capacity(HEADER + length);
    buffer.extend_from_slice(&(length as u32).to_be_bytes());
    buffer.extend_from_slice(&stream.to_be_bytes());
    buffer.extend_from_slice(&[kind, flags]);
    message
        .encode(&mut buffer)
        .map_err(std::io::Error::other)
        .context(|| "encode a ttrpc message")?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[tokio::test]
    async fn a_frame_survives_the_wire() {
        let bytes = encode(7, DATA, REMOTE_CLOSED, &"payload".to_owned()).unwrap();
        assert_eq!(bytes[..10], [0, 0, 0, 9, 0, 0, 0, 7, 3, 1]);
        let mut wire = bytes.as_slice();
        let frame = read(&mut wire).await.unwrap().unwrap();
        assert_eq!((frame.stream, frame.kind), (7, DATA));
        assert!(frame.has(REMOTE_CLOSED) && !frame.has(NO_DATA));
        assert_eq!(String::decode(frame.payload.unwrap()).unwrap(), "payload");
        assert!(read(&mut wire).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_an_error() {
        let bytes = encode(1, REQUEST, 0, &"payload".to_owned()).unwrap();
        for length in 1..bytes.len() {
            let error = read(&mut &bytes[..length]).await.err().unwrap();
            assert_eq!(error.kind(), Kind::Unavailable, "cut to {length}");
        }
    }

    #[tokio::test]
    async fn a_frame_too_large_is_skipped() {
        let length = MAX_MESSAGE + 1;
        let mut wire = (length as u32).to_be_bytes().to_vec();
        wire.extend_from_slice(&[0, 0, 0, 1, REQUEST, 0]);
        wire.resize(HEADER + length, 0);
        wire.extend(encode(3, REQUEST, 0, &()).unwrap());
        let mut wire = wire.as_slice();
        let large = read(&mut wire).await.unwrap().unwrap();
        assert_eq!(large.payload.unwrap_err(), length);
        assert_eq!(read(&mut wire).await.unwrap().unwrap().stream, 3);
    }

    #[tokio::test]
    async fn a_damaged_header_is_refused() {
        let error = read(&mut [0xff; 10].as_slice()).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.message().contains("malformed"));
    }

    #[test]
    fn too_large_a_message_is_not_sent() {
        let error = encode(1, REQUEST, 0, &vec![0u8; MAX_MESSAGE + 1]).unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
    }
}
