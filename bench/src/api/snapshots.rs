//! Snapshots without anything in them.

use anyhow::Result;
use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};

use super::{LEASE, ROUNDS, add, rate, rates};
use crate::client::Client;
use crate::peer::Peer;
use crate::table::Table;

const SNAPSHOTS: usize = 1000;

/// The one that both engines have.
const SNAPSHOTTER: &str = "overlayfs";

pub(super) fn measure(peers: &[Peer], table: &mut Table) -> Result<()> {
    let figures = rates(ROUNDS, peers, async |client| {
        rate(SNAPSHOTS, move |number| live(client.clone(), number)).await
    })?;
    add(table, "snapshot prepared, committed and removed", "/s", &figures);
    Ok(())
}

/// The life of one snapshot.
async fn live(client: Client, number: usize) -> Result<()> {
    let mut snapshots = SnapshotsClient::new(client.channel.clone());
    let (key, name) = (format!("key-{number}"), format!("name-{number}"));
    let snapshotter = SNAPSHOTTER.to_owned();
    let prepare = PrepareSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: key.clone(),
        ..Default::default()
    };
    snapshots.prepare(client.leased(LEASE, prepare)?).await?;
    let commit = CommitSnapshotRequest {
        snapshotter: snapshotter.clone(),
        name: name.clone(),
        key,
        ..Default::default()
    };
    snapshots.commit(client.leased(LEASE, commit)?).await?;
    let remove = RemoveSnapshotRequest { snapshotter, key: name };
    snapshots.remove(client.request(remove)?).await?;
    Ok(())
}
