//! Per-namespace records: images, containers, content membership, labels, leases and garbage collection.
