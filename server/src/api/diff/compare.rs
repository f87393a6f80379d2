//! The difference of two snapshots as a layer's blob.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use berth_metadata::{ContentWriter, Scope, WriterRequest};
use berth_proto::containerd::events::ContentCreate;
use berth_proto::containerd::services::diff::v1::DiffRequest;
use berth_proto::containerd::types::Descriptor;
use berth_types::image::media_type;
use berth_types::labels::UNCOMPRESSED;
use berth_types::{Digest, Error, Kind, Result, ResultExt};

use super::super::backend::Backend;
use super::compress::{Compression, Compressor};
use super::tree::{self, Tree};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Makes a layer of what the right mounts have over the left ones, and stores it.
///
/// # Errors
/// `Unimplemented` for media types and mounts that are not known; `Aborted` when the right tree
/// is written to meanwhile.
pub(super) async fn compare(
    backend: &Backend,
    scope: &Scope,
    request: DiffRequest,
) -> Result<Descriptor> {
    let DiffRequest { left, right, media_type, r#ref, labels, .. } = request;
    let media_type = match media_type.as_str() {
        "" => media_type::OCI_LAYER_GZIP.to_owned(),
        _ => media_type,
    };
    let compression = Compression::of(&media_type)?;
    let (left, right) = (Tree::of(&left)?, Tree::of(&right)?);
    let right = right.ok_or_else(|| Error::invalid_argument("there are no mounts to compare"))?;
    let reference = if r#ref.is_empty() { unique_reference()? } else { r#ref };
    let request = WriterRequest { reference: reference.clone(), ..WriterRequest::default() };
    let writer = scope.content().writer(request).await?;
    let made =
        tokio::task::spawn_blocking(move || write(left.as_ref(), &right, compression, writer));
    let made = made.await.map_err(|error| Error::internal(format!("comparing died: {error}")))?;
    let (writer, diff_id) = match made {
        Ok(made) => made,
        Err(error) => {
            scope.content().abort(&reference).await?;
            return Err(error.context("make a layer of the difference"));
        }
    };
    let (digest, size) = store(backend, scope, writer, &diff_id, labels).await?;
    Ok(Descriptor { media_type, digest, size, ..Descriptor::default() })
}

/// Commits the blob; returns its digest and size. That it is there already is fine.
async fn store(
    backend: &Backend,
    scope: &Scope,
    writer: ContentWriter,
    diff_id: &Digest,
    mut labels: HashMap<String, String>,
) -> Result<(String, i64)> {
    labels.insert(UNCOMPRESSED.to_owned(), diff_id.to_string());
    let (digest, size) = (writer.digest().to_string(), writer.status().offset);
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    match writer.commit(0, None, labels).await {
        Ok(_) => {
            let event = ContentCreate { digest: digest.clone(), size };
            backend.publish(scope.namespace(), "/content/create", &event);
        }
        Err(error) if error.kind() == Kind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok((digest, size))
}

/// Writes the layer; returns its writer and the digest of the uncompressed bytes.
fn write(
    left: Option<&Tree>,
    right: &Tree,
    compression: Compression,
    mut writer: ContentWriter,
) -> Result<(ContentWriter, Digest)> {
    // A layer is made anew, whatever an interrupted call left under this ref.
    writer.truncate(0)?;
    let output = BufWriter::with_capacity(BUFFER, Output(writer));
    let mut compressor = Compressor::new(compression, output).context(|| "start to compress")?;
    match &right.upper {
        Some(upper) if left.is_some_and(|left| left.is_below(right)) => {
            berth_archive::diff_upper(tree::open(upper)?.as_fd(), &mut compressor)?;
        }
        _ => {
            let left = left.map(Tree::open).transpose()?;
            let right = right.open()?;
            berth_archive::diff(left.as_ref().map(AsFd::as_fd), right.as_fd(), &mut compressor)?;
        }
    }
    let (output, diff_id) = compressor.finish().context(|| "end compression")?;
    let output = output.into_inner().map_err(io::IntoInnerError::into_error);
    Ok((output.context(|| "write the layer")?.0, diff_id))
}

/// A name for an ingest that nobody else has.
fn unique_reference() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("get random bytes: {e}")))?;
    Ok(format!("diff-{:016x}", u64::from_ne_bytes(bytes)))
}

/// A content writer as an output.
struct Output(ContentWriter);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
