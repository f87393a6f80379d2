//! From a container's record alone to its task.

use berth_metadata::Scope;
use berth_proto::containerd::services::containers::v1::Container;
use berth_snapshotter::wire;
use berth_tasks::Create;
use berth_types::Result;

/// The task of `container`, on its own snapshot and with its output to the URI `output`.
///
/// # Errors
/// Those of the snapshotter.
pub(super) async fn of_container(
    scope: &Scope,
    container: &Container,
    output: &str,
) -> Result<Create> {
    let Container { id, runtime, spec, snapshotter, snapshot_key, .. } = container.clone();
    let mounts = match snapshot_key.as_str() {
        "" => Vec::new(),
        key => scope.snapshots(&snapshotter)?.mounts(key).await?,
    };
    let runtime = runtime.unwrap_or_default();
    Ok(Create {
        namespace: scope.namespace().to_owned(),
        id,
        runtime: runtime.name,
        spec: spec.unwrap_or_default().value,
        options: runtime.options,
        rootfs: wire::mounts(mounts),
        stdout: output.to_owned(),
        stderr: output.to_owned(),
        ..Create::default()
    })
}
