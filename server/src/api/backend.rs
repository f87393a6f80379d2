//! What the services over metadata share: whom a call is for, how it changes something, and who
//! hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Name;
use tonic::Status;
use tonic::metadata::MetadataMap;

use berth_engine::Engine;
use berth_events::Exchange;
use berth_metadata::{Metadata, Scope};
use berth_pull::Puller;
use berth_tasks::Tasks;
use berth_types::Result;

use super::diff::Differ;
use super::sandbox::Sandboxer;
use super::status::status;
use super::streaming::Streams;
use super::tenant;
use crate::collect::Collector;
use crate::config::StreamProcessor;
use crate::operations::Operations;

/// The parts of the daemon that services stand on. Clones share them.
#[derive(Clone)]
pub(crate) struct Backend {
    /// The records.
    pub(crate) metadata: Metadata,
    /// Who brings images.
    pub(crate) puller: Puller,
    /// What runs.
    pub(crate) tasks: Tasks,
    /// What Docker users expect above those.
    pub(crate) engine: Engine,
    /// Who hears of changes.
    pub(crate) events: Exchange,
    /// The calls under way.
    pub(crate) operations: Operations,
    /// Who removes what is no longer needed.
    pub(crate) collector: Collector,
    /// Programs that make layers of other blobs, by their names.
    pub(crate) processors: Arc<BTreeMap<String, StreamProcessor>>,
    /// Who is asked for what berth's own differ does not do.
    pub(crate) differs: Arc<Vec<Differ>>,
    /// Who keeps the sandboxes that berth's own controller does not.
    pub(crate) sandboxers: Arc<Vec<Sandboxer>>,
    /// The streams that clients have opened beside their calls.
    pub(crate) streams: Streams,
}

impl Backend {
    /// The namespace, perhaps with a lease, that a call with this metadata is for.
    ///
    /// # Errors
    /// `FailedPrecondition` when it names no namespace, `InvalidArgument` for a malformed name.
    pub(crate) fn scope(&self, metadata: &MetadataMap) -> Result<Scope, Status> {
        let namespace = tenant::namespace(metadata).map_err(status)?;
        self.metadata.scope(&namespace, tenant::lease(metadata).as_deref()).map_err(status)
    }

    /// Runs a change that goes on even when its caller is gone; see [`Operations`].
    ///
    /// # Errors
    /// Those of [`scope`](Self::scope) and of the change.
    pub(crate) async fn change<T, F>(
        &self,
        metadata: &MetadataMap,
        change: impl FnOnce(Self, Scope) -> F,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let scope = self.scope(metadata)?;
        self.operations.run(change(self.clone(), scope)).await.map_err(status)
    }

    /// Tells subscribers of a change that is made. The change stands even if nobody can be told.
    pub(crate) fn publish(&self, namespace: &str, topic: &str, event: &impl Name) {
        if let Err(error) = self.events.publish(namespace, topic, event) {
            tracing::warn!(%error, topic, "an event could not be published");
        }
    }
}
