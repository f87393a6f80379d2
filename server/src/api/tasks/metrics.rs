//! What tasks consume.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;

use berth_proto::containerd::types::Metric;
use berth_tasks::Task;
use berth_types::filter::{Fields, Filter};
use berth_types::{Kind, Result};

/// The figures of those `tasks` that pass `filters`, which know `id` and `namespace`. All are
/// asked at once; those that end meanwhile are left out.
///
/// # Errors
/// `InvalidArgument` for a malformed filter.
pub(super) async fn collect(tasks: Vec<Arc<Task>>, filters: &[String]) -> Result<Vec<Metric>> {
    let filter = Filter::parse(filters)?;
    let wanted = tasks.iter().filter(|task| filter.matches(&View(task)));
    let metrics = wanted.map(|task| async move {
        match task.stats().await {
            Ok(data) => Some(Metric {
                timestamp: Some(SystemTime::now().into()),
                id: task.id().to_owned(),
                data: Some(data),
            }),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => None,
            Err(error) => {
                tracing::warn!(id = task.id(), %error, "a task has no metrics");
                None
            }
        }
    });
    Ok(join_all(metrics).await.into_iter().flatten().collect())
}

/// A task as filters see it.
struct View<'a>(&'a Task);

impl Fields for View<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path {
            [name] if name == "id" => Some(self.0.id()),
            [name] if name == "namespace" => Some(self.0.namespace()),
            _ => None,
        }
    }
}
