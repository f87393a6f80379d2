//! How far a pull or push is, layer by layer.

use std::fmt;
use std::sync::Arc;

use berth_types::Digest;
use berth_types::image::Descriptor;

/// What happens to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing yet.
    Waiting,
    /// Its bytes are sent to a registry.
    Uploading,
    /// Its bytes arrive, and are unpacked as they do.
    Downloading,
    /// All bytes are there; it is unpacked.
    Extracting,
    /// It is there now.
    Done,
    /// It was there before.
    Exists,
}

/// How far a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// The blob.
    pub digest: Digest,
    /// What happens to it.
    pub phase: Phase,
    /// Bytes of the blob fetched or sent so far.
    pub current: u64,
    /// Bytes of the blob.
    pub total: u64,
}

/// Whom to tell. The function is called often, from several threads, and must not block.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(LayerProgress) + Send + Sync>>);

impl Progress {
    /// Tells `listener`.
    pub fn new(listener: impl Fn(LayerProgress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// Tells no one.
    pub fn silent() -> Self {
        Self::default()
    }

    pub(crate) fn tell(&self, blob: &Descriptor, phase: Phase, current: u64) {
        if let Some(listener) = &self.0 {
            let (digest, total) = (blob.digest.clone(), blob.size);
            listener(LayerProgress { digest, phase, current, total });
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress" } else { "Progress (silent)" })
    }
}
