//! Who refers to whom.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use berth_store::DbResultExt;
use berth_store::redb::ReadableTable;
use berth_types::Result;
use berth_types::labels::{GC_EXPIRE, GC_FLAT, GC_REF_CONTENT, GC_REF_SNAPSHOT, GC_ROOT};

use crate::gc::AllSnapshots;
use crate::records::Source;
use crate::rows::{CONTAINERS, CONTENT, IMAGES, INGESTS, LEASES, SANDBOXES};
use crate::schema::LEASE_RESOURCES;

/// Prefix: an image that this record keeps, by name.
const GC_REF_IMAGE: &str = "containerd.io/gc.ref.image";
/// Prefixes: what keeps this record.
const GC_BREF_CONTAINER: &str = "containerd.io/gc.bref.container";
const GC_BREF_CONTENT: &str = "containerd.io/gc.bref.content";
const GC_BREF_IMAGE: &str = "containerd.io/gc.bref.image";
const GC_BREF_SNAPSHOT: &str = "containerd.io/gc.bref.snapshot";

/// A record that may be garbage, or that keeps others from being it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) namespace: String,
    /// The digest, name, id or ref.
    pub(crate) key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NodeKind {
    Container,
    Content,
    Image,
    Ingest,
    Lease,
    Sandbox,
    /// Of the snapshotter with this name.
    Snapshot(String),
}

impl Node {
    fn new(kind: NodeKind, namespace: &str, key: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), key: key.to_owned() }
    }

    /// The snapshotter and the key of a snapshot.
    pub(crate) fn as_snapshot(&self) -> Option<(&str, &str)> {
        match &self.kind {
            NodeKind::Snapshot(snapshotter) => Some((snapshotter, &self.key)),
            _ => None,
        }
    }
}

/// All records and their references.
#[derive(Default)]
pub(crate) struct Graph {
    /// What can be collected.
    collectable: Vec<Node>,
    roots: Vec<Node>,
    /// Roots that keep what they can't be without, but not what their labels name.
    flat_roots: Vec<Node>,
    /// What a node can't be without.
    needs: HashMap<Node, Vec<Node>>,
    /// What a node keeps by a label.
    labelled: HashMap<Node, Vec<Node>>,
}

impl Graph {
    /// Reads the records as they are at `now`.
    pub(crate) fn read(
        source: &impl Source,
        snapshots: &AllSnapshots,
        now: SystemTime,
    ) -> Result<Self> {
        let mut graph = Self::default();
        graph.read_leases(source, now)?;
        graph.read_images(source, now)?;
        graph.read_containers(source)?;
        graph.read_sandboxes(source)?;
        graph.read_content(source, now)?;
        graph.read_snapshots(snapshots);
        Ok(graph)
    }

    /// What no root leads to.
    pub(crate) fn garbage(self) -> Vec<Node> {
        let mut kept = HashSet::new();
        self.follow(self.roots.clone(), true, &mut kept);
        self.follow(self.flat_roots.clone(), false, &mut kept);
        self.collectable.into_iter().filter(|node| !kept.contains(node)).collect()
    }

    /// Adds `roots` and what they lead to, to `kept`; through labels only if `by_label`.
    fn follow(&self, mut roots: Vec<Node>, by_label: bool, kept: &mut HashSet<Node>) {
        while let Some(node) = roots.pop() {
            if kept.contains(&node) {
                continue;
            }
            roots.extend(self.needs.get(&node).into_iter().flatten().cloned());
            if by_label {
                roots.extend(self.labelled.get(&node).into_iter().flatten().cloned());
            }
            kept.insert(node);
        }
    }

    fn read_leases(&mut self, source: &impl Source, now: SystemTime) -> Result<()> {
        let mut flat = HashMap::new();
        LEASES.each(source, |ns, id, lease| {
            let node = Node::new(NodeKind::Lease, ns, id);
            if !expired(lease.labels.get(GC_EXPIRE), now) {
                self.roots.push(node.clone());
                let key = (ns.to_owned(), id.to_owned());
                flat.insert(key, lease.labels.contains_key(GC_FLAT));
            }
            self.collectable.push(node);
            Ok(())
        })?;
        for row in source.open(LEASE_RESOURCES)?.iter().db()? {
            let (key, _) = row.db()?;
            let (ns, lease, kind, id) = key.value();
            let Some(flat) = flat.get(&(ns.to_owned(), lease.to_owned())) else { continue };
            let Some(kind) = resource_kind(kind) else { continue };
            let roots = if *flat { &mut self.flat_roots } else { &mut self.roots };
            roots.push(Node::new(kind, ns, id));
        }
        Ok(())
    }

    fn read_images(&mut self, source: &impl Source, now: SystemTime) -> Result<()> {
        IMAGES.each(source, |ns, name, image| {
            let node = Node::new(NodeKind::Image, ns, name);
            if !expired(image.labels.get(GC_EXPIRE), now) {
                self.roots.push(node.clone());
            }
            if let Some(target) = image.target {
                self.need(&node, Node::new(NodeKind::Content, ns, &target.digest));
            }
            self.read_labels(&node, &image.labels);
            self.collectable.push(node);
            Ok(())
        })
    }

    fn read_containers(&mut self, source: &impl Source) -> Result<()> {
        CONTAINERS.each(source, |ns, id, container| {
            let node = Node::new(NodeKind::Container, ns, id);
            if !container.snapshotter.is_empty() {
                let kind = NodeKind::Snapshot(container.snapshotter);
                self.need(&node, Node::new(kind, ns, &container.snapshot_key));
            }
            self.read_labels(&node, &container.labels);
            self.roots.push(node);
            Ok(())
        })
    }

    /// Sandboxes are roots, and keep what their labels name.
    fn read_sandboxes(&mut self, source: &impl Source) -> Result<()> {
        SANDBOXES.each(source, |ns, id, sandbox| {
            let node = Node::new(NodeKind::Sandbox, ns, id);
            self.read_labels(&node, &sandbox.labels);
            self.roots.push(node);
            Ok(())
        })
    }

    fn read_content(&mut self, source: &impl Source, now: SystemTime) -> Result<()> {
        INGESTS.each(source, |ns, reference, ingest| {
            let node = Node::new(NodeKind::Ingest, ns, reference);
            let live = ingest.expires.and_then(|expires| SystemTime::try_from(expires).ok());
            if live.is_some_and(|expires| expires > now) {
                self.roots.push(node.clone());
            }
            if !ingest.expected.is_empty() {
                self.need(&node, Node::new(NodeKind::Content, ns, &ingest.expected));
            }
            self.collectable.push(node);
            Ok(())
        })?;
        CONTENT.each(source, |ns, digest, info| {
            let node = Node::new(NodeKind::Content, ns, digest);
            self.read_labels(&node, &info.labels);
            self.collectable.push(node);
            Ok(())
        })
    }

    fn read_snapshots(&mut self, snapshots: &AllSnapshots) {
        for (snapshotter, infos) in snapshots {
            for info in infos {
                // Other keys than the daemon's own are somebody else's.
                let Some((ns, key)) = info.key.split_once('/') else { continue };
                let kind = NodeKind::Snapshot(snapshotter.clone());
                let node = Node::new(kind.clone(), ns, key);
                if let Some((ns, parent)) = info.parent.split_once('/') {
                    self.need(&node, Node::new(kind, ns, parent));
                }
                self.read_labels(&node, &info.labels);
                self.collectable.push(node);
            }
        }
    }

    fn need(&mut self, node: &Node, needed: Node) {
        self.needs.entry(node.clone()).or_default().push(needed);
    }

    fn read_labels<'a>(
        &mut self,
        node: &Node,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) {
        for (label, value) in labels {
            if label.starts_with(GC_ROOT) {
                // Images and containers are roots, or not, by themselves.
                if matches!(node.kind, NodeKind::Content | NodeKind::Snapshot(_)) {
                    self.roots.push(node.clone());
                }
            } else if let Some(kind) = referred(label, REFERENCES) {
                let to = Node::new(kind, &node.namespace, value);
                self.labelled.entry(node.clone()).or_default().push(to);
            } else if let Some(kind) = referred(label, BACK_REFERENCES) {
                let from = Node::new(kind, &node.namespace, value);
                self.labelled.entry(from).or_default().push(node.clone());
            }
        }
    }
}

/// Prefixes of labels that name a record, and its kind.
type References = &'static [(&'static str, NodeKind)];

const REFERENCES: References = &[
    (GC_REF_CONTENT, NodeKind::Content),
    (GC_REF_IMAGE, NodeKind::Image),
    (GC_REF_SNAPSHOT, NodeKind::Snapshot(String::new())),
];

const BACK_REFERENCES: References = &[
    (GC_BREF_CONTAINER, NodeKind::Container),
    (GC_BREF_CONTENT, NodeKind::Content),
    (GC_BREF_IMAGE, NodeKind::Image),
    (GC_BREF_SNAPSHOT, NodeKind::Snapshot(String::new())),
];

/// The kind of record that a label names: `PREFIX`, `PREFIX.any` and `PREFIX/any`, and for
/// snapshots `PREFIX.SNAPSHOTTER` and `PREFIX.SNAPSHOTTER/any`.
fn referred(label: &str, references: References) -> Option<NodeKind> {
    let (rest, kind) = references
        .iter()
        .find_map(|(prefix, kind)| label.strip_prefix(prefix).map(|rest| (rest, kind)))?;
    match kind {
        NodeKind::Snapshot(_) => {
            let name = rest.strip_prefix('.')?.split('/').next()?;
            Some(NodeKind::Snapshot(name.to_owned()))
        }
        kind if rest.is_empty() || rest.starts_with(['.', '/']) => Some(kind.clone()),
        _ => None,
    }
}

fn resource_kind(kind: &str) -> Option<NodeKind> {
    match kind.split_once('/') {
        None if kind == "content" => Some(NodeKind::Content),
        None if kind == "images" => Some(NodeKind::Image),
        None if kind == "ingests" => Some(NodeKind::Ingest),
        Some(("snapshots", snapshotter)) => Some(NodeKind::Snapshot(snapshotter.to_owned())),
        _ => None,
    }
}

/// Whether an RFC 3339 time has passed. What is not a time never passes, so that a typing
/// mistake deletes nothing.
fn expired(label: Option<&String>, now: SystemTime) -> bool {
    let time = label.and_then(|label| label.parse::<jiff::Timestamp>().ok());
    time.and_then(|time| SystemTime::try_from(time).ok()).is_some_and(|time| time < now)
}
