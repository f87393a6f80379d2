//! The content store: blobs and ingests as files.
