//! How often each method is called and how that ends, under the names that Go's gRPC middleware,
//! and so containerd, gives these counters.
//!
//! All methods are known from the start, so that counting is a look into a map that never changes,
//! and additions to atomic numbers.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use prost::Message;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::body::Body;
use tower::{Layer, Service};

use berth_types::{Error, Result};

/// The names of the status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CANCELED: usize = 1;
const UNKNOWN: usize = 2;

/// The prefix of each message: a flag and the length.
const PREFIX: usize = 5;

/// The counters of all methods.
pub(crate) struct Calls(HashMap<String, Counters>);

#[derive(Default)]
struct Counters {
    /// Type, service and method, as Prometheus writes them.
    labels: String,
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES.len()],
}

/// One counter: its name, the labels and the value.
pub(crate) type Count = (&'static str, String, u64);

impl Calls {
    /// Nothing called yet.
    ///
    /// # Errors
    /// When the service definitions can't be read, which a test would have found.
    pub(crate) fn new() -> Result<Self> {
        let sets = [
            berth_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = HashMap::new();
        for set in sets {
            let set = FileDescriptorSet::decode(set).map_err(|error| {
                Error::internal(format!("read the service definitions: {error}"))
            })?;
            for file in set.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let path = format!("/{service_name}/{}", method.name());
                        let labels = labels(&service_name, method);
                        methods.insert(path, Counters { labels, ..Counters::default() });
                    }
                }
            }
        }
        Ok(Self(methods))
    }

    /// All counters, those of codes only as far as a call has ended with them.
    pub(crate) fn counts(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        let mut methods: Vec<_> = self.0.values().collect();
        methods.sort_by(|a, b| a.labels.cmp(&b.labels));
        for method in methods {
            let Counters { labels, started, received, sent, handled } = method;
            let plain = [
                ("grpc_server_started_total", started),
                ("grpc_server_msg_received_total", received),
                ("grpc_server_msg_sent_total", sent),
            ];
            for (name, counter) in plain {
                counts.push((name, labels.clone(), counter.load(Ordering::Relaxed)));
            }
            for (code, counter) in CODES.iter().zip(handled) {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format!("{labels},grpc_code={code:?}");
                    counts.push(("grpc_server_handled_total", labels, count));
                }
            }
        }
        counts
    }

    /// Begins to count a call; nothing for what is no method.
    fn begin(self: &Arc<Self>, path: &str) -> Option<Arc<Call>> {
        let method = self.0.get(path)?;
        method.started.fetch_add(1, Ordering::Relaxed);
        let (calls, path) = (self.clone(), path.to_owned());
        Some(Arc::new(Call { calls, path, ended: AtomicBool::new(false) }))
    }
}

fn labels(service: &str, method: &MethodDescriptorProto) -> String {
    let kind = match (method.client_streaming(), method.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    };
    format!("grpc_type={kind:?},grpc_service={service:?},grpc_method={:?}", method.name())
}

/// One call, until nobody has to do with it any more.
struct Call {
    calls: Arc<Calls>,
    path: String,
    ended: AtomicBool,
}

impl Call {
    fn count(&self, add: impl FnOnce(&Counters)) {
        if let Some(counters) = self.calls.0.get(&self.path) {
            add(counters);
        }
    }

    /// Counts the end, if the headers or trailers tell of it.
    fn end(&self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            let number = status.to_str().ok().and_then(|text| text.parse().ok());
            self.end_with(number.filter(|number| *number < CODES.len()).unwrap_or(UNKNOWN));
        }
    }

    fn end_with(&self, code: usize) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.count(|counters| {
                counters.handled[code].fetch_add(1, Ordering::Relaxed);
            });
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // The client left before the answer.
        self.end_with(CANCELED);
    }
}

/// Counts what passes; without [`Calls`] it passes uncounted.
#[derive(Clone)]
pub(crate) struct Counting(pub(crate) Option<Arc<Calls>>);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { calls: self.0.clone(), inner }
    }
}

/// A service behind [`Counting`].
#[derive(Clone)]
pub(crate) struct Counted<S> {
    calls: Option<Arc<Calls>>,
    inner: S,
}

impl<S, R> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<Tap<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let calls = self.calls.as_ref();
        let call = calls.and_then(|calls| calls.begin(request.uri().path()));
        let request = match &call {
            None => request,
            Some(call) => {
                let received = Some((call.clone(), Direction::Received));
                request.map(|body| Body::new(Tap::new(body, received)))
            }
        };
        let answered = self.inner.call(request);
        Box::pin(async move {
            let response = answered.await?;
            if let Some(call) = &call {
                call.end(response.headers());
            }
            let sent = call.map(|call| (call, Direction::Sent));
            Ok(response.map(|body| Tap::new(body, sent)))
        })
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Received,
    Sent,
}

/// A body whose messages are counted.
pub(crate) struct Tap<B> {
    body: B,
    call: Option<(Arc<Call>, Direction)>,
    messages: Messages,
}

impl<B> Tap<B> {
    fn new(body: B, call: Option<(Arc<Call>, Direction)>) -> Self {
        Self { body, call, messages: Messages::default() }
    }

    fn look(&mut self, frame: &Frame<Bytes>) {
        let Some((call, direction)) = &self.call else { return };
        if let Some(data) = frame.data_ref() {
            let whole = self.messages.pass(data);
            call.count(|counters| {
                let counter = match direction {
                    Direction::Received => &counters.received,
                    Direction::Sent => &counters.sent,
                };
                counter.fetch_add(whole, Ordering::Relaxed);
            });
        }
        if let (Some(trailers), Direction::Sent) = (frame.trailers_ref(), direction) {
            call.end(trailers);
        }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Tap<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.look(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in its messages a body is.
#[derive(Default)]
struct Messages {
    /// How much of a prefix has passed.
    prefix: usize,
    length: u32,
    /// How much of the message is still to come.
    left: u32,
}

impl Messages {
    /// Passes `bytes`; returns how many messages end in them.
    fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        let mut whole = 0;
        while let [first, rest @ ..] = bytes {
            if self.prefix < PREFIX {
                if self.prefix > 0 {
                    self.length = self.length << 8 | u32::from(*first);
                }
                self.prefix += 1;
                self.left = self.length;
                bytes = rest;
            } else {
                let taken = bytes.len().min(self.left as usize);
                self.left -= taken as u32;
                bytes = &bytes[taken..];
            }
            if self.prefix == PREFIX && self.left == 0 {
                whole += 1;
                *self = Self::default();
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for length in [0_u32, 1, 300, 0, 7] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(vec![0xff; length as usize]);
        }
        for size in [1, 2, 3, 7, 100, 1000] {
            let mut messages = Messages::default();
            let counted: u64 = stream.chunks(size).map(|chunk| messages.pass(chunk)).sum();
            assert_eq!(counted, 5, "in pieces of {size}");
        }
    }

    #[test]
    fn a_call_ends_once_and_an_abandoned_one_as_canceled() {
        let calls = Arc::new(Calls::new().unwrap());
        let path = "/containerd.services.version.v1.Version/Version";
        let call = calls.begin(path).unwrap();
        call.end_with(5);
        call.end_with(0);
        drop(call);
        drop(calls.begin(path));
        assert!(calls.begin("/no.such/Method").is_none());
        let of_version = |count: &&Count| count.1.contains("services.version.v1") && count.2 > 0;
        let counts = calls.counts();
        let counts: Vec<_> = counts.iter().filter(of_version).collect();
        let labels = "grpc_type=\"unary\",grpc_service=\"containerd.services.version.v1.Version\",\
                      grpc_method=\"Version\"";
        let expected = [
            ("grpc_server_started_total", labels.to_owned(), 2),
            ("grpc_server_handled_total", format!("{labels},grpc_code=\"Canceled\""), 1),
            ("grpc_server_handled_total", format!("{labels},grpc_code=\"NotFound\""), 1),
        ];
        assert_eq!(counts, expected.iter().collect::<Vec<_>>());
    }
}
