//! `containerd.services.sandbox.v1`: environments that containers share.

mod controller;
mod proxy;
mod store;

pub(crate) use controller::Controller;
pub(crate) use proxy::Sandboxer;
pub(crate) use store::Store;
