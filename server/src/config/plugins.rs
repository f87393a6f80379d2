//! What containerd's configuration says below `[plugins]`, as far as berth has the thing.

use serde::{Deserialize, Serialize};

/// Plugins of containerd.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Plugins {
    /// Images, since version 3 of the layout.
    #[serde(rename = "io.containerd.cri.v1.images")]
    pub(crate) images: Images,
    /// The same, and more, in version 2.
    #[serde(rename = "io.containerd.grpc.v1.cri")]
    pub(crate) cri: Cri,
    /// The snapshotter `erofs`.
    #[serde(rename = "io.containerd.snapshotter.v1.erofs")]
    pub(crate) erofs: Erofs,
    /// The records.
    #[serde(rename = "io.containerd.metadata.v1.bolt")]
    pub(crate) records: Records,
}

/// The records.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Records {
    /// Who gets a blob for its digest.
    pub(crate) content_sharing_policy: Sharing,
}

/// Whether namespaces share their blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sharing {
    /// Each namespace gets what any of them has.
    #[default]
    Shared,
    /// Only what a namespace's label opens to all.
    Isolated,
}

/// How images are kept.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Images {
    /// Drop the blobs of layers once a pull has unpacked them.
    pub(crate) discard_unpacked_layers: bool,
}

/// Kubernetes' interface in version 2.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Cri {
    /// Where images were told of.
    pub(crate) containerd: Images,
}

/// The snapshotter `erofs`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Erofs {
    /// Protect the images of layers by fs-verity, where the filesystem of the root has it.
    pub(crate) enable_fsverity: bool,
}

impl Plugins {
    /// Whether the blobs of layers are dropped once they are unpacked.
    pub(crate) fn discard_unpacked_layers(&self) -> bool {
        self.images.discard_unpacked_layers || self.cri.containerd.discard_unpacked_layers
    }

    /// The same in the newest layout.
    pub(crate) fn migrated(self) -> Self {
        let images = Images { discard_unpacked_layers: self.discard_unpacked_layers() };
        Self { images, cri: Cri::default(), ..self }
    }
}
