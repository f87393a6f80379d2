//! Snapshots as containerd's API has them.

use std::time::SystemTime;

use berth_proto::containerd::services::snapshots::v1 as wire;
use berth_proto::containerd::types;

use crate::contract::{Info, Kind, Mount, Usage};

/// Records in one message of a list.
const BATCH: usize = 100;

/// A record for a client.
pub fn info(info: Info) -> wire::Info {
    let kind = match info.kind {
        Kind::View => wire::Kind::View,
        Kind::Active => wire::Kind::Active,
        Kind::Committed => wire::Kind::Committed,
    };
    wire::Info {
        name: info.key,
        parent: info.parent,
        kind: kind.into(),
        created_at: Some(info.created.into()),
        updated_at: Some(info.updated.into()),
        labels: info.labels.into_iter().collect(),
    }
}

/// Records for a client, in the messages of a list.
pub fn lists(found: Vec<Info>) -> Vec<wire::ListSnapshotsResponse> {
    let infos: Vec<_> = found.into_iter().map(info).collect();
    let list = |batch: &[wire::Info]| wire::ListSnapshotsResponse { info: batch.to_vec() };
    infos.chunks(BATCH).map(list).collect()
}

/// What a snapshot takes on the disk, for a client.
pub fn usage(usage: Usage) -> wire::UsageResponse {
    let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
    wire::UsageResponse { size: number(usage.size), inodes: number(usage.inodes) }
}

/// A record from a server.
pub(crate) fn read_info(info: wire::Info) -> Info {
    let kind = match info.kind() {
        wire::Kind::View => Kind::View,
        wire::Kind::Committed => Kind::Committed,
        wire::Kind::Active | wire::Kind::Unknown => Kind::Active,
    };
    let time = |time: Option<prost_types::Timestamp>| {
        time.and_then(|time| SystemTime::try_from(time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    Info {
        kind,
        key: info.name,
        parent: info.parent,
        labels: info.labels.into_iter().collect(),
        created: time(info.created_at),
        updated: time(info.updated_at),
    }
}

/// Mounts for a client.
pub fn mounts(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let mount = |Mount { kind, source, options }| types::Mount {
        r#type: kind,
        source,
        target: String::new(),
        options,
    };
    mounts.into_iter().map(mount).collect()
}

/// Mounts from a server.
pub(crate) fn read_mounts(mounts: Vec<types::Mount>) -> Vec<Mount> {
    let mount =
        |types::Mount { r#type: kind, source, options, .. }| Mount { kind, source, options };
    mounts.into_iter().map(mount).collect()
}
