//! Snapshotters: the contract, the overlayfs implementation and the conformance suite.
