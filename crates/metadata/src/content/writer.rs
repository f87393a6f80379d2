//! Writers of a namespace: an ingest in the content store and a row about it, or only the row
//! when the blob is there already.

use std::io::Read;
use std::time::SystemTime;

use berth_content::{ContentStore, Status, Writer};
use berth_proto::containerd::services::content::v1::Info;
use berth_store::redb::WriteTransaction;
use berth_types::labels::SHAREABLE;
use berth_types::{Digest, Error, Kind, Result, ResultExt};

use crate::content::{Content, ingest};
use crate::leases::{self, Resource};
use crate::rows::CONTENT;
use crate::{Scope, labels, namespaces};

/// What a writer is opened for.
#[derive(Clone, Debug, Default)]
pub struct WriterRequest {
    /// The name of the ingest; one writer at a time has it.
    pub reference: String,
    /// The size that the blob should have, or 0.
    pub total: u64,
    /// The digest that it should have.
    pub expected: Option<Digest>,
}

/// The writer of an ingest. Dropped without a commit it leaves the ingest to be resumed.
pub struct ContentWriter {
    pub(super) scope: Scope,
    pub(super) reference: String,
    pub(super) backend: String,
    pub(super) bytes: Bytes,
}

/// Where the bytes of a writer are.
pub(super) enum Bytes {
    /// In an ingest.
    Own(Box<Writer>),
    /// In a blob that is there already.
    Shared { digest: Digest, status: Status },
}

impl Content<'_> {
    /// Begins or resumes an ingest. When the content store has the expected blob from another
    /// namespace, the writer is at its end at once and need only be committed.
    ///
    /// # Errors
    /// - `AlreadyExists`: the namespace has the expected blob; the lease keeps it now.
    /// - `Unavailable`: another writer has the ref.
    /// - `InvalidArgument` without a ref; `NotFound` when the lease is gone.
    pub async fn writer(&self, request: WriterRequest) -> Result<ContentWriter> {
        if request.reference.is_empty() {
            return Err(Error::invalid_argument("ref must not be empty"));
        }
        let scope = self.0.clone();
        let content = scope.metadata().content.clone();
        let (backend, shared) = {
            // Between finding a blob to share and the row that keeps it, no file is removed.
            let _not_swept = scope.metadata().files.read().await;
            let shared = match &request.expected {
                Some(digest) if self.may_share(digest)? => {
                    ingest::sharable(&content, digest, request.total)?
                }
                _ => None,
            };
            (self.begin(&request, shared.is_some()).await?, shared)
        };
        let reference = request.reference.clone();
        let bytes = match (shared, request.expected) {
            (Some(size), Some(digest)) => shared_bytes(digest, size),
            (_, expected) => {
                let (backend, total) = (backend.clone(), request.total);
                let open = move || open(&content, &backend, total, expected.as_ref());
                Bytes::Own(Box::new(blocking(open).await.context(|| format!("ref {reference}"))?))
            }
        };
        Ok(ContentWriter { scope, reference: request.reference, backend, bytes })
    }

    /// Whether the namespace may have a blob of other namespaces for its digest alone.
    fn may_share(&self, digest: &Digest) -> Result<bool> {
        if !self.0.metadata().isolated {
            return Ok(true);
        }
        let namespaces = self.0.metadata().namespaces().list()?;
        let is_open = |labels: &labels::Map| labels.get(SHAREABLE).is_some_and(|is| is == "true");
        self.0.read(|transaction| {
            for namespace in namespaces.iter().filter(|namespace| is_open(&namespace.labels)) {
                if CONTENT.find(transaction, &namespace.name, digest.as_str())?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    pub(super) async fn begin(&self, request: &WriterRequest, shared: bool) -> Result<String> {
        let (scope, request) = (self.0.clone(), request.clone());
        let begun = self
            .0
            .write(move |transaction| {
                let WriterRequest { reference, expected, .. } = request;
                ingest::begin(transaction, &scope, &reference, expected, shared)
            })
            .await?;
        match begun {
            ingest::Begun::Ingest(backend) => Ok(backend),
            ingest::Begun::Exists(digest) => Err(exists(&digest)),
        }
    }
}

impl ContentWriter {
    /// How far it is.
    pub fn status(&self) -> Status {
        let status = match &self.bytes {
            Bytes::Own(writer) => writer.status(),
            Bytes::Shared { status, .. } => status,
        };
        Status { reference: self.reference.clone(), ..status.clone() }
    }

    /// The digest of the bytes so far.
    pub fn digest(&self) -> Digest {
        match &self.bytes {
            Bytes::Own(writer) => writer.digest(),
            Bytes::Shared { digest, .. } => digest.clone(),
        }
    }

    /// Appends all of `bytes`, or nothing. Blocks on the disk.
    ///
    /// # Errors
    /// `ResourceExhausted` when the disk is full, and others of the disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let size = self.status().offset;
        self.own(size)?.write(bytes)
    }

    /// Cuts the ingest down to its first `size` bytes. Blocks on the disk.
    ///
    /// # Errors
    /// `OutOfRange` when it has fewer; those of the disk.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        self.own(size)?.truncate(size)
    }

    /// Makes a blob of it and lets the namespace see it, with `labels`. `size` 0 and no
    /// `expected` are not checked. Returns the record.
    ///
    /// # Errors
    /// - `FailedPrecondition`: size or digest differ. The ingest stays, to be resumed or aborted.
    /// - `AlreadyExists`: the namespace has such a blob; the lease keeps it and the ingest is
    ///   gone.
    /// - `InvalidArgument` for long labels; `NotFound` when the lease is gone.
    pub async fn commit(
        self,
        size: u64,
        expected: Option<Digest>,
        mut labels: labels::Map,
    ) -> Result<Info> {
        labels::check(&mut labels)?;
        let Self { scope, reference, backend, bytes } = self;
        let bytes = blocking(move || {
            // The long part, before anyone has to wait for it.
            if let Bytes::Own(writer) = &bytes {
                writer.sync()?;
            }
            Ok(bytes)
        })
        .await?;
        // Between the blob and its row, no file is removed.
        let files = scope.metadata().files.clone();
        let _not_swept = files.read().await;
        let named = reference.clone();
        let (digest, size) = blocking(move || bytes.commit(&named, size, expected.as_ref()))
            .await
            .map_err(|error| error.renaming(&backend, &reference))?;
        let committing = scope.clone();
        let found = scope
            .write(move |transaction| {
                admit(transaction, &committing, &reference, digest, size, labels)
            })
            .await?;
        found.map_err(|digest| exists(&digest))
    }

    /// The writer of bytes of its own, which are the first `size` of a shared blob's so far.
    fn own(&mut self, size: u64) -> Result<&mut Writer> {
        if let Bytes::Shared { digest, status } = &self.bytes {
            if size > status.offset {
                return Err(Error::out_of_range(format!(
                    "ref {} has {} bytes, not {size}",
                    self.reference, status.offset
                )));
            }
            let content = &self.scope.metadata().content;
            let mut writer = content.writer(&self.backend, 0, None)?;
            writer.truncate(0)?;
            copy(content, digest, size, &mut writer)?;
            self.bytes = Bytes::Own(Box::new(writer));
        }
        match &mut self.bytes {
            Bytes::Own(writer) => Ok(writer),
            Bytes::Shared { .. } => Err(Error::internal("a shared blob was not copied")),
        }
    }
}

impl Bytes {
    /// Makes a blob of them, or finds that there is one; returns its digest and size.
    fn commit(self, named: &str, size: u64, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let writer = match self {
            Bytes::Own(writer) => writer,
            Bytes::Shared { digest, status } => {
                if size != 0 && size != status.offset {
                    return Err(Error::failed_precondition(format!(
                        "ref {named}: unexpected commit size {}, expected {size}",
                        status.offset
                    )));
                }
                if expected.is_some_and(|expected| *expected != digest) {
                    let error = format!("ref {named}: unexpected commit digest {digest}");
                    return Err(Error::failed_precondition(error));
                }
                return Ok((digest, status.offset));
            }
        };
        let (digest, length) = (writer.digest(), writer.offset());
        match writer.commit(size, expected) {
            // From another namespace.
            Err(error) if error.kind() == Kind::AlreadyExists => Ok((digest, length)),
            Err(error) => Err(error),
            Ok(digest) => Ok((digest, length)),
        }
    }
}

/// Ends an ingest: the namespace may see its blob now. The inner error says that it did before.
fn admit(
    transaction: &WriteTransaction,
    scope: &Scope,
    reference: &str,
    digest: Digest,
    size: u64,
    labels: labels::Map,
) -> Result<Result<Info, Digest>> {
    leases::check(transaction, scope)?;
    let ns = scope.namespace();
    let known = CONTENT.find(transaction, ns, digest.as_str())?.is_some();
    ingest::end(transaction, scope, reference)?;
    leases::keep(transaction, scope, &Resource::content(&digest))?;
    if known {
        return Ok(Err(digest));
    }
    let created_at = labels::now();
    let info = Info {
        digest: digest.as_str().to_owned(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        created_at,
        updated_at: created_at,
        labels,
    };
    namespaces::ensure(transaction, ns)?;
    CONTENT.put(transaction, ns, digest.as_str(), &info)?;
    Ok(Ok(info))
}

/// Opens the ingest in the content store. That another namespace commits the expected blob just
/// now is no error: this namespace still has to send it or share it.
fn open(
    content: &ContentStore,
    backend: &str,
    total: u64,
    expected: Option<&Digest>,
) -> Result<Writer> {
    match content.writer(backend, total, expected) {
        Err(error) if error.kind() == Kind::AlreadyExists => content.writer(backend, total, None),
        result => result,
    }
}

fn shared_bytes(digest: Digest, size: u64) -> Bytes {
    let now = SystemTime::now();
    let status =
        Status { reference: String::new(), offset: size, total: size, started: now, updated: now };
    Bytes::Shared { digest, status }
}

fn copy(content: &ContentStore, digest: &Digest, size: u64, writer: &mut Writer) -> Result<()> {
    let what = || format!("copy content {digest}");
    let mut from = content.reader(digest)?.file.take(size);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer).context(what)? {
            0 => return Ok(()),
            read => writer.write(&buffer[..read])?,
        }
    }
}

fn exists(digest: &Digest) -> Error {
    Error::already_exists(format!("content {digest}: already exists"))
}

/// Runs what blocks on the disk off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(action).await;
    done.map_err(|error| Error::internal(format!("a thread for the disk failed: {error}")))?
}
