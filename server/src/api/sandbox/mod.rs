//! `containerd.services.sandbox.v1`: environments that containers share.

mod store;

pub(crate) use store::Store;
