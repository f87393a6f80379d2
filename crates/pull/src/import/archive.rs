//! The members of an image archive, put into the content store.

use std::collections::HashMap;
use std::io::Read;

use berth_archive::{Decompress, Entries, Entry, EntryKind, Limits};
use berth_metadata::{ContentWriter, Scope, WriterRequest};
use berth_types::image::MAX_SIZE;
use berth_types::{Digest, Error, Kind, Result};
use tokio::runtime::Handle;

use crate::blocking;

/// Symbolic links that are followed to a member; older versions of `docker save` write one for
/// each layer that images share.
const MAX_LINKS: usize = 8;

/// An archive whose files are blobs now, kept by the lease of the scope.
#[derive(Default)]
pub(super) struct Archive {
    files: HashMap<String, Stored>,
    links: HashMap<String, String>,
    /// The files that say what is in the archive.
    documents: HashMap<String, Vec<u8>>,
}

/// A file of the archive.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Archive {
    /// Reads an archive to its end.
    pub(super) async fn store(scope: Scope, reader: impl Read + Send + 'static) -> Result<Self> {
        let runtime = Handle::current();
        blocking(move || {
            let mut entries = Entries::new(Decompress::new(reader)?, Limits::default());
            let mut archive = Self::default();
            while let Some(entry) = entries.next_entry()? {
                archive.add(&scope, &runtime, &entry, &mut entries)?;
            }
            Ok(archive)
        })
        .await
    }

    /// A document about the archive, by its path.
    pub(super) fn document(&self, path: &str) -> Option<&[u8]> {
        self.documents.get(path).map(Vec::as_slice)
    }

    /// A file by its path, links followed.
    ///
    /// # Errors
    /// `InvalidArgument` when the archive doesn't have it.
    pub(super) fn file(&self, path: &str) -> Result<&Stored> {
        let mut at = path;
        for _ in 0..MAX_LINKS {
            match (self.files.get(at), self.links.get(at)) {
                (Some(stored), _) => return Ok(stored),
                (None, Some(target)) => at = target,
                (None, None) => break,
            }
        }
        Err(Error::invalid_argument(format!("the archive lacks {path:?}, which it refers to")))
    }

    fn add<R: Read>(
        &mut self,
        scope: &Scope,
        runtime: &Handle,
        entry: &Entry,
        entries: &mut Entries<R>,
    ) -> Result<()> {
        let Ok(path) = String::from_utf8(entry.path.clone()) else { return Ok(()) };
        match &entry.kind {
            EntryKind::File if matches!(path.as_str(), "index.json" | "manifest.json") => {
                let bytes = read_small(&path, entry, entries)?;
                self.documents.insert(path, bytes);
            }
            EntryKind::File => {
                let stored = store_file(scope, runtime, &path, entry, entries)?;
                self.files.insert(path, stored);
            }
            EntryKind::Symlink(target) => {
                let target = String::from_utf8_lossy(target);
                self.links.insert(path.clone(), beside(&path, &target));
            }
            EntryKind::HardLink(target) => {
                let target = String::from_utf8_lossy(target).into_owned();
                self.links.insert(path, target);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What the relative path `target` means in a link at `path`.
fn beside(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn read_small<R: Read>(path: &str, entry: &Entry, entries: &mut Entries<R>) -> Result<Vec<u8>> {
    if entry.size > MAX_SIZE {
        return Err(Error::invalid_argument(format!(
            "{path} in the archive has {} bytes, the most is {MAX_SIZE}",
            entry.size
        )));
    }
    let mut bytes = Vec::new();
    entries.write_data(|_, chunk| {
        bytes.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok(bytes)
}

fn store_file<R: Read>(
    scope: &Scope,
    runtime: &Handle,
    path: &str,
    entry: &Entry,
    entries: &mut Entries<R>,
) -> Result<Stored> {
    let expected = named_digest(path)?;
    let random = getrandom::u64()
        .map_err(|e| Error::internal(format!("no random numbers for an ingest: {e}")))?;
    let request = WriterRequest {
        reference: format!("import-{random:016x}"),
        total: entry.size,
        expected: expected.clone(),
    };
    let mut writer = match (runtime.block_on(scope.content().writer(request)), expected.clone()) {
        (Err(error), Some(digest)) if error.kind() == Kind::AlreadyExists => {
            return Ok(Stored { digest, size: entry.size });
        }
        (writer, _) => writer?,
    };
    // Another namespace's blob is there to its end.
    if writer.status().offset == 0 {
        copy(path, entries, &mut writer)?;
    }
    let digest = expected.unwrap_or_else(|| writer.digest());
    // The lease goes with a failure, and the ingest with the lease.
    match runtime.block_on(writer.commit(entry.size, Some(digest.clone()), HashMap::new())) {
        Err(error) if error.kind() != Kind::AlreadyExists => {
            Err(error.context(format!("{path} in the archive")))
        }
        _ => Ok(Stored { digest, size: entry.size }),
    }
}

fn copy<R: Read>(path: &str, entries: &mut Entries<R>, writer: &mut ContentWriter) -> Result<()> {
    entries.write_data(|offset, chunk| {
        if offset != writer.status().offset {
            return Err(Error::invalid_argument(format!("{path} in the archive has holes")));
        }
        writer.write(chunk)
    })
}

/// The digest that a path in an OCI layout states.
fn named_digest(path: &str) -> Result<Option<Digest>> {
    let Some(rest) = path.strip_prefix("blobs/") else { return Ok(None) };
    match rest.split_once('/') {
        Some((algorithm, hex)) => format!("{algorithm}:{hex}").parse().map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_to_where_they_are() {
        assert_eq!(beside("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("layer.tar", "b"), "b");
        assert_eq!(beside("a/b", "../../../c"), "c");
    }

    #[test]
    fn paths_of_a_layout_state_digests() {
        let hex = "0".repeat(64);
        assert!(named_digest(&format!("blobs/sha256/{hex}")).unwrap().is_some());
        assert!(named_digest("abc/layer.tar").unwrap().is_none());
        assert!(named_digest("blobs/sha256/../../x").is_err());
    }
}
