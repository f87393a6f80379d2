//! One operation on one image: where its documents come from, and which of them is chosen.

use std::collections::HashMap;

use berth_metadata::{Scope, WriterRequest};
use berth_registry::Repository;
use berth_types::image::{Descriptor, Document, ImageConfig, Index, MAX_SIZE, Manifest, media_type};
use berth_types::{Digest, Error, Kind, Platform, Result, ResultExt};
use tokio_util::sync::CancellationToken;

use crate::progress::Progress;
use crate::puller::Puller;
use crate::record::{self, BlobLabels};
use crate::resolved::Resolved;
use crate::{blocking, stream};
