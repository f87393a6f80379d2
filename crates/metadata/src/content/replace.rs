//! Bytes that take the place of a damaged or lost blob's. Rows and labels of the blob stay.

use berth_types::{Digest, Error, Result};

use super::ingest;
use super::writer::{Bytes, ContentWriter, WriterRequest, blocking};
use crate::content::Content;

impl Content<'_> {
    /// Begins, or resumes, the ingest `reference` of bytes for a blob that the namespace has a row
    /// of. Commit it by [`ContentWriter::replace`].
    ///
    /// # Errors
    /// `NotFound` without such a row; else as [`writer`](Self::writer).
    pub async fn replacement(
        &self,
        reference: &str,
        total: u64,
        digest: &Digest,
    ) -> Result<ContentWriter> {
        self.info(digest)?;
        let request = WriterRequest { reference: reference.to_owned(), total, expected: None };
        let backend = self.begin(&request, false).await?;
        let content = self.0.metadata().content.clone();
        let (named, digest) = (backend.clone(), digest.clone());
        let writer = blocking(move || content.replacement(&named, total, &digest)).await?;
        Ok(ContentWriter {
            scope: self.0.clone(),
            reference: reference.to_owned(),
            backend,
            bytes: Bytes::Own(Box::new(writer)),
        })
    }
}

impl ContentWriter {
    /// Puts what was written in the place of the blob `digest`, for all namespaces that have it.
    /// Whoever reads that one goes on doing so.
    ///
    /// # Errors
    /// `FailedPrecondition` when size or digest differ: the ingest stays. Those of the disk.
    pub async fn replace(self, size: u64, digest: &Digest) -> Result<()> {
        let Self { scope, reference, bytes, .. } = self;
        let Bytes::Own(writer) = bytes else {
            return Err(Error::internal("a replacement shares what it is to replace"));
        };
        let writer = blocking(move || writer.sync().map(|()| writer)).await?;
        let files = scope.metadata().files.clone();
        let _no_removals = files.read().await;
        let digest = digest.clone();
        blocking(move || writer.replace(size, &digest)).await?;
        let ending = scope.clone();
        scope.write(move |transaction| ingest::end(transaction, &ending, &reference)).await
    }
}
