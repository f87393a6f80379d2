//! What is removed, and in which order.

use std::collections::{HashMap, HashSet};
use std::thread::ScopedJoinHandle;

use berth_content::{ContentStore, Info as Blob};
use berth_snapshotter::Info;
use berth_store::redb::WriteTransaction;
use berth_types::{Digest, Error, Kind, Result};

use crate::gc::mark::{Node, NodeKind};
use crate::gc::{AllSnapshots, Collected};
use crate::leases;
use crate::records::Source;
use crate::rows::{CONTENT, IMAGES, INGESTS};

/// Deletes the rows of `garbage`. Snapshots have none here.
pub(super) fn rows(transaction: &WriteTransaction, garbage: &[Node]) -> Result<()> {
    for Node { kind, namespace, key } in garbage {
        match kind {
            NodeKind::Content => CONTENT.delete(transaction, namespace, key)?,
            NodeKind::Image => IMAGES.delete(transaction, namespace, key)?,
            NodeKind::Ingest => INGESTS.delete(transaction, namespace, key)?,
            NodeKind::Lease => leases::remove(transaction, namespace, key)?,
            NodeKind::Container | NodeKind::Sandbox | NodeKind::Snapshot(_) => {}
        }
    }
    Ok(())
}

pub(super) fn report(collected: &mut Collected, Node { kind, namespace, key }: &Node) {
    let list = match kind {
        NodeKind::Content => &mut collected.content,
        NodeKind::Image => &mut collected.images,
        NodeKind::Ingest => &mut collected.ingests,
        NodeKind::Lease => &mut collected.leases,
        NodeKind::Container | NodeKind::Sandbox | NodeKind::Snapshot(_) => return,
    };
    list.push((namespace.clone(), key.clone()));
}

/// Orders snapshots so that each comes before its parent.
pub(super) fn children_first<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    snapshots: &AllSnapshots,
) -> Vec<&'a Node> {
    let mut by_depth = Vec::new();
    let parents: HashMap<&str, HashMap<&str, &str>> = snapshots
        .iter()
        .map(|(name, infos)| (name.as_str(), infos.iter().map(key_and_parent).collect()))
        .collect();
    for node in nodes {
        let Some((snapshotter, key)) = node.as_snapshot() else { continue };
        let Some(parents) = parents.get(snapshotter) else { continue };
        let global = format!("{}/{key}", node.namespace);
        let mut depth = 0;
        let mut above = parents.get(global.as_str());
        while let Some(parent) = above
            && depth < parents.len()
        {
            depth += 1;
            above = parents.get(parent);
        }
        by_depth.push((depth, node));
    }
    by_depth.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    by_depth.into_iter().map(|(_, node)| node).collect()
}

fn key_and_parent(info: &Info) -> (&str, &str) {
    (&info.key, &info.parent)
}

/// What rows name in the content store.
#[derive(Default)]
pub(crate) struct Named {
    blobs: HashSet<String>,
    ingests: HashSet<String>,
}

impl Named {
    pub(crate) fn read(source: &impl Source) -> Result<Self> {
        let mut named = Self::default();
        CONTENT.each(source, |_, digest, _| {
            named.blobs.insert(digest.to_owned());
            Ok(())
        })?;
        INGESTS.each(source, |_, _, ingest| {
            named.ingests.insert(ingest.backend);
            named.blobs.insert(ingest.expected);
            Ok(())
        })?;
        Ok(named)
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest.as_str())
    }

    /// Removes all other blobs and ingests; returns the blobs and how many bytes they had.
    pub(super) fn remove_others(&self, content: &ContentStore) -> Result<(Vec<Digest>, u64)> {
        let mut others = Vec::new();
        content.walk(|info| {
            if !self.blobs.contains(info.digest.as_str()) {
                others.push(info);
            }
            Ok(())
        })?;
        let removed = remove_blobs(content, &others)?;
        for status in content.statuses(|status| !self.ingests.contains(&status.reference))? {
            there(content.abort(&status.reference))?;
        }
        let bytes = removed.iter().map(|blob| blob.size).sum();
        Ok((removed.into_iter().map(|blob| blob.digest.clone()).collect(), bytes))
    }
}

/// How many files are removed at once: where the filesystem discards freed blocks right away
/// (ext4(5), `discard`), a removal waits for the device, for milliseconds.
const REMOVALS: usize = 16;

/// Removes blobs; returns those that were there.
fn remove_blobs<'a>(content: &ContentStore, blobs: &'a [Blob]) -> Result<Vec<&'a Blob>> {
    let remove = |part: &'a [Blob]| -> Result<Vec<&'a Blob>> {
        let mut removed = Vec::with_capacity(part.len());
        for blob in part {
            if there(content.delete(&blob.digest))? {
                removed.push(blob);
            }
        }
        Ok(removed)
    };
    let part = blobs.len().div_ceil(REMOVALS).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            blobs.chunks(part).map(|part| scope.spawn(move || remove(part))).collect();
        let join = |part: ScopedJoinHandle<'_, _>| {
            part.join().map_err(|_| Error::internal("a thread that removes blobs failed"))?
        };
        Ok(parts.into_iter().map(join).collect::<Result<Vec<_>>>()?.concat())
    })
}

/// Whether a removal found something.
fn there(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
