//! The code for messages over the limit, which is another one in Go's gRPC than in tonic.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use tonic::Code;
use tower::{Layer, Service};

/// How tonic's message about such a request begins, as it is in a header.
const TOO_LARGE: &[u8] = b"Error,%20decoded%20message%20length%20too%20large";

/// Lets clients see `ResourceExhausted` when their message is over the limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits;

impl<S> Layer<S> for Limits {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited(inner)
    }
}

/// A service behind [`Limits`].
#[derive(Clone, Debug)]
pub(super) struct Limited<S>(S);

impl<S, B, R> Service<Request<B>> for Limited<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answered = self.0.call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            let headers = response.headers_mut();
            if headers.get("grpc-message").is_some_and(|m| m.as_bytes().starts_with(TOO_LARGE)) {
                let code = Code::ResourceExhausted as i32;
                headers.insert("grpc-status", HeaderValue::from(code));
            }
            Ok(response)
        })
    }
}
