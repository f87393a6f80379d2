//! containerd's API as any gRPC client sees it, one file for each service. What is expected here
//! holds for Debian's containerd too, unless a test says that it is berth's alone.

mod containers;
mod content;
mod controller;
mod crowds;
mod diff;
mod discard;
mod events;
mod gc;
mod health;
mod images;
mod introspection;
mod leases;
mod mounts;
mod namespaces;
mod nowhere;
mod refusals;
mod sandbox_proxies;
mod sandboxes;
mod sharing;
mod snapshots;
mod tasks;
mod transfer;

use std::collections::HashMap;

use berth_tests::{Engine, Flavor};
use prost_types::FieldMask;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

/// One client of one engine.
struct Api {
    engine: Engine,
    channel: Channel,
}

impl Api {
    /// A client of the engine that the environment asks for.
    async fn start() -> Self {
        Self::of(Engine::start()).await
    }

    async fn of(engine: Engine) -> Self {
        let channel = Self::connect(&engine).await;
        Self { engine, channel }
    }

    async fn connect(engine: &Engine) -> Channel {
        let address = engine.address();
        let connector = tower::service_fn(move |_: Uri| {
            let address = address.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(address).await?;
                std::io::Result::Ok(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        endpoint.connect_with_connector(connector).await.unwrap()
    }

    /// A request in the test's namespace.
    fn request<T>(&self, message: T) -> Request<T> {
        self.request_in(self.engine.namespace(), message)
    }

    fn request_in<T>(&self, namespace: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = MetadataValue::try_from(namespace).unwrap();
        request.metadata_mut().insert("containerd-namespace", value);
        request
    }

    /// A request in the test's namespace whose results a lease keeps.
    fn leased<T>(&self, lease: &str, message: T) -> Request<T> {
        let mut request = self.request(message);
        let value = MetadataValue::try_from(lease).unwrap();
        request.metadata_mut().insert("containerd-lease", value);
        request
    }

    /// Checks a code. containerd has none for some errors, where berth has one.
    #[track_caller]
    fn check(&self, code: Code, expected: Code) {
        let none = self.engine.flavor() == Flavor::Containerd && code == Code::Unknown;
        assert!(code == expected || none, "{code:?} instead of {expected:?}");
    }

    /// A client of one service.
    fn client<C>(&self, new: impl FnOnce(Channel) -> C) -> C {
        new(self.channel.clone())
    }
}

/// The code of a call that failed; `Ok` when it did not.
fn code<T>(result: Result<Response<T>, Status>) -> Code {
    result.err().map_or(Code::Ok, |status| status.code())
}

fn labels(entries: &[(&str, &str)]) -> HashMap<String, String> {
    entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| path.to_string()).collect() })
}

/// A label that is longer than any may be.
fn oversize() -> HashMap<String, String> {
    labels(&[("key", &"v".repeat(4096))])
}
